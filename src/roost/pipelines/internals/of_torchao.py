"""What Roost uses of torchao that is private to it: how it makes weights of the tensors that a file has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from roost.pipelines.internals.of_torch import parameters_of

_NAMES, _PARTS = "tensor_names", "_tensor_data_names"
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}


def put_untouched(module: torch.nn.Module, files: Iterable[Path]) -> None:
    """Gives a plain ``module`` the quantised weights of safetensors files, in memory that nobody touched.

    A weight's parts may lie in two files. diffusers makes weights by the same function, which torchao has among its
    prototypes: only so is known what class each becomes, and of which shape.
    """
    parts: dict[str, torch.Tensor] = {}
    said: dict[str, str] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            said |= file.metadata() or {}
            parts |= {name: _untouched(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  # no mapping
    for name in json.loads(said.get(_NAMES, "[]")):
        of = json.loads(said[name]).get(_PARTS)
        if of is None:
            continue
        path, _, leaf = name.rpartition(".")
        weight = _weight(name, {key: parts[key] for key in (f"{path}._{leaf}_{each}" for each in of)}, said[name])
        parameters_of(module.get_submodule(path))[leaf] = torch.nn.Parameter(weight, requires_grad=False)


def _weight(name: str, parts: dict[str, torch.Tensor], said: str) -> torch.Tensor:
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict  # slow, and optional

    made, _ = unflatten_tensor_state_dict(parts, {_NAMES: json.dumps([name]), name: said})
    weight: torch.Tensor = made[name]
    return weight


def _untouched(stored: Any) -> torch.Tensor:
    return torch.empty(stored.get_shape(), dtype=_DTYPES[stored.get_dtype()])
