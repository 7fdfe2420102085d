"""Copies of tensors with all their values, in host memory, and back with the same bits, each lying as it lay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from roost.pipelines.described_values import Unkeepable

# Dtypes that safetensors doesn't have, or not for every version of torch: kept as their bytes.
_AS_BYTES = {
    str(each): each for each in (torch.complex128, torch.complex32, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2)
}


class KeptTensors:
    """Copies of tensors in host memory, by name. ``device`` is where those that were not in host memory go back to."""

    def __init__(self, device: torch.device, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        self.tensors = dict(tensors or {})
        self._device = device

    def put(self, tensor: torch.Tensor, name: str) -> dict[str, Any]:
        """Keeps a copy, and gives what tells how the tensor lay: kernels may round otherwise in another layout.

        Raises Unkeepable for what has no values to copy.
        """
        if tensor.is_meta or tensor.is_quantized:
            raise Unkeepable(f"tensor of {tensor.dtype} on {tensor.device}")
        copy = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        as_bytes = str(tensor.dtype) in _AS_BYTES
        self.tensors[name] = copy.reshape(-1).view(torch.uint8) if as_bytes else copy
        return {
            "name": name,
            "stride": list(tensor.stride()),
            "offset": int(tensor.storage_offset()),
            "on_host": tensor.device.type == "cpu",
            **({"bytes_of": [str(tensor.dtype), *tensor.shape]} if as_bytes else {}),
        }

    def get(self, lay: Mapping[str, Any]) -> torch.Tensor:
        """A new tensor like the one that was put."""
        values = self.tensors[lay["name"]]
        if "bytes_of" in lay:
            dtype, *shape = lay["bytes_of"]
            values = values.view(_AS_BYTES[dtype]).reshape(shape)
        stride, offset = [int(each) for each in lay["stride"]], int(lay["offset"])
        reach = sum((size - 1) * step for size, step in zip(values.shape, stride, strict=True)) if values.numel() else 0
        place = torch.empty(
            offset + reach + 1, dtype=values.dtype, device="cpu" if lay["on_host"] else self._device
        ).as_strided(values.shape, stride, offset)
        # What is expanded lies in one place.
        once = tuple(slice(0, 1) if step == 0 else slice(None) for step in stride)
        place[once].copy_(values[once])
        return place
