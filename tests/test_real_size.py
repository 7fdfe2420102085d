"""The directories that model-dir writes agree with the published ones in bytes and names, and take almost no disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors import safe_open

from real_models import RealModel
from roost.profiles.published import load_published_model, model_names

MAX_DISK_BYTES = 2 * 10**6
FAMILIES = Path(__file__).parents[1] / "src" / "roost" / "profiles" / "families"


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _stored_gb(name: str, component: str, variant: str | None) -> float:
    """GB of one stored set's files."""
    pattern = re.compile(rf"{component}/(diffusion_pytorch_)?model{f'.{variant}' if variant else ''}(-|\.safetensors)")
    files = load_published_model(name).weights.items()
    return sum(8 + len(file.header) + file.payload_bytes for path, file in files if pattern.match(path)) / 1e9


@pytest.mark.parametrize("name", model_names())
def test_files_have_the_published_sizes(name: str) -> None:
    family = json.loads((FAMILIES / f"{name}.json").read_text())
    published: Mapping[tuple[str, str | None], float] = {
        (component, each.get("variant")): each["published_gb"]
        for component, sets in family["weights"].items()
        for each in sets
        if "published_gb" in each
    }
    written = {(component, variant): _stored_gb(name, component, variant) for component, variant in published}
    assert published
    assert written == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(
    ("name", "file_name", "published_bytes"),
    [
        ("qwen-image", "text_encoder/model-00001-of-00004.safetensors", 4_968_243_304),
        ("qwen-image", "text_encoder/model-00002-of-00004.safetensors", 4_991_495_816),
        ("qwen-image", "text_encoder/model-00003-of-00004.safetensors", 4_932_751_040),
        ("qwen-image", "text_encoder/model-00004-of-00004.safetensors", 1_691_924_384),
        ("ltx-video", "vae/diffusion_pytorch_model.safetensors", 1_676_798_532),
        ("flux.2-dev", "transformer/diffusion_pytorch_model-00001-of-00007.safetensors", 9_935_797_200),
        ("flux.2-dev", "transformer/diffusion_pytorch_model-00007-of-00007.safetensors", 5_361_898_792),
        ("flux.2-dev", "text_encoder/model-00001-of-00010.safetensors", 4_883_550_696),
        ("flux.2-dev", "text_encoder/model-00010-of-00010.safetensors", 4_571_866_320),
    ],
)
def test_a_published_file_is_met_to_the_byte(
    name: str, file_name: str, published_bytes: int, real_model: RealModel
) -> None:
    assert (real_model(name) / file_name).stat().st_size == published_bytes


@pytest.mark.parametrize(
    ("name", "component", "shards"),
    [
        ("flux.1-kontext-dev", "transformer", 3),
        ("flux.2-klein-4b", "text_encoder", 2),
        ("ltx-video-13b", "transformer", 6),
        ("wan2.1-vace-14b", "text_encoder", 3),
        ("wan2.1-vace-14b", "transformer", 15),
        ("wan2.2-animate-14b", "transformer", 15),
    ],
)
def test_a_component_has_as_many_files_as_published(name: str, component: str, shards: int) -> None:
    files = load_published_model(name).weights
    assert sum(path.startswith(f"{component}/") for path in files) == shards


def test_an_index_has_the_published_total() -> None:
    index = load_published_model("chroma").documents["transformer/diffusion_pytorch_model.safetensors.index.json"]
    assert json.loads(index)["metadata"]["total_size"] == 17_799_966_848


def test_a_head_is_stored_where_it_is_not_tied() -> None:
    tied, untied = (
        json.loads(load_published_model(f"flux.2-klein-{size}").documents["text_encoder/model.safetensors.index.json"])
        for size in ("4b", "9b")
    )
    assert [("lm_head.weight" in index["weight_map"]) for index in (tied, untied)] == [False, True]


def test_old_files_keep_the_names_of_the_library_that_wrote_them(real_model: RealModel) -> None:
    with safe_open(real_model("sd1.5") / "vae" / "diffusion_pytorch_model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in names
    assert not any("to_out" in each for each in names)


def test_both_variants_of_sdxl_lie_side_by_side(real_model: RealModel) -> None:
    names = {path.name for path in (real_model("sdxl") / "unet").glob("*.safetensors")}
    assert names == {"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"}


def test_files_are_sparse(real_model: RealModel) -> None:
    files = _files(real_model("wan2.2-t2v-a14b"))
    assert sum(path.stat().st_size for path in files) > 126e9
    assert sum(path.stat().st_blocks * 512 for path in files) < MAX_DISK_BYTES


def test_the_safetensors_library_reads_a_written_file(real_model: RealModel) -> None:
    path = real_model("flux.1-dev") / "vae" / "diffusion_pytorch_model.safetensors"
    with safe_open(path, framework="pt") as weights:
        first = weights.get_slice("decoder.conv_in.weight")
        assert first.get_shape() == [512, 16, 3, 3]
        assert first.get_dtype() == "BF16"


def test_an_index_names_every_shard_and_the_payload(real_model: RealModel) -> None:
    folder = real_model("wan2.2-t2v-a14b") / "transformer"
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    shards = {path.name for path in folder.glob("*.safetensors")}
    assert set(index["weight_map"].values()) == shards
    assert "diffusion_pytorch_model-00012-of-00012.safetensors" in shards
    header_bytes = sum(8 + _header_length(folder / shard) for shard in shards)
    assert index["metadata"]["total_size"] == _weight_bytes(folder) - header_bytes


@pytest.mark.parametrize(
    ("name", "component", "tensor"),
    [
        ("qwen-image", "text_encoder", "model.layers.27.mlp.down_proj.weight"),
        ("qwen-image", "text_encoder", "visual.blocks.31.attn.qkv.weight"),
        ("qwen-image", "text_encoder", "lm_head.weight"),
        ("wan2.2-t2v-a14b", "text_encoder", "shared.weight"),
        ("z-image", "text_encoder", "model.layers.35.mlp.down_proj.weight"),
    ],
)
def test_tensors_have_their_published_names(name: str, component: str, tensor: str, real_model: RealModel) -> None:
    index = json.loads((real_model(name) / component / "model.safetensors.index.json").read_text())
    assert tensor in index["weight_map"]
    assert "encoder.embed_tokens.weight" not in index["weight_map"]
    assert ("lm_head.weight" in index["weight_map"]) is (name == "qwen-image")


def test_clip_files_keep_the_prefix_that_the_module_dropped(real_model: RealModel) -> None:
    path = real_model("flux.1-dev") / "text_encoder" / "model.safetensors"
    with safe_open(path, framework="pt") as weights:
        assert all(name.startswith("text_model.") for name in weights.keys())  # noqa: SIM118 - no mapping


def test_an_absent_component_is_listed_as_null(real_model: RealModel) -> None:
    model_index = json.loads((real_model("wan2.2-ti2v-5b") / "model_index.json").read_text())
    assert model_index["transformer_2"] == [None, None]
    assert model_index["expand_timesteps"] is True


def _header_length(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
