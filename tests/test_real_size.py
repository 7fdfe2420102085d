"""Real-size model directories agree with the published ones in bytes and names, and take almost no disk."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from real_size import StoredSize, write_model_directory

_MAX_DISK_BYTES = 2 * 10**6

Written = tuple[Path, list[StoredSize]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    done: dict[str, Written] = {}

    def of(name: str) -> Written:
        if name not in done:
            directory = tmp_path_factory.mktemp("real") / name
            done[name] = (directory, write_model_directory(name, directory))
        return done[name]

    return of


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "published_gb"),
    [
        (
            "wan2.2-t2v-a14b",
            {"text_encoder": 11.36, "transformer": 57.15, "transformer_2": 57.15, "vae": 0.5076},
        ),
        (
            "flux.1-dev",
            {"text_encoder": 0.2461, "text_encoder_2": 9.525, "transformer": 23.80, "vae": 0.1677},
        ),
        ("qwen-image", {"text_encoder": 16.58, "transformer": 40.86, "vae": 0.2538}),
        ("wan2.2-ti2v-5b", {"text_encoder": 11.36, "transformer": 20.0, "vae": 2.819}),
    ],
)
def test_files_have_the_published_sizes(
    name: str, published_gb: dict[str, float], written: Callable[[str], Written]
) -> None:
    directory, _ = written(name)
    on_disk = {
        component: sum(path.stat().st_size for path in (directory / component).glob("*.safetensors")) / 1e9
        for component in published_gb
    }
    assert on_disk == pytest.approx(published_gb, rel=0.005)


def test_both_variants_of_sdxl_lie_side_by_side(written: Callable[[str], Written]) -> None:
    directory, sizes = written("sdxl")
    assert [size.component for size in sizes if abs(size.deviation) > 0.005] == []
    names = {path.name for path in (directory / "unet").glob("*.safetensors")}
    assert names == {"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"}


def test_files_are_sparse(written: Callable[[str], Written]) -> None:
    directory, sizes = written("wan2.2-t2v-a14b")
    assert sum(size.written_bytes for size in sizes) > 126e9
    assert sum(path.stat().st_blocks * 512 for path in _files(directory)) < _MAX_DISK_BYTES


def test_the_safetensors_library_reads_a_written_file(written: Callable[[str], Written]) -> None:
    directory, _ = written("flux.1-dev")
    with safe_open(directory / "vae" / "diffusion_pytorch_model.safetensors", framework="pt") as weights:
        first = weights.get_slice("decoder.conv_in.weight")
        assert first.get_shape() == [512, 16, 3, 3]
        assert first.get_dtype() == "BF16"


def test_an_index_names_every_shard_and_the_payload(written: Callable[[str], Written]) -> None:
    folder = written("wan2.2-t2v-a14b")[0] / "transformer"
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
    ],
)
def test_tensors_have_their_published_names(
    name: str, component: str, tensor: str, written: Callable[[str], Written]
) -> None:
    index = json.loads((written(name)[0] / component / "model.safetensors.index.json").read_text())
    assert tensor in index["weight_map"]
    assert "encoder.embed_tokens.weight" not in index["weight_map"]


def test_clip_files_keep_the_prefix_that_the_module_dropped(written: Callable[[str], Written]) -> None:
    path = written("flux.1-dev")[0] / "text_encoder" / "model.safetensors"
    with safe_open(path, framework="pt") as weights:
        assert all(name.startswith("text_model.") for name in weights.keys())  # noqa: SIM118 - no mapping


def test_an_absent_component_is_listed_as_null(written: Callable[[str], Written]) -> None:
    model_index = json.loads((written("wan2.2-ti2v-5b")[0] / "model_index.json").read_text())
    assert model_index["transformer_2"] == [None, None]
    assert model_index["expand_timesteps"] is True


def _header_length(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
