"""Results of a pipeline's own methods kept in host memory: what they were called with, and bit-exact copies."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from roost.residency.digests import tensor_digest

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Unkeepable(Exception):
    """A value that can't be compared or copied; its text names the type."""


def key_of(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The same for calls of ``method`` with equal arguments, however they are passed. Raises Unkeepable."""
    bound = inspect.signature(method).bind(*args, **kwargs)
    bound.apply_defaults()
    return repr(_described(bound.arguments))


def _described(value: Any) -> object:
    if isinstance(value, _PLAIN):
        return (type(value).__name__, str(value))
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.device), tensor_digest(value))
    if isinstance(value, Image.Image):
        return ("picture", value.mode, value.size, hashlib.sha256(value.tobytes()).hexdigest())
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_described(each) for each in value))
    if isinstance(value, Mapping):
        return ("mapping", *((str(name), _described(each)) for name, each in value.items()))
    raise Unkeepable(type(value).__name__)


def keep(value: Any) -> tuple[Callable[[], Any], int]:
    """What makes a fresh copy of ``value``, and the bytes of host memory it takes. Raises Unkeepable.

    Takes tensors, plain values, and lists, tuples and dicts of them.
    """
    if isinstance(value, _PLAIN):
        return (lambda: value), 0
    if isinstance(value, torch.Tensor):
        kept = _KeptTensor.of(value)
        return kept.copy, kept.storage.nbytes
    if type(value) in (list, tuple):
        parts = [keep(each) for each in value]
        return (lambda: type(value)(copy() for copy, _ in parts)), sum(size for _, size in parts)
    if type(value) is dict:
        named = {name: keep(each) for name, each in value.items()}
        return (lambda: {name: copy() for name, (copy, _) in named.items()}), sum(size for _, size in named.values())
    raise Unkeepable(type(value).__name__)


@dataclass(frozen=True, slots=True)
class _KeptTensor:
    """A tensor with its whole storage: a view's copy must lie as the view lay, or kernels may round otherwise."""

    storage: torch.Tensor
    device: torch.device
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _KeptTensor:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            raise Unkeepable(type(tensor).__name__)
        plain = tensor.detach()
        everything = torch.empty(0, dtype=torch.uint8, device=plain.device).set_(plain.untyped_storage())
        return cls(
            everything.to("cpu", copy=True),
            plain.device,
            plain.dtype,
            int(plain.storage_offset()),
            tuple(plain.shape),
            plain.stride(),
        )

    def copy(self) -> torch.Tensor:
        storage = self.storage.to(self.device, copy=True).untyped_storage()
        return torch.empty(0, dtype=self.dtype, device=self.device).set_(storage, self.offset, self.size, self.stride)
