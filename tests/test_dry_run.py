"""A dry run says exactly what a real run does: the same uses in the same order, the same work, the same bytes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

from dry_runs import (
    SIX_FAMILIES,
    real_sequence,
    real_uses,
    tiny_directory,
    tiny_inventory,
    tiny_options,
    tiny_trace,
    tiny_workload,
    trace_tiny,
)
from roost.api.models.inspect import inspect_model
from roost.errors import DryRunError
from roost.facts.request import Workload
from roost.probes.dry_run import DryRunOptions, dry_run
from roost.profiles.class_facts import load_class_facts
from roost.trace import Totals, Trace, UseTrace
from tiny_models import FAMILIES


def exact_part(use: UseTrace) -> UseTrace:
    """The use without elementwise counts: in a real run the CPU's convolutions choose layouts that cost copies."""
    blocks = tuple(replace(block, totals=_without_elementwise(block.totals)) for block in use.blocks)
    return replace(use, totals=_without_elementwise(use.totals), blocks=blocks)


def _without_elementwise(totals: Totals) -> Totals:
    return {name: each for name, each in totals.items() if name != "elementwise"}


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", SIX_FAMILIES)
def test_uses_come_in_the_order_of_a_real_run(name: str) -> None:
    traced = [(use.component, use.method) for use in tiny_trace(name).ordered_uses()]
    assert traced == real_sequence(name)


@pytest.mark.parametrize("name", SIX_FAMILIES)
def test_work_and_activations_equal_a_real_runs_to_the_byte(name: str) -> None:
    real, traced = real_uses(name), tiny_trace(name)
    for found, expected in zip(
        (*traced.uses, *(each.trace for each in traced.variants)),
        (*real.uses, *(each.trace for each in real.variants)),
        strict=True,
    ):
        assert exact_part(found) == exact_part(expected)
        assert found.totals["elementwise"].bytes == pytest.approx(expected.totals["elementwise"].bytes, rel=0.01)


def test_both_experts_run_and_guidance_doubles_each_step() -> None:
    calls = {use.component: 0 for use in tiny_trace("wan2.2").uses}
    for use in tiny_trace("wan2.2").ordered_uses():
        calls[use.component] += 1
    assert calls["transformer"] + calls["transformer_2"] == 2 * 4
    assert min(calls["transformer"], calls["transformer_2"]) > 0


def test_a_wan_blocks_flops_are_the_closed_form() -> None:
    workload = tiny_workload("wan2.2", width=128, height=96)
    use = next(each for each in trace_tiny("wan2.2", workload).uses if each.component == "transformer")
    width, hidden, text = 48, 64, 512
    tokens = 3 * (96 // 16) * (128 // 16)  # latent frames of 9, patches of 2 x 2 latents of 8 x 8 pixels
    for block in use.blocks:
        assert block.totals["attention"].flops == 4 * tokens * (tokens + text) * width
        projections = (4 + 2) * tokens * width**2 + 2 * text * width**2
        assert block.totals["matmul"].flops == 2 * (projections + 2 * tokens * width * hidden)


def test_a_flux_blocks_flops_are_the_closed_form() -> None:
    trace = trace_tiny("flux", tiny_workload("flux", width=128))
    use = next(each for each in trace.uses if each.component == "transformer")
    width, text = 32, 64
    tokens = (128 // 16) * (64 // 16) + text
    joint = [block for block in use.blocks if block.name.startswith("transformer_blocks")]
    single = [block for block in use.blocks if block.name.startswith("single_transformer_blocks")]
    assert (len(joint), len(single)) == (3, 4)
    for block in (*joint, *single):
        assert block.totals["attention"].flops == 4 * tokens**2 * width
    for block in joint:
        assert block.totals["matmul"].flops == 2 * width**2 * ((4 + 8) * tokens + 2 * 6)
    for block in single:
        assert block.totals["matmul"].flops == 2 * width**2 * ((3 + 4 + 5) * tokens + 3)


def test_a_tiled_vae_needs_less_memory_and_more_work() -> None:
    trace = trace_tiny("wan2.2", tiny_workload("wan2.2", width=448, height=256, frames=5, steps=1))
    use = next(index for index, each in enumerate(trace.uses) if each.method == "decode")
    tiled = trace.variant(use, "tiled")
    assert tiled is not None
    assert tiled.activation_bytes.peak_bytes < trace.uses[use].activation_bytes.peak_bytes
    assert tiled.flops > trace.uses[use].flops


def test_a_sliced_vae_needs_less_memory_for_a_batch() -> None:
    trace = trace_tiny("flux", tiny_workload("flux", batch=2))
    use = next(index for index, each in enumerate(trace.uses) if each.method == "decode")
    sliced = trace.variant(use, "sliced")
    assert sliced is not None
    assert sliced.activation_bytes.peak_bytes < trace.uses[use].activation_bytes.peak_bytes
    assert sliced.flops == trace.uses[use].flops


def test_an_unknown_pipeline_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DryRunError, match="'NoSuchPipeline' is not a pipeline class"):
        _trace_of_edited("flux", tmp_path, _class_name="NoSuchPipeline")


def test_a_pipeline_whose_call_fails_is_refused_with_the_reason(tmp_path: Path) -> None:
    options = replace(tiny_options("flux"), more={"no_such_argument": 1})
    with pytest.raises(DryRunError, match=r"^'FluxPipeline' can't be dry-run: .*no_such_argument"):
        dry_run(tiny_directory("flux"), tiny_inventory("flux"), tiny_workload("flux"), load_class_facts(), options)


def test_image_to_image_encodes_a_made_up_picture(tmp_path: Path) -> None:
    trace = _trace_of_edited("flux", tmp_path, _class_name="FluxImg2ImgPipeline")
    assert [use.method for use in trace.uses if use.component == "vae"] == ["encode", "decode"]


def test_image_to_video_encodes_a_made_up_picture(tmp_path: Path) -> None:
    trace = _trace_of_edited("ltx", tmp_path, _class_name="LTXImageToVideoPipeline")
    assert [use.method for use in trace.uses if use.component == "vae"] == ["encode", "decode"]


def test_a_controlnet_runs_before_the_unet_in_every_step(tmp_path: Path) -> None:
    plain = FAMILIES["sdxl"].make()
    controlnet = ControlNetModel.from_unet(plain.unet)
    StableDiffusionXLControlNetPipeline(**plain.components, controlnet=controlnet).save_pretrained(tmp_path)
    trace = _trace_of(tmp_path, tiny_workload("sdxl", steps=2))
    steps = [use.component for use in trace.ordered_uses() if use.component in ("controlnet", "unet")]
    assert steps == ["controlnet", "unet"] * 2


def _trace_of_edited(name: str, folder: Path, **entries: str) -> Trace:
    """The trace of the family's directory with other entries in its model index."""
    shutil.copytree(tiny_directory(name), folder, dirs_exist_ok=True)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | entries))
    return _trace_of(folder, tiny_workload(name))


def _trace_of(folder: Path, workload: Workload) -> Trace:
    return dry_run(folder, inspect_model(folder, dtype="bfloat16"), workload, load_class_facts(), DryRunOptions())
