"""A copy of a live pipeline that a dry run may call: the same modules and settings, weights without data."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import torch
from diffusers import DiffusionPipeline

from roost.errors import DryRunError
from roost.probes.dry_run.fake_ops import CPU
from roost.probes.dry_run.step_caches import cached_forward, leave_off, take_off
from roost.probes.dry_run.world import FakeWorld

_LIBRARIES = ("torch", "diffusers", "transformers")  # whose hooks belong to the model: some collect its outputs


def stand_in(pipeline: Any, world: FakeWorld) -> Any:
    """A copy of ``pipeline`` with ``world``'s fake weights; only modules, schedulers and settings are copied.

    Caches of diffusers are left off. Raises DryRunError for what a copy would not keep to itself: an object that is no
    diffusers pipeline, and a module whose forward someone else wrapped.
    """
    kind = type(pipeline)
    if not isinstance(pipeline, DiffusionPipeline):
        raise DryRunError(f"{kind.__name__!r} can't be dry-run: it is no pipeline of diffusers.")
    memo: dict[int, Any] = {}
    for name, each in pipeline.components.items():
        if isinstance(each, torch.nn.Module):
            _check_own_forward(name, each)
            for part in each.modules():
                leave_off(part, memo)
            _replace_weights(each, world, memo)
        elif not hasattr(each, "timesteps"):  # a tokenizer: slow to copy, and not changed by its use
            memo[id(each)] = each
    copied = copy.deepcopy(pipeline, memo)
    for each in copied.components.values():
        if isinstance(each, torch.nn.Module):
            for part in each.modules():
                take_off(part)
            _leave_alone(each)
    return copied


def cached_components(pipeline: Any) -> tuple[str, ...]:
    """Names of the components whose caches a copy leaves off."""
    modules = {name: each for name, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
    return tuple(
        name for name, each in modules.items() if any(cached_forward(part) is not None for part in each.modules())
    )


def _check_own_forward(name: str, module: torch.nn.Module) -> None:
    """A wrapper around forward belongs to the original, and so do the results that it keeps."""
    wrapped = next((path for path, part in module.named_modules() if not _has_own_forward(part)), None)
    if wrapped is not None:
        where = f"{name}.{wrapped}" if wrapped else name
        raise DryRunError(f"the live pipeline can't be dry-run: something wraps the forward of {where}, like a cache.")


def _has_own_forward(part: torch.nn.Module) -> bool:
    forward = cached_forward(part) or vars(part).get("forward")
    # A cache that is taken off leaves the class's own method on the instance, and that is copied with it.
    return forward is None or forward == MethodType(type(part).forward, part)


def _replace_weights(module: torch.nn.Module, world: FakeWorld, memo: dict[int, Any]) -> None:
    """Tells deepcopy what stands for each tensor. Buffers that no file holds are plain numbers and stay real."""
    for part in module.modules():
        for weight in part.parameters(recurse=False):
            fake = world.empty(weight.shape, weight.stride(), weight.dtype)
            memo.setdefault(id(weight), torch.nn.Parameter(fake, requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if name in part._non_persistent_buffers_set:
                memo.setdefault(id(buffer), buffer.detach().to(CPU, copy=True))
            else:
                memo.setdefault(id(buffer), world.empty(buffer.shape, buffer.stride(), buffer.dtype))


def _leave_alone(module: torch.nn.Module) -> None:
    """Takes off hooks that would carry the dry run into the user's code, and brings loose tensors to the CPU."""
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if str(getattr(hook, "__module__", "")).partition(".")[0] not in _LIBRARIES:
                    del hooks[key]
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.device != CPU:
                vars(part)[name] = value.to(CPU)
