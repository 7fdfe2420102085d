"""GGUF headers: read as the gguf package reads them, bounded; what is wrong is refused in one line."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random

import gguf as package
import numpy as np
import pytest

from directories import safetensors, write
from gguf_files import ARRAY, BOOL, F32, F64, I8, STRING, U8, U32, U64, Entry, framed, gguf, key
from malformed_gguf import MALFORMED_GGUF
from mutations import mutate_bytes
from roost.errors import InvalidFile
from roost.facts.weight_files import WeightFile
from roost.probes.files.gguf.ggml_types import GGML_TYPES
from roost.probes.files.gguf.stream import MAX_HEADER_BYTES
from roost.probes.files.weights import MAX_MARKER_BYTES, read_weight_file


def read(path: Path) -> WeightFile:
    return read_weight_file(str(path), "some/file.gguf")


@pytest.mark.parametrize("name", MALFORMED_GGUF)
def test_a_malformed_file_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    content, reason = MALFORMED_GGUF[name]
    with pytest.raises(InvalidFile, match=reason) as error:
        read(write(tmp_path / "x.gguf", content))
    message = str(error.value)
    assert message.startswith("some/file.gguf ")
    assert message.isprintable()
    assert len(message) < 500


def test_the_corpus_is_large_enough() -> None:
    assert len(MALFORMED_GGUF) >= 60


def test_block_and_bytes_of_every_type_are_the_packages() -> None:
    ours = {number: (each.name, each.block, each.block_bytes) for number, each in GGML_TYPES.items()}
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in package.GGML_QUANT_SIZES.items()}
    assert ours == theirs


def write_with_package(path: Path, alignment: int | None = None) -> Path:
    """A file of every type, with keys of every kind, as the package writes it."""
    writer = package.GGUFWriter(path, "flux")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_bool("a.bool", True)
    writer.add_float32("a.float", 0.5)
    writer.add_float64("a.double", 0.25)
    writer.add_int8("a.int8", -3)
    writer.add_uint64("a.uint64", 2**63)
    writer.add_array("tokenizer.ggml.tokens", [f"token {index}" for index in range(300)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 300)
    floats = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    integers = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
    for kind, (block, block_bytes) in package.GGML_QUANT_SIZES.items():
        plain = (floats | integers).get(kind.name)
        if plain is not None:
            writer.add_tensor(f"of {kind.name}", np.zeros((2, 3, 5), plain))
        else:
            rows = np.zeros((3, 2, 2 * block_bytes if block > 1 else 10), np.uint8)
            writer.add_tensor(f"of {kind.name}", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_a_file_of_the_package_is_read_as_the_package_reads_it(alignment: int | None, tmp_path: Path) -> None:
    path = write_with_package(tmp_path / "x.gguf", alignment)
    theirs = {
        each.name: (each.tensor_type.name, tuple(map(int, each.shape[::-1])), int(each.data_offset), int(each.n_bytes))
        for each in package.GGUFReader(path).tensors
    }
    found = read(path)
    assert {n: (each.format, each.shape, each.offset, each.bytes) for n, each in found.tensors.items()} == theirs
    assert len(theirs) == len(GGML_TYPES)
    assert found.container == "gguf"
    assert found.file_bytes == path.stat().st_size
    kept = {key: value for key, value in found.metadata.items() if key.startswith(("a.", "general.arch", "tok"))}
    assert kept == {
        **{"general.architecture": "flux", "a.bool": True, "a.float": 0.5, "a.double": 0.25, "a.int8": -3},
        "a.uint64": 2**63,
    }


def _refusal(path: Path) -> str | None:
    try:
        read(path)
    except InvalidFile as error:
        return str(error)
    return None


def _package_rejects(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package.GGUFReader(path)
    except Exception:
        return True
    return False


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))])
def test_damage_that_the_package_refuses_is_never_accepted(seed: int, tmp_path: Path) -> None:
    raw = write_with_package(tmp_path / "x.gguf").read_bytes()
    header_bytes = min(each.offset for each in read(tmp_path / "x.gguf").tensors.values())
    chance, path, refused = Random(seed), tmp_path / "y.gguf", 0
    for _ in range(120):
        header = raw[:header_bytes]  # other lengths are nearly always refused, other bytes half the time
        damaged = bytearray(header if chance.random() < 0.6 else mutate_bytes(header, chance))
        for _ in range(chance.randint(1, 2)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0xFF))
        path.write_bytes(bytes(damaged) + raw[header_bytes:])
        line = _refusal(path)
        assert line is not None or not _package_rejects(path)
        assert line is None or line.isprintable()
        refused += line is not None
    assert 20 < refused < 120


def test_shapes_have_rows_first_and_true_shapes_stand_over_flattened_ones(tmp_path: Path) -> None:
    content = gguf(
        {"a": ("Q4_0", (2, 64)), "b": ("F16", (3, 4)), "c": ("Q4_0", (9, 32))},
        {"comfy.gguf.orig_shape.c": (32, 1, 3, 3), "comfy.gguf.orig_shape.none": (1, 2), "general.alignment": 64},
        alignment=64,
    )
    found = read(write(tmp_path / "x.gguf", content))
    assert {name: (each.shape, each.bytes) for name, each in found.tensors.items()} == {
        "a": ((2, 64), 2 * 2 * 18),
        "b": ((3, 4), 24),
        "c": ((32, 1, 3, 3), 9 * 18),
    }
    assert all(each.offset % 64 == 0 for each in found.tensors.values())


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read_and_what_follows_the_data_is_left_alone(version: int, tmp_path: Path) -> None:
    content = framed([Entry("w", (4,), 0, 0)], data_bytes=16, version=version)
    assert read(write(tmp_path / "x.gguf", content + b"more")).tensors["w"].offset == len(content) - 16


def test_scalars_empty_tensors_and_five_dimensions_are_read(tmp_path: Path) -> None:
    entries = [Entry("scalar", (), 0, 0), Entry("empty", (0, 3), 0, 32), Entry("of a video", (2, 2, 1, 2, 3), 0, 32)]
    path = write(tmp_path / "x.gguf", framed(entries, data_bytes=128))
    assert [(each.shape, each.bytes) for each in read(path).tensors.values()] == [
        ((), 4),
        ((3, 0), 0),
        ((3, 2, 1, 2, 2), 96),
    ]
    assert not _package_rejects(path)


def test_arrays_are_passed_whatever_they_hold(tmp_path: Path) -> None:
    keys = [
        key("texts", ARRAY, (STRING, [b"\xff" * 10] * 70_000)),
        key("long", ARRAY, (STRING, ["x" * 600_000, ""])),
        key("floats", ARRAY, (F32, [0.5] * 200_000)),
        key("bools", ARRAY, (BOOL, [1, 0])),
        key("none", ARRAY, (U8, [])),
        key("long text", STRING, "x" * 70_000),
        key("not a number", F64, float("nan")),
        key("small", I8, -1),
        key("large", U64, 2**64 - 1),
    ]
    found = read(write(tmp_path / "x.gguf", framed([Entry("w", (4,), 0, 0)], keys, data_bytes=16)))
    assert found.metadata == {"small": -1, "large": 2**64 - 1}
    assert list(found.tensors) == ["w"]


def test_a_header_beyond_all_bounds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    head = framed([], [], version=3)[:8] + b"\0" * 8 + (1).to_bytes(8, "little")
    array = key("a", ARRAY, (U32, []))[:-8] + (90_000_000).to_bytes(8, "little")
    path = write(tmp_path / "x.gguf", head + array)
    with open(path, "r+b") as file:
        file.truncate(10 * MAX_HEADER_BYTES)
    with pytest.raises(InvalidFile, match="its header would be longer than"):
        read(path)


def test_the_hash_is_of_the_header_alone(tmp_path: Path) -> None:
    content = gguf({"w": ("F32", (2, 2))}, {"general.architecture": "wan"})
    other = gguf({"w": ("F32", (2, 2))}, {"general.architecture": "was"})
    hashes = [read(write(tmp_path / "x.gguf", each)).sha256 for each in (content, content[:-4] + b"\1\2\3\4", other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_sparse_file_of_a_hundred_gigabytes_is_read_by_its_header(tmp_path: Path) -> None:
    rows = 200_000_000
    path = write(tmp_path / "x.gguf", framed([Entry("w", (256, rows), 30, 0)]))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + 512 * rows)
    assert read(path).tensors["w"].bytes == 512 * rows


def test_safetensors_have_shapes_places_and_small_markers(tmp_path: Path) -> None:
    tensors = {
        "a.weight": ("F8_E4M3", (2, 3)),
        "scaled_fp8": ("F8_E4M3", (0,)),
        "a.comfy_quant": ("U8", (7,)),
        "b.comfy_quant": ("U8", (MAX_MARKER_BYTES + 1,)),
        "s": ("F32", ()),
    }
    content = safetensors(tensors, {"format": "pt"})
    found = read_weight_file(str(write(tmp_path / "x.safetensors", content)))
    assert {name: (each.format, each.shape) for name, each in found.tensors.items()} == tensors
    start = len(content) - (6 + 7 + MAX_MARKER_BYTES + 1 + 4)
    assert [each.offset - start for each in found.tensors.values()] == [0, 6, 6, 13, 13 + MAX_MARKER_BYTES + 1]
    assert found.small == {"scaled_fp8": b"", "a.comfy_quant": bytes(7)}
    assert (found.container, found.metadata, found.file_bytes) == ("safetensors", {"format": "pt"}, len(content))


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + bytes(90)])
def test_what_is_neither_container_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        read(write(tmp_path / "x", content))


def test_a_whole_file_that_aria2_has_not_finished_is_refused(tmp_path: Path) -> None:
    path = write_with_package(tmp_path / "model.gguf")
    read(path)
    (tmp_path / "model.gguf.aria2").touch()
    with pytest.raises(InvalidFile, match="unfinished download"):
        read(path)
