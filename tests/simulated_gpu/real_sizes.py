"""A denoiser of its real size through Roost's engine on the simulated GPU, without touching memory.

    SIM_NO_COPY=1 python real_sizes.py MODEL SHARE        # JSON on stdout; SHARE of the blocks stays

Weights are 64 MiB of host memory over and over, nothing is copied or computed. What is real: sizes, the allocator, the
calls. Two passes: the first brings everything in, the second is steady.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from simulated import count_anew, counters, runtime, violations, watched
from torch.utils._python_dispatch import TorchDispatchMode

from engine_cases import with_pinned
from plans import GIB, LAYERWISE, plan_for
from roost.residency.device.cuda import CudaDevice
from roost.residency.hold.attach import hold
from roost.residency.weights import host_masters

PAGE = 4096
HOST_BYTES = 200 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How a denoiser is made, the pipeline it belongs to, its name there, and the inputs of one pass."""

    make: Callable[[], torch.nn.Module]
    pipeline: type
    others: str
    inputs: Callable[[], dict[str, Any]]
    name: str = "transformer"


def _half(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="cuda", dtype=torch.bfloat16)


def _whole(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="cuda")


def _flux() -> dict[str, Any]:
    return {
        "hidden_states": _half(1, 4096, 64), "encoder_hidden_states": _half(1, 512, 4096),
        "pooled_projections": _half(1, 768), "timestep": _half(1), "guidance": _half(1),
        "img_ids": _whole(4096, 3), "txt_ids": _whole(512, 3),
    }  # fmt: skip


def _qwen() -> dict[str, Any]:
    shapes = {"timestep": _half(1), "img_shapes": [[(1, 64, 64)]]}
    return {"hidden_states": _half(1, 4096, 64), "encoder_hidden_states": _half(1, 128, 3584), **shapes}


def _wan() -> dict[str, Any]:
    timestep = torch.empty(1, device="cuda", dtype=torch.long)
    return {
        "hidden_states": _half(1, 16, 9, 60, 104),
        "timestep": timestep,
        "encoder_hidden_states": _half(1, 512, 4096),
    }


def _sdxl() -> dict[str, Any]:
    added = {"text_embeds": _half(2, 1280), "time_ids": _half(2, 6)}
    return {
        "sample": _half(2, 4, 128, 128), "timestep": _whole(1), "encoder_hidden_states": _half(2, 77, 2048),
        "added_cond_kwargs": added,
    }  # fmt: skip


def _sdxl_unet() -> torch.nn.Module:
    made: torch.nn.Module = diffusers.UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816, use_linear_projection=True,
    )  # fmt: skip
    return made


MODELS = {
    "flux": Model(
        make=lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        pipeline=diffusers.FluxPipeline,
        others="scheduler vae text_encoder tokenizer text_encoder_2 tokenizer_2",
        inputs=_flux,
    ),
    "qwen-image": Model(
        make=diffusers.QwenImageTransformer2DModel,
        pipeline=diffusers.QwenImagePipeline,
        others="scheduler vae text_encoder tokenizer",
        inputs=_qwen,
    ),
    "wan2.2": Model(
        make=lambda: diffusers.WanTransformer3DModel(num_layers=40, num_attention_heads=40, ffn_dim=13824),
        pipeline=diffusers.WanPipeline,
        others="tokenizer text_encoder vae scheduler",
        inputs=_wan,
    ),
    "sdxl": Model(
        make=_sdxl_unet,
        pipeline=diffusers.StableDiffusionXLPipeline,
        others="vae text_encoder text_encoder_2 tokenizer tokenizer_2 scheduler",
        inputs=_sdxl,
        name="unet",
    ),
}


class WithoutHostCopies(TorchDispatchMode):
    """Copies from host memory to host memory are left out: contents don't matter, and 40 GB of them take long."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and not args[0].is_cuda and not args[1].is_cuda:
            return args[0]
        return func(*args, **(kwargs or {}))


def aliased(count: int) -> torch.Tensor:
    """``count`` bytes of host memory, page-aligned, that take none."""
    size = -(-count // PAGE) * PAGE
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(runtime().sim_alias(size)), dtype=torch.uint8)


def made(model: Model) -> torch.nn.Module:
    """The module in bfloat16, on the host."""
    with init_empty_weights(include_buffers=False):
        module = model.make().to(torch.bfloat16).eval().requires_grad_(False)
    for owner in module.modules():
        for key, each in owner._parameters.items():
            if each is not None:
                data = aliased(each.numel() * 2)[: each.numel() * 2].view(torch.bfloat16).view(each.shape)
                owner._parameters[key] = torch.nn.Parameter(data, requires_grad=False)
    return module


def passes(name: str, share: float) -> dict[str, Any]:
    """Counts of the first pass and of a steady one, memory, and what Roost called in the steady one."""
    model = MODELS[name]
    host_masters.host_memory = aliased
    pipeline = model.pipeline(**dict.fromkeys(model.others.split()), **{model.name: made(model)})
    total = torch.cuda.get_device_properties(0).total_memory
    plan = with_pinned(plan_for(pipeline, {**LAYERWISE, "resident_blocks": share}, budget_bytes=total))
    host = replace(plan.machine.host, pinnable_bytes=HOST_BYTES, available_bytes=HOST_BYTES)
    plan = plan.model_copy(update={"machine": plan.machine.model_copy(update={"host": host})})
    counted: list[dict[str, int]] = []
    with WithoutHostCopies(), torch.no_grad(), CudaDevice(total) as device, hold(pipeline, plan, device) as held:
        inputs = model.inputs()
        for _ in range(3):
            torch.cuda.synchronize()
            count_anew()
            with watched() as calls:
                getattr(held.pipeline, model.name)(**inputs)
            counted.append({key: int(each) for key, each in counters().items() if each and not key.endswith("_s")})
        steady = sorted(f"{call.name} at {call.at}" for call in calls if call.by_roost)
        return {
            "first": counted[0], "steady": counted[-1], "by_roost": steady, "violations": violations(),
            "allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved(),
            "weights_bytes": sum(each.nbytes for each in getattr(pipeline, model.name).parameters()),
        }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(passes(sys.argv[1], float(sys.argv[2]))))
