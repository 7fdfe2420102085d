"""Links in a model directory, and models in the local Hugging Face cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from directories import BLOCK_ELEMENTS, DIT, inspect, safetensors, weights, write, write_pipeline
from roost.errors import InvalidFile
from roost.probes.model.hub import resolve_model


def _linked(root: Path, target: Path | str) -> Path:
    write_pipeline(root, {"transformer": DIT})
    (root / "transformer" / "diffusion_pytorch_model.safetensors").symlink_to(target)
    return root


def test_a_link_within_the_directory_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "blobs" / "x", safetensors(weights()))
    (component,) = inspect(_linked(tmp_path, "../blobs/x")).components
    assert component.bytes == 4 * BLOCK_ELEMENTS * 2


def test_a_link_to_anywhere_else_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "x.safetensors", safetensors(weights()))
    with pytest.raises(InvalidFile, match=r"^transformer/diffusion_.* is a link that leads outside"):
        inspect(_linked(tmp_path / "model", outside))


def test_a_folder_that_is_a_link_to_anywhere_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t" / "diffusion_pytorch_model.safetensors", safetensors(weights()))
    write(tmp_path / "model" / "model_index.json", {"_class_name": "P", "transformer": DIT})
    (tmp_path / "model" / "transformer").symlink_to(tmp_path / "t")
    with pytest.raises(InvalidFile, match="transformer is a link that leads outside"):
        inspect(tmp_path / "model")


def test_a_dangling_link_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="transformer/ has no weights to load"):
        inspect(_linked(tmp_path, "gone"))


def _cached(hub: Path) -> Path:
    """A model in a hub cache, as downloads lay it out; its snapshot."""
    repository = hub / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    write(repository / "refs" / "main", "0" * 40)
    write(repository / "blobs" / "abc", safetensors(weights()))
    return _linked(snapshot, "../../../blobs/abc")


def test_a_model_id_is_found_in_the_cache_and_its_links_lead_to_its_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _cached(tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert resolve_model("org/name") == snapshot
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert resolve_model("org/name") == snapshot
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert inspect(snapshot).components[0].tensors == 8


def test_a_directory_linked_into_the_users_hub_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cached(tmp_path / "hub")
    _linked(tmp_path / "model", tmp_path / "hub" / "models--org--name" / "blobs" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert inspect(tmp_path / "model").components[0].tensors == 8
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(InvalidFile, match="leads outside"):
        inspect(tmp_path / "model")


def test_an_existing_path_wins_over_a_model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cached(tmp_path / "hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve_model("org/name") == Path("org/name")


@pytest.mark.parametrize("revision", [None, "../..", "", "1" * 40])
def test_a_model_id_that_is_not_cached_says_where_it_was_looked_for_and_how_to_fetch_it(
    revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cached(tmp_path / "hub")
    shutil.rmtree(tmp_path / "hub" / "models--org--name" / "refs")
    if revision is not None:
        write(tmp_path / "hub" / "models--org--name" / "refs" / "main", revision)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InvalidFile, match=r"'org/name' .*hub.*hf download org/name"):
        resolve_model("org/name")


@pytest.mark.parametrize("model", ["", "nowhere", "./a/b/c", "org/name/more", "a\0b", "../x", "org/na me\n"])
def test_what_is_neither_path_nor_id_is_refused_in_one_line(model: str) -> None:
    with pytest.raises(InvalidFile, match="doesn't exist") as error:
        resolve_model(model)
    assert "\n" not in str(error.value)
