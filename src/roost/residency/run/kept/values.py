"""Copies of tensors with all their values, in host memory, and back with the same bits, each lying as it lay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class KeptTensors:
    """Copies of tensors in host memory, by name. ``device`` is where those that were not in host memory go back to."""

    def __init__(self, device: torch.device, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        self.tensors = dict(tensors or {})
        self._device = device

    def put(self, tensor: torch.Tensor, name: str) -> dict[str, Any]:
        """Keeps a copy, and gives what tells how the tensor lay: kernels may round otherwise in another layout."""
        self.tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        return {
            "name": name,
            "stride": list(tensor.stride()),
            "offset": int(tensor.storage_offset()),
            "on_host": tensor.device.type == "cpu",
        }

    def get(self, lay: Mapping[str, Any]) -> torch.Tensor:
        """A new tensor like the one that was put."""
        values = self.tensors[lay["name"]]
        stride, offset = [int(each) for each in lay["stride"]], int(lay["offset"])
        reach = sum((size - 1) * step for size, step in zip(values.shape, stride, strict=True)) if values.numel() else 0
        place = torch.empty(
            offset + reach + 1, dtype=values.dtype, device="cpu" if lay["on_host"] else self._device
        ).as_strided(values.shape, stride, offset)
        # What is expanded lies in one place.
        once = tuple(slice(0, 1) if step == 0 else slice(None) for step in stride)
        place[once].copy_(values[once])
        return place
