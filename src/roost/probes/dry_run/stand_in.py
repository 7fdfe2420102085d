"""What stands for the real thing: a live pipeline's copy without data, and a video that is one picture."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MethodType
from typing import Any

import numpy
import torch
from diffusers import ConfigMixin, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from roost.errors import DryRunError
from roost.pipelines.formats.packed_tensors import parts_of, why_unmeasured
from roost.pipelines.internals.of_diffusers import CACHE_CONFIG, REGISTRY, forward_before_hooks
from roost.pipelines.internals.of_torch import forward_hooks, forward_pre_hooks, unfiled_names
from roost.probes.dry_run.fake_ops import CPU
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
            _check_known_weights(name, each)
            for part in each.modules():
                leave_off(part, memo)
            _replace_weights(each, world, memo)
        elif not hasattr(each, "timesteps") and not _processes_pictures(
            each
        ):  # a tokenizer: slow to copy, stays as it is
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


def _check_known_weights(name: str, module: torch.nn.Module) -> None:
    for path, tensor in (*module.named_parameters(), *module.named_buffers()):
        why = None if tensor.is_meta else why_unmeasured(tensor)
        if why is not None:
            raise DryRunError(f"the live pipeline can't be dry-run: {name}.{path} {why}.")


def _has_own_forward(part: torch.nn.Module) -> bool:
    forward = cached_forward(part) or vars(part).get("forward")
    # A cache that is taken off leaves the class's own method on the instance, and that is copied with it.
    return forward is None or forward == MethodType(type(part).forward, part)


def _replace_weights(module: torch.nn.Module, world: FakeWorld, memo: dict[int, Any]) -> None:
    """Tells deepcopy what stands for each tensor. Buffers that no file holds are plain numbers and stay real."""
    for part in module.modules():
        for weight in part.parameters(recurse=False):
            _replace(weight, world, memo)
        for name, buffer in part.named_buffers(recurse=False):
            if name in unfiled_names(part):
                memo.setdefault(id(buffer), buffer.detach().to(CPU, copy=True))
            else:
                _replace(buffer, world, memo)


def _replace(tensor: torch.Tensor, world: FakeWorld, memo: dict[int, Any]) -> None:
    if id(tensor) not in memo:
        memo[id(tensor)] = fake = world.fake_of(tensor)
        parts = zip(parts_of(tensor), parts_of(fake), strict=True)  # a layer may keep parts of its weight, too
        memo.update((id(part), other) for (_, part), (_, other) in parts if part is not tensor)


def _leave_alone(module: torch.nn.Module) -> None:
    """Takes off hooks that would carry the dry run into the user's code, and brings loose tensors to the CPU."""
    for part in module.modules():
        for hooks in (forward_hooks(part), forward_pre_hooks(part)):
            for key, hook in list(hooks.items()):
                if str(getattr(hook, "__module__", "")).partition(".")[0] not in _LIBRARIES:
                    del hooks[key]
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.device != CPU:
                vars(part)[name] = value.to(CPU)


# A video whose frames are one and the same picture passes through diffusers' preprocessing without data.


@contextmanager
def still_videos(pipeline: Any) -> Iterator[None]:
    """While entered, ``pipeline``'s preprocessing of such a video gives zeros of its shape, which have no data.

    81 frames of 1280×720 take diffusers ten seconds and 2.6 GB otherwise. Only these processors change, which nobody
    else may have: another pipeline's, in another thread too, work as ever.
    """
    with ExitStack() as undo:
        for processor in _processors_in(pipeline):
            attributes = vars(processor)
            for name, changed in (
                ("resize", partial(_resize_once, processor.resize)),
                ("pil_to_numpy", partial(_to_numpy_once, processor.pil_to_numpy)),
                ("numpy_to_pt", partial(_to_torch_without_data, processor.numpy_to_pt)),
            ):
                attributes[name] = changed
                undo.callback(attributes.pop, name, None)
        yield


def _processors_in(owner: Any) -> list[VaeImageProcessor]:
    """The picture processors of a pipeline, and those inside such processors."""
    found: dict[int, VaeImageProcessor] = {}
    waiting = list(vars(owner).values())
    while waiting:
        each = waiting.pop()
        if isinstance(each, list | tuple | dict):
            waiting.extend(each.values() if isinstance(each, dict) else each)
        elif _processes_pictures(each) and id(each) not in found:
            waiting.extend(vars(each).values())
            if isinstance(each, VaeImageProcessor):
                found[id(each)] = each
    return list(found.values())


def _processes_pictures(value: object) -> bool:
    """Whether it is a processor of diffusers: an inpainting one is none itself, and holds two."""
    return isinstance(value, ConfigMixin) and hasattr(value, "preprocess")


def _resize_once(resize: Callable[..., Any], image: Any, height: int, width: int, *args: Any, **kwargs: Any) -> Any:
    same = isinstance(image, Image.Image) and image.size == (width, height)
    return image if same else resize(image, height, width, *args, **kwargs)


def _to_numpy_once(to_numpy: Callable[..., Any], images: Any) -> Any:
    if isinstance(images, list) and len(images) > 1 and all(each is images[0] for each in images):
        one = to_numpy(images[:1])
        return numpy.broadcast_to(one, (len(images), *one.shape[1:]))
    return to_numpy(images)


def _to_torch_without_data(to_torch: Callable[..., Any], images: Any) -> Any:
    if images.strides[0] or len(images) == 1:
        return to_torch(images)
    count, *one = images.shape
    height, width, channels = (*one, 1)[:3]
    return torch.zeros(count, channels, height, width)


# diffusers' caches over steps on a live component: a dry run leaves them off, so that every step does all its work.


# Modules of ``diffusers.hooks`` whose hooks only replace a forward, by what an earlier step left.
CACHES = frozenset(
    (
        *("faster_cache", "first_block_cache", "mag_cache", "pyramid_attention_broadcast"),
        *("sea_cache", "taylorseer_cache", "text_kv_cache"),
    )
)


class LeftOff:
    """Stands in a copy for what belongs to a cache, until ``take_off`` removes it."""


def cached_forward(part: torch.nn.Module) -> Any:
    """The forward that ``part`` had before its caches; None unless hooks are on it, all of them of such caches."""
    registry = vars(part).get(REGISTRY)
    if registry is None or not registry.hooks or not all(map(_is_cache, registry.hooks.values())):
        return None
    return forward_before_hooks(registry)


def leave_off(part: torch.nn.Module, memo: dict[int, Any]) -> None:
    """Keeps deepcopy from a cached part's hooks: their state is the original's, and may be large."""
    for value in _of_cache(part):
        memo[id(value)] = LeftOff()


def take_off(part: torch.nn.Module) -> None:
    """Gives a copied part its class's own forward again."""
    attributes = vars(part)
    for name in [name for name, value in attributes.items() if isinstance(value, LeftOff)]:
        del attributes[name]


def _of_cache(part: torch.nn.Module) -> Iterator[Any]:
    attributes = vars(part)
    if attributes.get(CACHE_CONFIG) is not None:
        yield attributes[CACHE_CONFIG]
    if cached_forward(part) is not None:
        yield attributes[REGISTRY]
        yield attributes["forward"]


def _is_cache(hook: object) -> bool:
    package, _, name = type(hook).__module__.rpartition(".")
    return package == "diffusers.hooks" and name in CACHES
