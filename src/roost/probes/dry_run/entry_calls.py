"""What is called in a dry run: the pipeline, with arguments for a workload; and each component's entry."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from roost.errors import DryRunError
from roost.facts.request import Workload
from roost.pipelines.calls import GenerationRequest, workload_arguments
from roost.pipelines.formats.packed_tensors import parts_of
from roost.pipelines.internals.of_fake_tensors import FakeTensor
from roost.pipelines.internals.of_torch import without_modes
from roost.pipelines.made_up import made_up_inputs
from roost.pipelines.signatures import BATCH, call_parameters, name_among, needed_parameters
from roost.probes.dry_run.options import DryRunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedComponent:
    """A component to intercept. Components of one ``kin`` (class, config and dtypes) share their traces."""

    name: str
    module: torch.nn.Module
    blocks: tuple[str, ...]  # names of the units that stream
    kin: object
    loaded_bytes: int  # of its weights, before any call
    leaves: bool = False  # whether some of its blocks are layers, between which their block works


def weights_bytes(module: torch.nn.Module) -> int:
    """Bytes of the module's weights in the dtypes that they have now."""
    return sum(part.nbytes for each in module.parameters() for _, part in parts_of(each))


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCall:
    """A component's method, about to be called."""

    component: TracedComponent
    method: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        return self.call(*self.args, **self.kwargs)

    def inputs(self) -> list[torch.Tensor]:
        return list(tensors_within((self.args, self.kwargs)))

    def signature(self) -> str:
        """Names, dtypes and shapes of what is given; numbers with a fraction (noise levels) only by their type."""
        names = _parameter_names(getattr(type(self.component.module), self.method))
        named = dict(zip((*names, *map(str, range(len(names), len(self.args)))), self.args, strict=False))
        return " ".join(f"{name}={_in_words(value)}" for name, value in sorted({**named, **self.kwargs}.items()))

    def values(self) -> str:
        """The values of all real tensors given."""
        with without_modes():
            return repr([each.tolist() for each in self.inputs() if not isinstance(each, FakeTensor)])


@functools.cache
def _parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in parameters if each.kind in positional)[1:]  # without self


def _in_words(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, bool | int | str | torch.dtype | None):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"({','.join(map(_in_words, value))})"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_in_words(each)}' for name, each in value.items())}}}"
    return type(value).__name__


def tensors_within(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """The tensors in containers, output classes and, one level deep, other objects (a latent distribution)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_within(list(value.values()), depth)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_within(each, depth)
    elif dataclasses.is_dataclass(value) or (depth == 0 and hasattr(value, "__dict__")):
        yield from tensors_within(list(vars(value).values()), depth + 1)


# The arguments of a pipeline's call for a workload, by the names in its signature; pictures and videos are made up.


# Where guidance needs a negative prompt to run at all; elsewhere an absent one stands for an empty one.
_GUIDANCE_BY_NEGATIVE_PROMPT = "true_cfg_scale"


def made_up_arguments(pipeline: Any, workload: Workload, options: DryRunOptions) -> dict[str, Any]:
    """What to call ``pipeline`` with. Raises DryRunError when it needs something that can't be made up."""
    parameters = call_parameters(type(pipeline))
    request = GenerationRequest(
        prompt=options.prompt,
        width=workload.width,
        height=workload.height,
        frames=workload.frames,
        steps=workload.steps,
        guidance=workload.guidance,
        guidance_argument=options.guidance_argument,
        strength=workload.strength,
    )
    wanted = workload_arguments(request, parameters)
    wanted["negative_prompt"] = _negative_prompt(workload, options)
    batch = name_among(BATCH, parameters)
    if batch is not None:
        wanted[batch] = workload.batch
    elif workload.batch > 1:
        wanted["prompt"] = [options.prompt] * workload.batch
    wanted |= made_up_inputs(type(pipeline), workload.width, workload.height, workload.frames)
    wanted["class_labels"] = [0] * workload.batch
    arguments = {name: value for name, value in wanted.items() if value is not None and name in parameters}
    arguments |= options.more
    missing = [name for name in needed_parameters(parameters) if name not in arguments]
    if missing:
        raise DryRunError(
            f"{type(pipeline).__name__} can't be dry-run: its call needs {', '.join(map(repr, missing))}, which nothing"
            " can be made up for; plan with --policy rules."
        )
    return arguments


def _negative_prompt(workload: Workload, options: DryRunOptions) -> str | None:
    needs_one = options.guidance_argument == _GUIDANCE_BY_NEGATIVE_PROMPT and (workload.guidance or 0) > 1
    return " " if options.negative_prompt is None and needs_one else options.negative_prompt
