"""A component's module around one file's weights as they are stored, or the same module without any values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from roost.facts.weight_files import Recipe, Scale, Target, WeightFile
from roost.pipelines.formats.linears import (
    CastLinear,
    GgufLinear,
    MxFp8Linear,
    NvFp4Linear,
    PackedLinear,
    ScaledLinear,
)
from roost.pipelines.formats.reading import Reader
from roost.pipelines.formats.skeletons import ComponentConfig
from roost.pipelines.internals import of_diffusers
from roost.pipelines.internals.of_torch import buffers_of, parameters_of

_LINEARS: Mapping[str, type[PackedLinear]] = {
    "fp8": CastLinear,
    "scaled": ScaledLinear,
    "mxfp8": MxFp8Linear,
    "nvfp4": NvFp4Linear,
    "gguf": GgufLinear,
}


def build_from_file(
    component: ComponentConfig, file: WeightFile, recipe: Recipe, *, with_data: bool = True
) -> torch.nn.Module:
    """The component with the file's weights as ``recipe`` says.

    Tensors of one piece are views of the file's private mapping, which goes with the last of them. Without data the
    module has the same layers, shapes and dtypes, in memory that nobody touched. Raises InvalidFile where the file
    has changed, or a scale is no number.
    """
    skeleton = component.skeleton()
    module = skeleton.module
    tied = {name: names for names in skeleton.tied for name in names}
    source: _Source = Reader(file) if with_data else _Untouched(file)
    for target in recipe.targets:
        if target.packed:
            _pack(module, target, source, component)
        else:
            _put(module, tied[target.name], source.value(target))
    _mark(module, recipe, component)
    return module.eval().requires_grad_(False)


class _Source(Protocol):
    def packed(self, target: Target) -> torch.Tensor: ...
    def scale(self, scale: Scale) -> torch.Tensor: ...
    def value(self, target: Target) -> torch.Tensor: ...


class _Untouched:
    """Tensors of the right shapes and dtypes that take no memory until somebody writes to them."""

    def __init__(self, file: WeightFile) -> None:
        self._tensors = file.tensors

    def packed(self, target: Target) -> torch.Tensor:
        rows = sum((piece.stop - piece.start) * piece.repeat for piece in target.pieces)
        stored = self._tensors[target.pieces[0].source]
        dtype: torch.dtype = getattr(torch, target.dtype)
        return torch.empty((rows, stored.bytes // stored.shape[0] // dtype.itemsize), dtype=dtype)

    def scale(self, scale: Scale) -> torch.Tensor:
        return torch.empty(scale.shape, dtype=getattr(torch, scale.dtype))

    def value(self, target: Target) -> torch.Tensor:
        return torch.empty(target.shape, dtype=getattr(torch, target.dtype))


def _pack(module: torch.nn.Module, target: Target, source: _Source, component: ComponentConfig) -> None:
    """Puts a packed layer into the place of the plain one."""
    path = target.name.removesuffix(".weight")
    plain = module.get_submodule(path)
    packed = source.packed(target)
    scales = {scale.name: source.scale(scale) for scale in target.scales}
    made: Any
    if target.method in ("bfl_fp8r", "bfl_nvfp4"):
        made = of_diffusers.bfl_linear(plain, component.load_dtype, four_bits=target.method == "bfl_nvfp4")
        made.weight = torch.nn.Parameter(packed, requires_grad=False)
        for name, scale in scales.items():
            setattr(made, name, scale)
    elif target.method == "gguf" and component.described.library != "transformers":
        made = of_diffusers.gguf_linear(plain, component.load_dtype, packed, target.format)
    else:
        made = _own(plain, target, component.load_dtype, packed, scales)
    module.set_submodule(path, made)


def _own(
    plain: Any, target: Target, dtype: torch.dtype, packed: torch.Tensor, scales: Mapping[str, torch.Tensor]
) -> PackedLinear:
    made = _LINEARS[str(target.method)](plain, dtype, packed)
    for name, scale in scales.items():
        made.register_buffer(name, scale)
    if isinstance(made, ScaledLinear):
        made.rotation = target.rotation
    if isinstance(made, GgufLinear):
        made.kind = target.format
    return made


def _put(module: torch.nn.Module, places: Iterable[str], value: torch.Tensor) -> None:
    """Puts a plain tensor into every place where the module has it."""
    parameter = torch.nn.Parameter(value, requires_grad=False)
    for name in places:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in parameters_of(owner):
            parameters_of(owner)[leaf] = parameter
        else:
            buffers_of(owner)[leaf] = value


def _mark(module: torch.nn.Module, recipe: Recipe, component: ComponentConfig) -> None:
    """Tells diffusers which of its own quantised layers the model has."""
    methods = {target.method for target in recipe.targets if target.packed}
    if component.described.library == "transformers":
        return
    if "gguf" in methods:
        of_diffusers.mark_quantised(module, gguf=True, dtype=component.load_dtype)
    elif methods & {"bfl_fp8r", "bfl_nvfp4"}:
        of_diffusers.mark_quantised(module, gguf=False, dtype=component.load_dtype)
