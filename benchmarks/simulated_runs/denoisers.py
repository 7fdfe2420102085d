"""Denoisers at their published size, with weights in host memory that takes 64 MiB however large they are."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from simulated import runtime

from roost.blocks import block_names, leaf_stacks, streamed_stacks
from roost.facts.model import Stack
from roost.profiles.published import load_published_model

PAGE = 4096
Inputs = dict[str, Any]
GPU = "cuda"
HALF = torch.bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A published model, the component that denoises, and one call of it at a usual size.

    ``lists`` are the module lists that peers stream block by block.
    """

    model: str
    component: str
    lists: tuple[str, ...]
    size: str
    inputs: Callable[[], Inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """One denoiser in host memory. ``stacks`` are the blocks that Roost streams, ``leaves`` the layers below them."""

    family: Family
    module: torch.nn.Module
    stacks: tuple[Stack, ...]
    leaves: tuple[Stack, ...]
    bytes: int

    def at_leaf_level(self) -> Denoiser:
        """The same, whose layers stream."""
        return replace(self, stacks=self.leaves)

    @property
    def lists(self) -> tuple[str, ...]:
        return self.family.lists

    @property
    def blocks(self) -> dict[str, torch.nn.Module]:
        return {name: self.module.get_submodule(name) for name in block_names(self.stacks)}


def on_gpu(*shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device=GPU)


def flux_inputs() -> Inputs:
    return {
        "hidden_states": on_gpu(1, 4096, 64), "encoder_hidden_states": on_gpu(1, 512, 4096),
        "pooled_projections": on_gpu(1, 768), "timestep": on_gpu(1), "guidance": on_gpu(1, dtype=torch.float32),
        "img_ids": on_gpu(4096, 3), "txt_ids": on_gpu(512, 3), "return_dict": False,
    }  # fmt: skip


def qwen_inputs() -> Inputs:
    return {
        "hidden_states": on_gpu(1, 4096, 64), "encoder_hidden_states": on_gpu(1, 128, 3584), "timestep": on_gpu(1),
        "img_shapes": [[(1, 64, 64)]], "return_dict": False,
    }  # fmt: skip


def wan_inputs() -> Inputs:
    return {
        "hidden_states": on_gpu(1, 16, 9, 60, 104), "encoder_hidden_states": on_gpu(1, 512, 4096),
        "timestep": on_gpu(1, dtype=torch.long), "return_dict": False,
    }  # fmt: skip


def sdxl_inputs() -> Inputs:
    added = {"text_embeds": on_gpu(2, 1280), "time_ids": on_gpu(2, 6)}
    return {
        "sample": on_gpu(2, 4, 128, 128), "timestep": on_gpu(1, dtype=torch.long),
        "encoder_hidden_states": on_gpu(2, 77, 2048), "added_cond_kwargs": added, "return_dict": False,
    }  # fmt: skip


FAMILIES = {
    each.model: each
    for each in (
        Family(
            model="flux.1-dev",
            component="transformer",
            lists=("transformer_blocks", "single_transformer_blocks"),
            size="1024×1024",
            inputs=flux_inputs,
        ),
        Family(
            model="qwen-image",
            component="transformer",
            lists=("transformer_blocks",),
            size="1024×1024",
            inputs=qwen_inputs,
        ),
        Family(
            model="wan2.2-t2v-a14b",
            component="transformer",
            lists=("blocks",),
            size="832×480×33, one expert",
            inputs=wan_inputs,
        ),
        Family(
            model="sdxl",
            component="unet",
            lists=("down_blocks", "up_blocks"),
            size="1024×1024, guidance as a batch of two",
            inputs=sdxl_inputs,
        ),
    )
}


def build(model: str) -> Denoiser:
    """The model's denoiser in bfloat16; nothing has ever written its weights."""
    import diffusers
    from accelerate import init_empty_weights

    family = FAMILIES[model]
    config = json.loads(load_published_model(model).documents[f"{family.component}/config.json"])
    with init_empty_weights():
        module = getattr(diffusers, config["_class_name"]).from_config(config)
    module = module.to(HALF).eval().requires_grad_(False)
    total = _materialise(module)
    sizes = {name: each.nbytes for name, each in module.state_dict().items()}
    stacks = streamed_stacks(sizes)
    return Denoiser(family=family, module=module, stacks=stacks, leaves=leaf_stacks(sizes, stacks), bytes=total)


def _materialise(module: torch.nn.Module) -> int:
    """Lets the weights lie one after another in memory of which every 64 MiB are the same; returns their bytes."""
    named = [
        (owner, key, each) for owner in module.modules() for key, each in owner._parameters.items() if each is not None
    ]
    room = sum(-(-each.nbytes // PAGE) * PAGE for _, _, each in named)
    memory = (ctypes.c_uint8 * room).from_address(runtime().sim_alias(room))
    region, at = torch.frombuffer(memory, dtype=torch.uint8), 0
    for owner, key, each in named:
        weight = region[at : at + each.nbytes].view(each.dtype).view(each.shape)
        owner._parameters[key] = torch.nn.Parameter(weight, requires_grad=False)
        at += -(-each.nbytes // PAGE) * PAGE
    return sum(each.nbytes for _, _, each in named)
