"""The texts of many generations encoded before the first one, by the pipeline's own ``encode_prompt``."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from roost.pipelines.calls import GenerationRequest
from roost.pipelines.described_values import Unkeepable
from roost.residency.engine.eviction import Used
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.engine.stages import StageRecord
from roost.residency.hold.attach import Held
from roost.residency.run.calls import call_arguments
from roost.residency.run.generate import calling, tensor_digest
from roost.residency.run.nesting import Nesting

_MOST_BYTES = 1024**3


class _EndOfTexts(BaseException):
    """Ends a call whose texts are encoded. Not an Exception: a pipeline's own ``except`` must not take it."""


class TextsAhead:
    """Encodes texts ahead and gives their embeddings to the calls that follow; a context manager.

    The pipeline is called as ever, up to the first component that encodes no text. What ``encode_prompt`` returned is
    kept in host memory, and returned again where it is called with the same arguments: nothing about a family must be
    known, and a call that differs is encoded as if nothing were kept. Where that can't be exact, ``why_not`` says why,
    and each generation encodes its own texts.
    """

    def __init__(self, held: Held, requests: Sequence[GenerationRequest]) -> None:
        self.why_not: str | None = None
        self.seconds = 0.0
        self.stages: list[StageRecord] = []
        self._held, self._pipeline, self._requests = held, held.pipeline, requests
        self._encode: Callable[..., Any] | None = getattr(self._pipeline, "encode_prompt", None)
        self._encoded_to = 0  # how many requests' texts are, or were, kept
        self._kept: dict[str, Callable[[], Any]] = {}
        self._kept_bytes = 0
        self._collecting = False
        self._answered = 0  # calls of encode_prompt whose results are kept, so far
        self._within = Nesting()
        self._undo = ExitStack()

    def __enter__(self) -> TextsAhead:
        if callable(self._encode):
            set_attribute(self._pipeline, "encode_prompt", self._encode_or_give, self._undo)
        else:
            self.why_not = f"{type(self._pipeline).__name__} has no encode_prompt"
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
        self._undo.close()

    @property
    def complete(self) -> bool:
        """Whether every request's texts are kept, so that none is encoded any more."""
        return self.why_not is None and self._encoded_to == len(self._requests)

    def reach(self, index: int) -> None:
        """Before the request at ``index``: encodes its texts and those of as many after it as a gibibyte holds.

        The encoders leave the device then. Raises what ``generate`` raises.
        """
        if index < self._encoded_to or self.why_not is not None:
            return
        self._kept.clear()
        self._kept_bytes = 0
        began_s = time.perf_counter()
        known: set[tuple[str, ...]] = set()
        for request in self._requests[index:]:
            if request.texts not in known and self._kept_bytes >= _MOST_BYTES:
                break
            if request.texts not in known and self.why_not is None:
                self._collect(request)
            known.add(request.texts)
            self._encoded_to += 1
        if self.why_not is not None:
            self._kept.clear()
        for component in self._held.runtime.components.values():
            if component.plan.kind == "text_encoder":
                component.release()
        self.seconds += time.perf_counter() - began_s

    def _collect(self, request: GenerationRequest) -> None:
        answered = self._answered
        arguments = call_arguments(type(self._pipeline), request)
        self._collecting, self._held.runtime.gate = True, self._stop
        try:
            held = self._held
            with calling(self._pipeline, held.recorder, held.device, held.runtime.end_call, request.seed):
                self._pipeline(**arguments)
        except _EndOfTexts:
            pass
        finally:
            self._collecting, self._held.runtime.gate = False, None
        self.stages.extend(self._held.stages)
        if self._answered == answered and self.why_not is None:
            self.why_not = f"{type(self._pipeline).__name__} uses other components before it encodes the prompt"

    def _stop(self, component: Used) -> None:
        """Ends the call where it would use a component that encodes no text."""
        if component.plan.kind != "text_encoder" and not self._within:
            raise _EndOfTexts

    def _encode_or_give(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the pipeline's ``encode_prompt``."""
        assert self._encode is not None
        try:
            key = key_of(self._encode, args, kwargs)
        except (Unkeepable, TypeError) as error:
            return self._encode_unkept(f"its encode_prompt is given a {error}", args, kwargs)
        if key in self._kept:
            self._answered += 1
            return self._kept[key]()
        before = dict(vars(self._pipeline))
        result = self._encode_unkept(None, args, kwargs)
        if self._collecting and not self._within:
            self._keep(key, result, before)
        return result

    def _encode_unkept(self, why: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self._encode is not None
        if self._collecting and why is not None:
            self.why_not = why
        with self._within:
            return self._encode(*args, **kwargs)

    def _keep(self, key: str, result: Any, before: dict[str, Any]) -> None:
        after = vars(self._pipeline)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) is not after.get(name))
        if changed:
            self.why_not = f"its encode_prompt also sets {changed[0]!r} of the pipeline"
            return
        try:
            self._kept[key], size = keep(result)
        except Unkeepable as error:
            self.why_not = f"its encode_prompt returns a {error}"
            return
        self._kept_bytes += size
        self._answered += 1


# Results of a pipeline's own methods kept in host memory: what they were called with, and bit-exact copies.


_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


def key_of(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The same for calls of ``method`` with equal arguments, however they are passed. Raises Unkeepable."""
    bound = inspect.signature(method).bind(*args, **kwargs)
    bound.apply_defaults()
    return repr(comparable(bound.arguments))


def comparable(value: Any) -> object:
    """Something of plain parts, equal for values of the same bits. Raises Unkeepable."""
    if isinstance(value, _PLAIN):
        return (type(value).__name__, str(value))
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.device), tensor_digest(value))
    if isinstance(value, Image.Image):
        return ("picture", value.mode, value.size, hashlib.sha256(value.tobytes()).hexdigest())
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(comparable(each) for each in value))
    if isinstance(value, Mapping):
        return ("mapping", *((str(name), comparable(each)) for name, each in value.items()))
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
