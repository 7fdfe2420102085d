"""What a tensor holds, as one hash."""

from __future__ import annotations

import hashlib

import torch


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over ``dtype|shape|`` and the tensor's contiguous bytes, such as ``torch.float32|(1, 3, 64, 64)|…``."""
    digest = hashlib.sha256(f"{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    values = tensor.detach().to("cpu").contiguous().reshape(-1)
    digest.update(values.view(torch.uint8).numpy().data)  # little-endian on every platform with PyTorch wheels
    return digest.hexdigest()
