"""Values of calls and schedulers as JSON and tensors, and back; or as JSON alone, where only a tensor's form counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import BaseOutput
from PIL import Image
from transformers.utils import ModelOutput

from roost.errors import RoostError
from roost.pipelines.internals.of_fake_tensors import FakeTensor

# What a tensor becomes in the JSON, given its name; and the other way round
TensorLeaf = Callable[[torch.Tensor, str], Any]
TensorOf = Callable[[Any], torch.Tensor]

# What else of a value can be described in place of what can't be.
Otherwise = Callable[[Any], Any]

_AS_THEY_ARE = (type(None), bool, int, str)
_OUTPUTS: Any = (BaseOutput, ModelOutput)
_PICTURES = ("L", "RGB", "RGBA")  # modes whose bytes are all of them
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter, FakeTensor)


class Unkeepable(Exception):
    """A value that can't be compared, copied or described; its text names the type."""


class Unsent:
    """In the place of a part of a result that could not be sent: whoever uses it hears that, by its type's name."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    @staticmethod
    def describe(value: Any) -> dict[str, str]:
        """What ``described`` may put in the place of ``value``."""
        return {"unsent": type(value).__name__}

    def __getattr__(self, name: str) -> Any:
        raise RoostError(f"a {self._kind} can't be sent from one worker to another, and its {name!r} is needed here.")

    def __getitem__(self, key: object) -> Any:
        return self.__getattr__(f"[{key!r}]")

    def __call__(self, *_: object, **__: object) -> Any:
        return self.__getattr__("call")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__getattr__("items"))


def described(value: Any, leaf: TensorLeaf, name: str = "value", otherwise: Otherwise | None = None) -> Any:
    """``value`` as JSON, its tensors as what ``leaf`` makes of them.

    What can't be described is described as what ``otherwise`` gives in its place. Raises Unkeepable without that.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind in (list, tuple, torch.Size):
        parts = [described(each, leaf, f"{name}.{index}", otherwise) for index, each in enumerate(value)]
        return {"list" if kind is list else "tuple": parts}
    if kind is dict and all(type(each) in (str, int) for each in value):
        return {"dict": [[each, described(one, leaf, f"{name}.{each}", otherwise)] for each, one in value.items()]}
    if isinstance(value, _OUTPUTS) or kind is DiagonalGaussianDistribution:
        fields = dict(value.items() if isinstance(value, _OUTPUTS) else vars(value))
        named = {each: described(one, leaf, f"{name}.{each}", otherwise) for each, one in fields.items()}
        return {"output": [kind.__module__, kind.__qualname__, named]}
    try:
        return _described_leaf(value, leaf, name)
    except Unkeepable:
        if otherwise is None:
            raise
        return otherwise(value)


def _described_leaf(value: Any, leaf: TensorLeaf, name: str) -> dict[str, Any]:
    kind = type(value)
    if kind is float:
        return {"float": value.hex()}
    if kind in (torch.dtype, torch.device):
        return {kind.__name__: str(value).removeprefix("torch.")}
    if kind in _PLAIN_TENSORS and value.layout == torch.strided:
        return {"tensor": leaf(value, name)}
    if kind is torch.Generator:
        return {"generator": leaf(value.get_state(), name)}
    found = _as_array(value)
    if found is None:
        raise Unkeepable(kind.__name__)
    return {found[0]: leaf(_of_array(found[1]), name)}


def _as_array(value: Any) -> tuple[str, Any] | None:
    """What a value is made of again, and the numbers in it."""
    if type(value) is numpy.ndarray:  # others, such as masked ones, are more than their numbers
        return "array", value
    if isinstance(value, numpy.generic):
        return "scalar", value
    if isinstance(value, bytes):
        return "bytes", numpy.frombuffer(value, numpy.uint8)
    if isinstance(value, Image.Image) and value.mode in _PICTURES:
        return "picture", value
    return None


def _of_array(value: Any) -> torch.Tensor:
    try:
        return torch.from_numpy(numpy.array(value))
    except (TypeError, ValueError):
        raise Unkeepable(f"numpy array of {value.dtype}") from None


def rebuilt(description: Any, tensor_of: TensorOf, generators: Iterator[torch.Generator] | None = None) -> Any:
    """The value that ``described`` gave that for; a generator is the next one of ``generators``, in the kept state.

    Raises ValueError, KeyError and the like for a description that is none.
    """
    if type(description) in _AS_THEY_ARE:
        return description
    ((kind, what),) = description.items()
    if kind in ("list", "tuple"):
        parts = [rebuilt(each, tensor_of, generators) for each in what]
        return parts if kind == "list" else tuple(parts)
    if kind == "dict":
        return {name: rebuilt(each, tensor_of, generators) for name, each in what}
    if kind == "output":
        module, name, fields = what
        return _output(module, name, {each: rebuilt(one, tensor_of, generators) for each, one in fields.items()})
    if kind == "generator":
        generator = next(generators or iter(()), None)
        if generator is None:
            raise ValueError("no generator to put a state back into")
        return generator.set_state(tensor_of(what).cpu())
    return _leaf(kind, what, tensor_of)


def _leaf(kind: str, what: Any, tensor_of: TensorOf) -> Any:
    if kind in _OF_TEXT:
        return _OF_TEXT[kind](what)
    tensor = tensor_of(what)
    return tensor if kind == "tensor" else _OF_NUMBERS[kind](tensor.cpu().numpy())


def _output(module: str, name: str, parts: Mapping[str, Any]) -> Any:
    """Of the libraries' output classes that are imported: a file never has anything imported."""
    if (module, name) == (DiagonalGaussianDistribution.__module__, DiagonalGaussianDistribution.__qualname__):
        made = DiagonalGaussianDistribution.__new__(DiagonalGaussianDistribution)
        vars(made).update(parts)
        return made
    left = list(_OUTPUTS)
    while left:
        found = left.pop()
        if (found.__module__, found.__qualname__) == (module, name):
            return found(**parts)
        left += found.__subclasses__()
    raise ValueError(f"no output class {name}")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype {name}")
    return found


_OF_TEXT: Mapping[str, Callable[[str], Any]] = {
    "float": float.fromhex,
    "dtype": _dtype,
    "device": torch.device,
    "unsent": Unsent,
}
_OF_NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "array": lambda array: array,
    "scalar": lambda array: array[()],
    "bytes": lambda array: array.tobytes(),
    "picture": Image.fromarray,
}


def generators_in(value: Any) -> Iterator[torch.Generator]:
    """The generators in a value, in the order in which ``described`` meets them."""
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from generators_in(each)


# Tensors of which only the form counts.


def form_of(tensor: torch.Tensor, _: str) -> list[Any]:
    """A tensor's dtype, shape and place."""
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), tensor.device.type == "cpu"]


def zeros_on(device: torch.device) -> TensorOf:
    """What makes zeros of a form."""

    def zeros(form: Any) -> torch.Tensor:
        dtype, shape, on_host = form
        return torch.zeros([int(each) for each in shape], dtype=_dtype(dtype), device="cpu" if on_host else device)

    return zeros


def call_form(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a call is given, its tensors by dtype and shape alone; ``call_of_form`` makes such a call up.

    Empty for a call that is given what can't be described.
    """
    try:
        return {
            "call": described([*args], _on_device, "call"),
            "named": described(dict(kwargs), _on_device, "call"),
        }
    except Unkeepable:
        return {}


def call_of_form(form: Mapping[str, Any], device: torch.device) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of that form, all tensors zeros on ``device``. Raises ValueError, KeyError and the like for no form."""
    return rebuilt(form["call"], zeros_on(device)), rebuilt(form["named"], zeros_on(device))


def _on_device(tensor: torch.Tensor, name: str) -> list[Any]:
    return [*form_of(tensor, name)[:2], False]
