"""How fast a component of one file gets into host memory of its own, and what that takes at most.

    python benchmarks/single_file.py [--gib N] [-o FILE]

A Qwen-Image of a few narrow blocks with random weights, plain, as scaled fp8 and as GGUF in Q8_0, in three ways: a
copy of the file's bytes in pieces of 64 MiB; this loader, and diffusers' ``from_single_file``, both with a copy of
each tensor into its master, as what streams needs them. Each runs in a process of its own, with the file in the page
cache. Peaks are of anonymous memory, beyond what the process had with its libraries loaded: pages of the file's mapping
are the system's to drop.
"""

from __future__ import annotations

import sys

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
del sys.path[0]

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

GIB, MIB = 1024**3, 1024**2
_PIECE_BYTES = 64 * MIB
_WIDTH, _HEADS = 1536, 12
_LAYER_VALUES = 36 * _WIDTH**2  # of one block, about
FORMS = ("plain", "scaled fp8", "gguf Q8_0")
WAYS = ("copy", "roost", "diffusers")


@dataclass(frozen=True)
class Row:
    """One way with one file; ``peak_bytes`` are those beyond the libraries."""

    form: str
    way: str
    file_bytes: int
    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=0.25, help="size of the plain file")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "FORM", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(asdict(_measured(*given.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), given.gib)
        rows = [_row(way, form, folder) for form in FORMS for way in WAYS]
    document = {"machine": _machine(), "rows": [asdict(each) for each in rows if each is not None]}
    if given.output:
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _row(way: str, form: str, folder: str) -> Row | None:
    if way == "diffusers" and form == "scaled fp8":
        return None  # it leaves the scales out, and the weights are wrong
    command = [sys.executable, __file__, "--child", way, form, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = Row(**json.loads(done.stdout.splitlines()[-1]))
    rate = row.file_bytes / row.seconds / GIB
    print(f"{form:12} {way:10} {row.seconds:6.2f} s  {rate:6.2f} GiB/s  peak {row.peak_bytes / MIB:8.0f} MiB")
    return row


def _measured(way: str, form: str, folder: str) -> Row:
    path = _path(Path(folder), form)
    act: Callable[[], object] = {"copy": _copier, "roost": _loader, "diffusers": _by_diffusers}[way](path)
    path.read_bytes()  # into the page cache
    peak = _Peak()
    with peak:
        before = time.perf_counter()
        kept = act()
        seconds = time.perf_counter() - before
    del kept
    return Row(form, way, path.stat().st_size, seconds, peak.bytes)


class _Peak:
    """The most anonymous memory of this process while it was entered, sampled, beyond that at its start."""

    bytes = 0

    def __enter__(self) -> None:
        self._start, self._over = _anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, _anonymous() - self._start)
            if self._over.wait(0.002):
                return


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("RssAnon:")) * 1024


def _copier(path: Path) -> Callable[[], object]:
    import torch

    def copy() -> object:
        masters = []
        with path.open("rb", buffering=0) as file:
            left = path.stat().st_size
            while left:
                master = torch.empty(min(left, _PIECE_BYTES), dtype=torch.uint8)
                left -= file.readinto(memoryview(master.numpy()))
                masters.append(master)
        return masters

    return copy


def _loader(path: Path) -> Callable[[], object]:
    from types import SimpleNamespace

    import diffusers

    from roost.pipelines.formats.modules import build_from_file
    from roost.pipelines.formats.recipes import derive_recipe
    from roost.pipelines.formats.skeletons import ComponentConfig
    from roost.probes.files.weights import read_weight_file
    from roost.profiles.class_facts import load_class_facts

    kind = diffusers.QwenImageTransformer2DModel.__name__
    asked = SimpleNamespace(library="diffusers", class_name=kind, load_dtype="bfloat16")
    component = ComponentConfig(
        name="transformer", described=asked, config_dir=path.parent, facts=load_class_facts()[kind]
    )
    file = read_weight_file(str(path))
    recipe = derive_recipe(component, file)

    def load() -> object:
        return _in_masters(build_from_file(component, file, recipe))

    return load


def _in_masters(module: Any) -> object:
    """The module with a copy of each tensor in memory of its own; what it was loaded as goes one by one."""
    import torch

    for each in (*module.parameters(), *module.buffers()):
        master = torch.empty(each.shape, dtype=each.dtype)
        each.data = master.copy_(each.detach().as_subclass(torch.Tensor))
    return module


def _by_diffusers(path: Path) -> Callable[[], object]:
    import diffusers
    import torch

    options = {}
    if path.suffix == ".gguf":
        options["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=torch.bfloat16)
    kind = diffusers.QwenImageTransformer2DModel  # imported here, as diffusers does so late

    def load() -> object:
        module = kind.from_single_file(
            str(path), config=str(path.parent), subfolder="transformer", torch_dtype=torch.bfloat16, **options
        )
        return _in_masters(module)

    return load


def _path(folder: Path, form: str) -> Path:
    return folder / ("m.gguf" if form.startswith("gguf") else f"{form.replace(' ', '-')}.safetensors")


def _write(folder: Path, gib: float) -> None:
    """The model's config and its three files."""
    import diffusers
    import torch
    from safetensors.torch import save_file

    layers = max(1, round(gib * GIB / 2 / _LAYER_VALUES))
    with torch.device("meta"):
        module = diffusers.QwenImageTransformer2DModel(
            num_layers=layers, attention_head_dim=_WIDTH // _HEADS, num_attention_heads=_HEADS, joint_attention_dim=512
        )
    module.save_config(folder / "transformer")
    torch.manual_seed(0)
    state = {name: torch.randn(each.shape).bfloat16() * 0.02 for name, each in module.state_dict().items()}
    save_file(state, _path(folder, "plain"))
    scaled = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, each in state.items():
        if each.ndim == 2 and "transformer_blocks" in name:
            scaled[name], scaled[name.replace("weight", "scale_weight")] = _scaled(each)
        else:
            scaled[name] = each
    save_file(scaled, _path(folder, "scaled fp8"))
    _write_gguf(_path(folder, "gguf"), state)


def _scaled(weight: object) -> tuple[object, object]:
    import torch

    assert isinstance(weight, torch.Tensor)
    scale = weight.float().abs().amax() / torch.finfo(torch.float8_e4m3fn).max
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


def _write_gguf(path: Path, state: dict[str, object]) -> None:
    import gguf
    import torch

    writer = gguf.GGUFWriter(str(path), "qwen_image", use_temp_file=False)
    for name, each in state.items():
        assert isinstance(each, torch.Tensor)
        values = each.float().numpy()
        if each.ndim == 2 and "transformer_blocks" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _machine() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "safetensors", "gguf")}
    return {"system": platform.platform(), "python": platform.python_version(), **versions}


if __name__ == "__main__":
    main()
