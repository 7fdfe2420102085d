"""A linear layer's weight as each format of safetensors files stores it: its tensors by their names in the layer."""

import json
from collections.abc import Callable, Mapping

import torch
from diffusers.quantizers.bfl.utils import quantize_nvfp4

from roost.pipelines.formats.arithmetic import rotation_matrix
from single_file_worlds import State, scaled_fp8

FP8, FP8_WIDE = torch.float8_e4m3fn, torch.float8_e5m2
_ROTATED = 16
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])

Store = Callable[[torch.Tensor], State]


def marker(form: str, **more: object) -> torch.Tensor:
    """ComfyUI's words about one layer."""
    return torch.frombuffer(bytearray(json.dumps({"format": form, **more}).encode()), dtype=torch.uint8)


def _old(weight: torch.Tensor) -> State:
    values, scale = scaled_fp8(weight)
    return {"weight": values, "scale_weight": scale}


def _tensor(dtype: torch.dtype) -> Store:
    def store(weight: torch.Tensor) -> State:
        values, scale = scaled_fp8(weight, dtype)
        return {"weight": values, "weight_scale": scale}

    return store


def _rows(weight: torch.Tensor) -> State:
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / torch.finfo(FP8).max
    return {"weight": (weight / scale).to(FP8), "weight_scale": scale.flatten()}


def _blocks(dtype: torch.dtype) -> Store:
    """A scale for each 128 rows and columns."""

    def store(weight: torch.Tensor) -> State:
        most = 127 if dtype == torch.int8 else torch.finfo(dtype).max
        parts = [[part.abs().max().clamp(min=1e-9) / most for part in row.split(128, 1)] for row in weight.split(128)]
        scale = torch.stack([torch.stack(row) for row in parts])
        spread = scale.repeat_interleave(128, 0)[: weight.shape[0]].repeat_interleave(128, 1)[:, : weight.shape[1]]
        values = weight / spread
        return {"weight": (values.round() if dtype == torch.int8 else values).to(dtype), "weight_scale": scale}

    return store


def _int8(weight: torch.Tensor) -> State:
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-9) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


def _turned(weight: torch.Tensor) -> State:
    groups = weight.reshape(weight.shape[0], -1, _ROTATED)
    return _int8((groups @ rotation_matrix(_ROTATED, weight.device)).reshape(weight.shape))


def _mxfp8(weight: torch.Tensor) -> State:
    blocks = weight.reshape(weight.shape[0], -1, 32)
    exponents = (blocks.abs().amax(-1).clamp(min=2.0**-100) / torch.finfo(FP8).max).log2().ceil()
    values = (blocks / 2.0 ** exponents.unsqueeze(-1)).reshape(weight.shape)
    return {"weight": values.to(FP8), "weight_scale": _swizzled((exponents + 127).to(torch.uint8))}


def _nvfp4(weight: torch.Tensor) -> State:
    blocks = weight.reshape(weight.shape[0], -1, 16)
    second = weight.abs().max() / (torch.finfo(FP8).max * 6)
    scale = (blocks.abs().amax(-1) / 6 / second).clamp(min=2.0**-6).to(FP8)
    values = (blocks / (scale.float() * second).unsqueeze(-1)).reshape(weight.shape)
    codes = ((values.abs().unsqueeze(-1) - _E2M1).abs().argmin(-1) + 8 * (values < 0)).to(torch.uint8)
    packed = codes[:, 0::2] << 4 | codes[:, 1::2]
    return {"weight": packed, "weight_scale": _swizzled(scale), "weight_scale_2": second}


def _bfl_nvfp4(weight: torch.Tensor) -> State:
    values, scale, second = quantize_nvfp4(weight)
    scales = {"weight_scale": scale, "weight_scale_2": second, "input_scale": torch.tensor(0.5)}
    return {"weight": values, **scales}


def _swizzled(scale: torch.Tensor) -> torch.Tensor:
    """Scales by row and column in tiles of 128 rows and 4 columns, as the cards' kernels read them."""
    rows, columns = scale.shape
    high, wide = -(-rows // 128), -(-columns // 4)
    whole = torch.zeros(high * 128, wide * 4, dtype=torch.uint8)
    whole[:rows, :columns] = scale.view(torch.uint8)
    tiles = whole.reshape(high, 4, 32, wide, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(high * 128, wide * 4).contiguous().view(scale.dtype)


def _marked(form: str, store: Store, **more: object) -> Store:
    return lambda weight: {**store(weight), "comfy_quant": marker(form, **more)}


# By the key in ``WEIGHT_FORMATS``.
STORED_LINEARS: Mapping[str, Store] = {
    "float8-cast": lambda weight: {"weight": weight.to(FP8)},
    "comfy-fp8-scaled": _old,
    "float8_e4m3fn": _marked("float8_e4m3fn", _tensor(FP8)),
    "float8_e5m2": _marked("float8_e5m2", _tensor(FP8_WIDE)),
    "float8_e4m3fn_rowwise": _marked("float8_e4m3fn_rowwise", _rows),
    "float8_e4m3fn_blockwise": _marked("float8_e4m3fn_blockwise", _blocks(FP8)),
    "mxfp8": _marked("mxfp8", _mxfp8),
    "nvfp4": _marked("nvfp4", _nvfp4),
    "int8_tensorwise": _marked("int8_tensorwise", _int8),
    "int8_tensorwise+convrot": _marked("int8_tensorwise", _turned, convrot=True, convrot_groupsize=_ROTATED),
    "int8_blockwise": _marked("int8_blockwise", _blocks(torch.int8)),
    "bfl-fp8r": _rows,
    "bfl-nvfp4": _bfl_nvfp4,
}
