"""How fast a component gets into host memory of its own, and what that takes at most.

    python benchmarks/single_file.py [--gib N] [--rounds N] [-o RESULT.json]

A Qwen-Image of two real blocks with random weights, from its diffusers directory, and from a file: plain, as scaled
fp8 and as GGUF in Q8_0. In three ways: a copy of the file's bytes in pieces of 64 MiB; Roost, which makes pageable
masters; and diffusers with a copy of each tensor, as what streams needs them. Each runs on one thread of a process of
its own, with all libraries loaded and the file in the page cache. Rounds go through all ways of one file, forth and
back; figures are medians, and rates are compared within a round. CPU seconds leave out what other processes took
meanwhile. Peaks are of anonymous memory, beyond what the process had before and the file's bytes: pages of the file's
mapping are the system's to drop.
"""

from __future__ import annotations

import sys

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
del sys.path[0]
from pathlib import Path  # noqa: E402 - after the line above

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from importlib import metadata  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402

from roost.units import format_bytes  # noqa: E402

GIB, MIB = 1024**3, 1024**2
_PIECE_BYTES = 64 * MIB
_WIDTH, _HEADS, _TEXT_WIDTH = 3072, 24, 3584
_LAYER_VALUES = 36 * _WIDTH**2  # of one block, about
FORMS = ("directory", "plain", "scaled fp8", "gguf Q8_0")
WAYS = ("copy", "roost", "diffusers")


@dataclass(frozen=True)
class Row:
    """One way with one file in one round; ``peak_bytes`` are those beyond the libraries."""

    form: str
    way: str
    round: int
    file_bytes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.3, help="size of the plain file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="JSON; a table in Markdown is written beside it")
    parser.add_argument("--child", nargs=4, metavar=("WAY", "FORM", "ROUND", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(asdict(_measured(*given.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("DATA", "CACHE", "STATE"):  # nothing measured here is the user's
            os.environ[f"XDG_{name}_HOME"] = f"{folder}/{name.lower()}"
        _write(Path(folder), given.gib)
        rows = [row for form in FORMS for row in _rounds(form, folder, given.rounds)]
    table = _table(rows)
    print(table)
    if given.output:
        document = {"machine": _machine(), "rows": [asdict(each) for each in rows]}
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        given.output.with_suffix(".md").write_text(_page(table), encoding="utf-8")


def _rounds(form: str, folder: str, rounds: int) -> Iterator[Row]:
    ways = [each for each in WAYS if (each, form) != ("diffusers", "scaled fp8")]  # it leaves the scales out
    for index in range(rounds):
        for way in ways if index % 2 == 0 else reversed(ways):
            command = [sys.executable, __file__, "--child", way, form, str(index), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            yield Row(**json.loads(done.stdout.splitlines()[-1]))


def _measured(way: str, form: str, number: str, folder: str) -> Row:
    import torch

    path = _path(Path(folder), form)
    torch.set_num_threads(1)
    make: dict[str, Callable[[Path, str], Callable[[], object]]] = {
        "copy": _copier,
        "roost": _by_roost,
        "diffusers": _by_diffusers,
    }
    act = make[way](Path(folder), form)
    with path.open("rb") as file:  # into the page cache
        while file.read(MIB):
            pass
    peak = _Peak()
    with peak:
        before, cpu_before = time.perf_counter(), time.thread_time()
        kept = act()
        seconds, cpu_seconds = time.perf_counter() - before, time.thread_time() - cpu_before
    del kept
    return Row(form, way, int(number), path.stat().st_size, seconds, cpu_seconds, peak.bytes)


def _table(rows: list[Row]) -> str:
    lines = [
        "| form | size | way | seconds | CPU seconds | rate | of a copy's rate | by CPU seconds | peak |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for form, way in dict.fromkeys((each.form, each.way) for each in rows):
        own = [each for each in rows if (each.form, each.way) == (form, way)]
        copies = {each.round: each for each in rows if (each.form, each.way) == (form, "copy")}
        size, seconds = own[0].file_bytes, median(each.seconds for each in own)
        cells = [
            form,
            format_bytes(size),
            way,
            f"{seconds:.2f}",
            f"{median(each.cpu_seconds for each in own):.2f}",
            f"{size / seconds / GIB:.1f} GiB/s",
            f"{median(copies[each.round].seconds / each.seconds for each in own):.2f}",
            f"{median(copies[each.round].cpu_seconds / each.cpu_seconds for each in own):.2f}",
            f"{(median(each.peak_bytes for each in own) - size) / MIB:+.0f} MiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _page(table: str) -> str:
    return f"""# Loading a component into host memory

    python benchmarks/single_file.py -o benchmarks/results/single_file.json

{(__doc__ or "").split(chr(10) * 2, 2)[2]}
{table}
"""


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
            if self._over.wait(0.01):
                return


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("RssAnon:")) * 1024


def _copier(folder: Path, form: str) -> Callable[[], object]:
    import torch

    return lambda: _copied(_path(folder, form), lambda size: torch.empty(size, dtype=torch.uint8).numpy().data)


def _copied(path: Path, memory: Callable[[int], memoryview]) -> list[memoryview]:
    made = []
    with path.open("rb", buffering=0) as file:
        left = path.stat().st_size
        while left:
            made.append(memory(min(left, _PIECE_BYTES)))
            done = 0
            while done < len(made[-1]):
                done += file.readinto(made[-1][done:])
            left -= done
    return made


def _by_roost(folder: Path, form: str) -> Callable[[], object]:
    import roost
    from roost.api.models.inspect import inspect_planned
    from roost.pipelines.classes import model_class
    from roost.profiles.class_facts import load_class_facts
    from roost.residency.device.emulated import EmulatedDevice
    from roost.residency.engine.component import HeldComponent
    from roost.residency.run.sources.given_files import GivenFiles
    from roost.residency.weights.transfers import Transfers

    name, model = "transformer", folder / "model"
    files = {} if form == "directory" else {name: _path(folder, form)}
    placed = f"{name}=layerwise-offload,pinned=0"
    plan = roost.make_plan(model, gpu="emulated", vram="4GiB", policy="rules", set=placed, measured=False, files=files)
    given = GivenFiles(files=inspect_planned(plan, model).given, class_facts=load_class_facts())
    transfers = Transfers.under(plan, EmulatedDevice(4 * GIB))
    model_class("diffusers", plan.components[name].class_name)  # imports it

    def load() -> object:
        module = given.load(name, plan.components[name], model)
        return HeldComponent(name, module, plan.components[name], transfers)

    return load


def _in_masters(module: Any) -> object:
    """The module with a copy of each tensor in memory of its own; what it was loaded as goes one by one."""
    import torch

    for each in (*module.parameters(), *module.buffers()):
        master = torch.empty(each.shape, dtype=each.dtype)
        each.data = master.copy_(each.detach().as_subclass(torch.Tensor))
    return module


def _by_diffusers(folder: Path, form: str) -> Callable[[], object]:
    import diffusers
    import torch

    kind = diffusers.QwenImageTransformer2DModel  # imported here, as diffusers does so late
    config, dtype = folder / "model", torch.bfloat16
    if form == "directory":
        return lambda: _in_masters(kind.from_pretrained(config / "transformer", torch_dtype=dtype))
    options = {}
    if form.startswith("gguf"):
        options["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    path = str(_path(folder, form))
    return lambda: _in_masters(
        kind.from_single_file(path, config=str(config), subfolder="transformer", torch_dtype=dtype, **options)
    )


def _path(folder: Path, form: str) -> Path:
    if form == "directory":
        return folder / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    return folder / ("m.gguf" if form.startswith("gguf") else f"{form.replace(' ', '-')}.safetensors")


def _write(folder: Path, gib: float) -> None:
    """The model's directory, small but for its denoiser, and that one's three files."""
    import diffusers
    import torch

    import stored_weights
    import tiny_models
    from single_file_worlds import scaled_fp8

    layers = max(1, round(gib * GIB / 2 / _LAYER_VALUES))
    pipeline: Any = tiny_models.FAMILIES["qwen-image"].make()
    with torch.device("meta"):
        module = diffusers.QwenImageTransformer2DModel(
            num_layers=layers,
            attention_head_dim=_WIDTH // _HEADS,
            num_attention_heads=_HEADS,
            joint_attention_dim=_TEXT_WIDTH,
        )
    torch.manual_seed(0)
    state = {name: torch.randn(each.shape).bfloat16() * 0.02 for name, each in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    pipeline.register_modules(transformer=module)
    pipeline.to(torch.bfloat16).save_pretrained(folder / "model", max_shard_size="1TB")
    matrices = [name for name, each in state.items() if each.ndim == 2 and "transformer_blocks" in name]
    stored_weights.write_safetensors(_path(folder, "plain"), state)
    scaled = {**state, "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name in matrices:
        scaled[name], scaled[name.replace("weight", "scale_weight")] = scaled_fp8(state[name])
    stored_weights.write_safetensors(_path(folder, "scaled fp8"), scaled)
    stored_weights.write_gguf(_path(folder, "gguf"), "qwen_image", state, dict.fromkeys(matrices, "Q8_0"))


def _machine() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "safetensors", "gguf")}
    return {"system": platform.platform(), "python": platform.python_version(), **versions}


if __name__ == "__main__":
    main()
