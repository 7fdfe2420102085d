"""What a file's format does to a denoising step where the link sets the pace: bf16, scaled fp8 and Q4 at one budget.

    python benchmarks/formats.py [-o RESULT.json]

FLUX.1-dev by its name with a transformer's file of each format at its real size (headers alone), planned for an RTX
4090 with 6 GiB free: predicted seconds a step and bytes that a pass streams. And a small Wan of random weights, run on
the emulated device with a slow link: seconds of a step as measured on this CPU, of which only the ratios say something.
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
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from statistics import median  # noqa: E402

import torch  # noqa: E402

import original_layouts  # noqa: E402
import roost  # noqa: E402
import stored_weights  # noqa: E402
from random_weights import fill_with_random_weights  # noqa: E402
from roost.plan import PlanDocument  # noqa: E402
from roost.units import format_bytes, format_seconds  # noqa: E402
from single_file_worlds import matrices, scaled_fp8  # noqa: E402
from sparse_files import shapes_of, sparse_gguf, sparse_safetensors  # noqa: E402
from tiny_wan import WanSize, wan_pipeline  # noqa: E402

FORMS = ("bf16", "fp8", "Q4")
MODEL, CARD, BUDGET = "flux.1-dev", "rtx-4090", "6GiB"
_SIZES = ("1024x1024", "512x512")
_SMALL = WanSize(blocks=12, heads=4, head_dim=64, ffn_dim=1024, text_blocks=2, text_dim=128, vae_base_dim=12)
_LINK, _SMALL_BUDGET, _SMALL_SIZE, _ROUNDS, _STEPS = "20MB/s", "24MiB", "32x32", 3, 4

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One format of one model; ``measured_step_s`` is the emulated device's."""

    model: str
    size: str
    form: str
    weights_bytes: int
    pass_bytes: int
    predicted_step_s: float
    measured_step_s: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON; a table in Markdown is written beside it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("DATA", "CACHE", "STATE"):  # nothing measured here is the user's
            os.environ[f"XDG_{name}_HOME"] = f"{folder}/{name.lower()}"
        rows = [*_named(Path(folder)), *_small(Path(folder))]
    table = _table(rows)
    print(table)
    if given.output:
        machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
        document = {"machine": machine, "torch": torch.__version__, "rows": [asdict(each) for each in rows]}
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        given.output.with_suffix(".md").write_text(_page(table), encoding="utf-8")


def _named(folder: Path) -> Iterator[Row]:
    shapes = shapes_of(MODEL)
    files = {
        "bf16": sparse_safetensors(folder / "bf16.safetensors", shapes),
        "fp8": sparse_safetensors(folder / "fp8.safetensors", shapes, "F8_E4M3", scale="scale_weight"),
        "Q4": sparse_gguf(folder / "q4.gguf", shapes, "Q4_K", "flux"),
    }
    for size in _SIZES:
        for form in FORMS:
            options = {"gpu": CARD, "vram": BUDGET, "ram": "64GiB", "size": size}
            yield _row(MODEL, size, form, roost.make_plan(MODEL, files={"transformer": files[form]}, **options))


def _row(model: str, size: str, form: str, plan: PlanDocument, measured_s: float | None = None) -> Row:
    assert plan.fits
    assert plan.arithmetic
    assert plan.predicted
    work = next(each for each in plan.arithmetic.stages if each.component == "transformer")
    return Row(
        model=model,
        size=size,
        form=form,
        weights_bytes=plan.components["transformer"].load_bytes,
        pass_bytes=work.pass_h2d_bytes,
        predicted_step_s=plan.predicted.step_s.mid,
        measured_step_s=measured_s,
    )


def _small(folder: Path) -> Iterator[Row]:
    model = folder / "model"
    pipeline = wan_pipeline(_SMALL, two_experts=False)
    fill_with_random_weights(pipeline.components)
    pipeline.to(torch.bfloat16).save_pretrained(model)
    state = original_layouts.wan(pipeline.transformer.state_dict())
    for form, write in _WRITERS.items():
        yield _measured(model, form, write(folder, state))


def _measured(model: Path, form: str, file: Path) -> Row:
    """Steady steps of the searched placement in which every block streams."""
    results = roost.bench(
        model,
        gpu="emulated",
        vram=_SMALL_BUDGET,
        headroom=0,
        files={"transformer": str(file)},
        size=_SMALL_SIZE,
        frames=5,
        steps=_STEPS,
        set="dit=layerwise-offload,resident_blocks=0",
        strategies="search",
        rounds=_ROUNDS,
        trial_steps=_STEPS,
        link_speed=_LINK,
    )
    row = next(each for each in results.rows if each.candidate.plan is not None and each.result.step_seconds)
    assert row.candidate.plan is not None
    return _row("a small Wan", _SMALL_SIZE, form, row.candidate.plan, median(row.result.step_seconds))


def _plain(folder: Path, state: State) -> Path:
    return stored_weights.write_safetensors(folder / "small-bf16.safetensors", dict(state))


def _fp8(folder: Path, state: State) -> Path:
    stored: dict[str, torch.Tensor] = {**state, "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name in matrices(state):
        stored[name], scale = scaled_fp8(state[name])
        stored[f"{name.removesuffix('.weight')}.scale_weight"] = scale
    return stored_weights.write_safetensors(folder / "small-fp8.safetensors", stored)


def _q4(folder: Path, state: State) -> Path:
    kinds = dict.fromkeys(matrices(state), "Q4_0")
    plain = {name: each.float() for name, each in state.items()}
    return stored_weights.write_gguf(folder / "small-q4.gguf", "wan", plain, kinds)


_WRITERS: Mapping[str, Callable[[Path, State], Path]] = {"bf16": _plain, "fp8": _fp8, "Q4": _q4}


def _table(rows: list[Row]) -> str:
    lines = ["| model | size | format | weights | streamed a pass | step, predicted | step, emulated |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for each in rows:
        measured = "" if each.measured_step_s is None else format_seconds(each.measured_step_s)
        sizes = f"{format_bytes(each.weights_bytes)} | {format_bytes(each.pass_bytes)}"
        seconds = f"{format_seconds(each.predicted_step_s)} | {measured}"
        lines.append(f"| {each.model} | {each.size} | {each.form} | {sizes} | {seconds} |")
    return "\n".join(lines)


def _page(table: str) -> str:
    return f"""# Formats at one small budget

    python benchmarks/formats.py -o benchmarks/results/formats.json

{MODEL} by its name on {CARD} with {BUDGET} free, and a small Wan with {_SMALL_BUDGET} on the emulated device, where the
link carries {_LINK} and every block streams. Of emulated seconds only the ratios of rows say something, and of
dequantising they say what this CPU takes. FLUX's Q4 is Q4_K, the small model's is Q4_0; fp8 is ComfyUI's, scaled.

{table}
"""


if __name__ == "__main__":
    main()
