"""What a component's common memory holds, in words that another process makes the same module of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from roost.pipelines.formats.packed_tensors import dotted, parts_of
from roost.pipelines.internals.of_torch import as_engine
from roost.residency.weights.census import attribute_tensors, named_tensors
from roost.residency.weights.fp8 import store_like, stored_layers
from roost.residency.weights.host_masters import Layout, Span, views_apart
from roost.residency.weights.units import Unit

_READ_TOO = "generation_config"  # what transformers reads beside the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Where each tensor lies, by all its names, and what else a loader gave the module that its class alone hasn't.

    ``trainable`` are the parameters that ask for gradients, ``in_8_bits`` what ``stored_layers`` says. ``form`` is
    the digest of modules and of the tensors that they keep aside.
    """

    spans: Mapping[str, Span]
    trainable: frozenset[str]
    in_8_bits: Mapping[str, tuple[str, float]]
    generation: Mapping[str, Any] | None
    form: str

    @classmethod
    def of(cls, module: torch.nn.Module, starts: Mapping[Unit, int]) -> Image:
        """The image of ``module``, whose units begin at ``starts``."""
        generation = getattr(module, _READ_TOO, None)
        return cls(
            spans={name: span for unit, start in starts.items() for name, span in _spans(unit, start)},
            trainable=frozenset(name for name, each in _parameters(module) if each.requires_grad),
            in_8_bits=stored_layers(module),
            generation=None if generation is None else json.loads(generation.to_json_string(use_diff=False)),
            form=_form(module),
        )

    @classmethod
    def from_json(cls, text: str) -> Image:
        """What ``to_json`` made. Raises ValueError, KeyError or TypeError for anything else."""
        read = json.loads(text)
        return cls(
            spans={name: _span(*each) for name, each in read["spans"].items()},
            trainable=frozenset(read["trainable"]),
            in_8_bits={path: (dtype, scale) for path, (dtype, scale) in read["in_8_bits"].items()},
            generation=read["generation"],
            form=read["form"],
        )

    def to_json(self) -> str:
        return json.dumps({
            "spans": {
                name: (each.offset, each.extent_bytes, [*each.shape], each.stride, str(each.dtype).split(".")[1])
                for name, each in self.spans.items()
            },
            "trainable": sorted(self.trainable),
            "in_8_bits": self.in_8_bits,
            "generation": self.generation,
            "form": self.form,
        })  # fmt: skip

    def fill(self, shell: torch.nn.Module, memory: torch.Tensor) -> bool:
        """Gives ``shell``, built without weights, all that is in ``memory``; False where it isn't the same module."""
        try:
            store_like(shell, self.in_8_bits)
        except AttributeError:
            return False
        parts = dict(_parts(shell))
        if parts.keys() != self.spans.keys() or not all(_alike(parts[name], each) for name, each in self.spans.items()):
            return False
        self._bind(parts, memory)
        for name, each in _parameters(shell):
            each.requires_grad_(name in self.trainable)
        if self.generation is not None:
            vars(shell)[_READ_TOO] = type(getattr(shell, _READ_TOO)).from_dict(dict(self.generation))
        return _form(shell) == self.form

    def replace_in(self, module: torch.nn.Module, memory: torch.Tensor) -> None:
        """Makes a loaded module read ``memory`` wherever that has the very bytes of its own."""
        same = {name: part for name, part in _parts(module) if name in self.spans and self._shows(name, part, memory)}
        self._bind(same, memory)

    def _shows(self, name: str, part: torch.Tensor, memory: torch.Tensor) -> bool:
        span = self.spans[name]
        if not _alike(part, span) or part.stride() != span.stride:
            return False
        flat = part.detach().as_strided((span.extent_bytes // span.dtype.itemsize,), (1,)).view(torch.uint8)
        return torch.equal(flat, memory[span.offset : span.offset + span.extent_bytes])

    def _bind(self, parts: Mapping[str, torch.Tensor], memory: torch.Tensor) -> None:
        views = views_apart(Layout(tuple(self.spans[name] for name in parts), memory.nbytes), memory)
        with as_engine(), torch.no_grad():
            for part, view in zip(parts.values(), views, strict=True):
                part.data = view


def _spans(unit: Unit, start: int) -> Iterator[tuple[str, Span]]:
    for entry, span in zip(unit.entries, unit.layout.spans, strict=True):
        for name in entry.names:
            yield name, replace(span, offset=start + span.offset)


def _span(offset: int, extent_bytes: int, shape: list[int], stride: list[int], dtype: str) -> Span:
    return Span(
        offset=offset,
        extent_bytes=extent_bytes,
        shape=torch.Size(shape),
        stride=tuple(stride),
        dtype=getattr(torch, dtype),
    )


def _parts(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in named_tensors(module):
        for suffix, part in parts_of(tensor):
            yield dotted(name, suffix), part


def _parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return module.named_parameters(remove_duplicate=False)


def _alike(part: torch.Tensor, span: Span) -> bool:
    return (part.shape, part.dtype) == (span.shape, span.dtype)


def _form(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for path, part in module.named_modules():
        kind = type(part)
        digest.update(f"{path} {kind.__module__}.{kind.__qualname__}\n".encode())
        for attribute, tensor in attribute_tensors(part):
            digest.update(f"{attribute} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            for _, each in () if tensor.is_meta else parts_of(tensor):
                digest.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update("\n".join(f"{name} {type(each)}" for name, each in named_tensors(module)).encode())
    return digest.hexdigest()
