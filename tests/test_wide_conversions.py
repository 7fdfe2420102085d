"""Families whose conversion is written for one width: recorded at it without data, and loaded with few blocks."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    ChromaTransformer2DModel,
    FluxTransformer2DModel,
    HunyuanVideoTransformer3DModel,
)

import original_wide_layouts
import stored_weights
from roost.errors import InvalidFile
from roost.facts.weight_files import Piece, StoredTensor, WeightFile
from roost.pipelines.formats.modules import build_from_file
from single_file_worlds import of_module, recipe_of, stored

WIDTH = 3072
_BLOCKS = {"num_layers": 2, "num_single_layers": 2}
_WIDE: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "flux": (FluxTransformer2DModel, {**_BLOCKS, "guidance_embeds": True}, original_wide_layouts.flux),
    "chroma": (ChromaTransformer2DModel, {**_BLOCKS, "approximator_layers": 2}, original_wide_layouts.flux),
    "hunyuan": (HunyuanVideoTransformer3DModel, _BLOCKS, original_wide_layouts.hunyuan),
}


def _recorded(family: str, folder: Path) -> tuple[Any, WeightFile]:
    kind, options, layout = _WIDE[family]
    with torch.device("meta"):
        module = kind(**options)
    module.save_config(folder / "transformer")
    return of_module("transformer", module, folder, "bfloat16"), header(layout(module.state_dict()))


def header(state: Mapping[str, torch.Tensor]) -> WeightFile:
    """A file of bfloat16 tensors that nobody wrote."""
    tensors, offset = {}, 8
    for name, each in state.items():
        size = math.prod(each.shape) * 2
        tensors[name] = StoredTensor(name=name, shape=tuple(each.shape), format="BF16", offset=offset, bytes=size)
        offset += size
    return WeightFile(path="wide", container="safetensors", tensors=tensors, metadata={}, sha256="", file_bytes=offset)


@pytest.mark.parametrize("family", _WIDE)
def test_every_tensor_of_a_wide_family_has_its_rows(family: str, tmp_path: Path) -> None:
    component, file = _recorded(family, tmp_path)
    recipe = recipe_of(component, file)
    assert recipe.unused == ()
    assert all(each.strided is None for each in recipe.targets)
    rows: dict[str, int] = {}
    for target in recipe.targets:
        for piece in target.pieces:
            rows[piece.source] = rows.get(piece.source, 0) + piece.stop - piece.start
    assert rows == {name: each.shape[0] for name, each in file.tensors.items()}
    by_name = {each.name: each for each in recipe.targets}
    block = "single_transformer_blocks.1."
    source = "single_blocks.1.linear1.weight"
    assert by_name[f"{block}attn.to_k.weight"].pieces == (Piece(source=source, start=WIDTH, stop=2 * WIDTH),)
    assert by_name[f"{block}proj_mlp.weight"].pieces == (Piece(source=source, start=3 * WIDTH, stop=7 * WIDTH),)
    if family != "chroma":  # whose last modulation is distilled
        last = "final_layer.adaLN_modulation.1.weight"
        halves = (Piece(source=last, start=WIDTH, stop=2 * WIDTH), Piece(source=last, start=0, stop=WIDTH))
        assert by_name["norm_out.linear.weight"].pieces == halves


@pytest.mark.parametrize("kind", [AutoencoderKLWan, AutoencoderKLQwenImage])
def test_wans_autoencoder_is_also_qwen_images(kind: Any, tmp_path: Path) -> None:
    with torch.device("meta"):
        module = kind()
    module.save_config(tmp_path / "vae")
    original = original_wide_layouts.wan_vae(module.state_dict())
    assert "decoder.upsamples.3.resample.1.weight" in original
    recipe = recipe_of(of_module("vae", module, tmp_path), header(original))
    assert recipe.unused == ()
    assert {each.name for each in recipe.targets} == set(module.state_dict())


def test_a_key_too_few_is_told_in_one_line(tmp_path: Path) -> None:
    component, file = _recorded("flux", tmp_path)
    tensors = {name: each for name, each in file.tensors.items() if name != "double_blocks.1.img_mod.lin.weight"}
    less = WeightFile(path="wide", container="safetensors", tensors=tensors, metadata={}, sha256="", file_bytes=1 << 40)
    with pytest.raises(InvalidFile, match=r"KeyError.*double_blocks\.1\.img_mod\.lin\.weight"):
        recipe_of(component, less)


@pytest.mark.slow
@pytest.mark.parametrize("family", _WIDE)
def test_one_block_of_each_kind_is_what_diffusers_loads(family: str, tmp_path: Path) -> None:
    kind, options, layout = _WIDE[family]
    torch.manual_seed(0)
    module = kind(**options | {"num_layers": 1, "num_single_layers": 1}).bfloat16()
    module.save_config(tmp_path / "transformer")
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", layout(module.state_dict()))
    component = of_module("transformer", module, tmp_path, "bfloat16")
    made = build_from_file(component, stored(path), recipe_of(component, stored(path)))
    loaded = kind.from_single_file(
        str(path), config=str(tmp_path), subfolder="transformer", torch_dtype=torch.bfloat16
    ).state_dict()
    for name, each in made.state_dict().items():
        assert torch.equal(each, loaded[name]), name
