"""The diffusers script of a plan, run on the CPU: it makes what the pipeline makes without any placement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers.hooks import HookRegistry

import roost
from given_files_matrix import FORMATS, made_world
from roost.api.plans.export.diffusers import diffusers_script
from roost.plan import PlanDocument
from roost.residency.run.generate import tensor_digest
from tiny_models import build, default_call

SETS = {
    "sdxl": ["unet=component-offload", "text_encoder=snapshot-offload", "vae=resident,tiling=true,slicing=true"],
    "wan2.2": ["dit=layerwise-offload", "text_encoder=layerwise-offload", "vae=component-offload"],
}


def ran(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the script leaves in its names, on the CPU, with outputs as tensors."""
    monkeypatch.chdir(folder)
    assert 'DEVICE = "cuda"\n' in script
    on_cpu = script.replace('DEVICE = "cuda"\n', 'DEVICE = "cpu"\n')
    generated, saving = on_cpu.rsplit("\n)\n", 1)
    names: dict[str, Any] = {}
    exec(compile(f'{generated}\n    output_type="pt",\n)\n', "script", "exec"), names)
    compile(saving, "script", "exec")
    return names


@pytest.mark.parametrize("family", SETS)
def test_the_script_runs_and_makes_what_it_makes_with_everything_resident(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, call = build(family, tmp_path / "model"), default_call(family)
    options: dict[str, Any] = {
        "gpu": "rtx-4090", "ram": "64GiB", "policy": "rules", "steps": 2, "frames": call.get("num_frames"),
        "size": f"{call['width']}x{call['height']}",
    }  # fmt: skip
    plan = roost.make_plan(model, set=SETS[family], **options)
    found = ran(diffusers_script(plan).text, tmp_path, monkeypatch)
    for name, part in plan.components.items():
        module = getattr(found["pipe"], name)
        assert is_streamed(module) == (part.strategy == "layerwise-offload")
        moves = isinstance(getattr(module, "_hf_hook", None), CpuOffload)
        assert moves == (part.strategy in ("component-offload", "snapshot-offload"))
    vae, planned = found["pipe"].vae, plan.components["vae"]
    assert (vae.use_tiling, vae.use_slicing) == (planned.tiling, planned.slicing)
    still = ["all=resident", *(each for each in SETS[family] if "tiling" in each)]
    alone = ran(diffusers_script(roost.make_plan(model, set=still, **options)).text, tmp_path, monkeypatch)
    assert tensor_digest(torch.as_tensor(found["result"][0])) == tensor_digest(torch.as_tensor(alone["result"][0]))


def is_streamed(module: torch.nn.Module) -> bool:
    """Whether diffusers' group offloading holds it, or the parts of it that have weights."""
    hooked = [each for each in module.modules() if isinstance(getattr(each, "_diffusers_hook", None), HookRegistry)]
    return bool(hooked)


def test_the_script_reads_a_gguf_and_a_plain_file_as_roost_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_world("sd3", tmp_path / "model")
    gguf = FORMATS["GGUF Q8_0"](made, "sd3", tmp_path)
    encoder, vae = (next((tmp_path / "model" / each).glob("*.safetensors")) for each in ("text_encoder", "vae"))
    call = default_call("sd3")
    plan = roost.make_plan(
        tmp_path / "model", gpu="emulated", vram="1GiB", policy="rules", steps=2, measured=False, dtype="float32",
        size=f"{call['width']}x{call['height']}", set=["transformer=layerwise-offload", "vae=component-offload"],
        files={"transformer": gguf, "text_encoder": encoder, "vae": vae},
    )  # fmt: skip
    exported = diffusers_script(plan)
    assert [each for each in exported.notes if "takes its weights from" in each] == [
        f"text_encoder: Roost takes its weights from {encoder} as they are stored; here the model's own are loaded."
    ]
    names = ran(exported.text, tmp_path, monkeypatch)
    assert type(names["pipe"].transformer.transformer_blocks[0].attn.to_q).__name__ == "GGUFLinear"
    assert is_streamed(names["pipe"].transformer)
    pipeline = roost.load_pipeline(plan)
    try:
        ours = pipeline("a red fox in the snow", **arguments(plan), generator=torch.Generator("cpu").manual_seed(0))[0]
    finally:
        pipeline.roost.close()
    assert torch.allclose(torch.as_tensor(names["result"][0]), ours, atol=1e-4)


def arguments(plan: PlanDocument) -> dict[str, Any]:
    work = plan.workload
    return {
        "width": work.width, "height": work.height, "num_inference_steps": work.steps, "output_type": "pt",
        "guidance_scale": work.guidance,
    }  # fmt: skip
