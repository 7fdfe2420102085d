"""Linear layers that hold their weight as a file stores it, and decode it in each forward.

The packed bytes and their scales are plain tensors of plain modules: they are copied, moved, streamed and faked like
any other. They are buffers, since a model tells its dtype by its first parameter, to which pipelines cast inputs.
``weight`` tells the shape, dtype and device that the decoded weight has, because models ask for them (T5 casts its
activations to ``wo.weight.dtype``); its values are NaN, so that nobody computes with them unnoticed.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from roost.pipelines.formats.arithmetic import decode_gguf, decode_mxfp8, decode_nvfp4, decode_scaled

PACKED = "packed"  # where it has what a plain layer has as ``weight``


class PackedLinear(torch.nn.Linear):
    """A linear layer whose ``packed`` weight a subclass decodes; ``dtype`` is the weight's when it has."""

    packed: torch.Tensor

    def __init__(self, plain: torch.nn.Linear, dtype: torch.dtype, packed: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)  # the plain layer's own would make a whole weight
        self.in_features, self.out_features, self.dtype = plain.in_features, plain.out_features, dtype
        self.register_buffer(PACKED, packed)
        self.register_parameter("bias", plain.bias)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]  # torch declares an attribute
        """Says what the decoded weight is like; ``decoded`` computes it."""
        like = torch.full((), torch.nan, dtype=self.dtype, device=self.packed.device)
        return like.expand(self.out_features, self.in_features)

    def decoded(self) -> torch.Tensor:
        """The weight's values, in a new tensor of the layer's dtype."""
        raise NotImplementedError

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.linear(input, self.decoded(), self.bias)


class CastLinear(PackedLinear):
    """Of values in 8 bits, each of which the layer's dtype has exactly."""

    def decoded(self) -> torch.Tensor:
        return self.packed.to(self.dtype)


class ScaledLinear(PackedLinear):
    """Of values in 8 bits times their scale: of the tensor, a row or a block; see ``arithmetic.decode_scaled``."""

    weight_scale: torch.Tensor
    rotation = 0

    def decoded(self) -> torch.Tensor:
        return decode_scaled(self.packed, self.weight_scale, self.rotation).to(self.dtype)


class MxFp8Linear(PackedLinear):
    """Of MXFP8 with swizzled scales; what pads the matrix to whole blocks is left out."""

    weight_scale: torch.Tensor

    def decoded(self) -> torch.Tensor:
        whole = decode_mxfp8(self.packed, self.weight_scale).to(self.dtype)
        return whole[: self.out_features, : self.in_features]


class NvFp4Linear(PackedLinear):
    """Of Comfy's NVFP4 with swizzled scales; what pads the matrix to whole blocks is left out."""

    weight_scale: torch.Tensor
    weight_scale_2: torch.Tensor

    def decoded(self) -> torch.Tensor:
        whole = decode_nvfp4(self.packed, self.weight_scale, self.weight_scale_2).to(self.dtype)
        return whole[: self.out_features, : self.in_features]


class GgufLinear(PackedLinear):
    """Of ggml's blocks, with the arithmetic of diffusers' GGUFLinear; for models that ask for their weights' dtype."""

    kind = ""

    def decoded(self) -> torch.Tensor:
        return decode_gguf(self.packed, self.kind, (self.out_features, self.in_features)).to(self.dtype)
