"""Headers: what safetensors would load is read right, everything else is refused with its reason in one line."""

from __future__ import annotations

import json
import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from safetensors import SafetensorError, safe_open

from directories import framed, safetensors, write
from malformed_headers import CASES, ENTRY, MalformedHeader
from roost.errors import InvalidFile
from roost.probes.files import headers
from roost.probes.files.canonical_header import read_canonical
from roost.probes.files.header_entries import DTYPE_BITS, Entries, check_entries
from roost.probes.files.headers import read_header
from roost.probes.files.plain_header import read_plain
from roost.probes.files.safe_files import open_regular
from roost.probes.files.strict_json import HEADER_DECODER, parse_strict, read_strict_object


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_header_is_refused_with_its_reason(case: MalformedHeader, tmp_path: Path) -> None:
    path = write(tmp_path / "shard.safetensors", case.content)
    with pytest.raises(InvalidFile, match=case.reason) as error:
        read_header(str(path), "transformer/shard.safetensors")
    message = str(error.value)
    assert message.startswith("transformer/shard.safetensors ")
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({case.content for case in CASES}) == len(CASES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shard.safetensors")
    with pytest.raises(InvalidFile, match="is a FIFO, not a regular file"):
        read_header(str(tmp_path / "shard.safetensors"))


@pytest.mark.parametrize(("path", "reason"), [("/dev/zero", "is a device"), ("", "is a directory")])
def test_what_is_no_regular_file_is_refused(path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=reason):
        read_header(path or str(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="can't be opened: No such file"):
        read_header(str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("dtype", DTYPE_BITS)
@pytest.mark.parametrize("spaces", [False, True], ids=["canonical", "spread"])
def test_every_dtype_is_read_as_the_library_reads_it(dtype: str, spaces: bool, tmp_path: Path) -> None:
    size = 8 * DTYPE_BITS[dtype] // 8
    entry = {"shape": [2, 4], "data_offsets": [0, size], "dtype": dtype}
    canonical = {key: entry[key] for key in ("dtype", "shape", "data_offsets")}
    text = json.dumps({"w": entry}, indent=1) if spaces else json.dumps({"w": canonical}, separators=(",", ":"))
    path = write(tmp_path / "x.safetensors", framed(text.encode(), bytes(size)))
    with safe_open(path, framework="np") as file:
        assert file.get_slice("w").get_dtype() == dtype
    assert read_header(str(path)).sizes == {dtype: {"w": size}}


def test_what_a_header_says_is_reported(tmp_path: Path) -> None:
    content = safetensors({"a.b": ("F32", (2, 3)), "c": ("BF16", ()), "d": ("F32", (1,))}, {"format": "pt"})
    header = read_header(str(write(tmp_path / "x.safetensors", content)))
    assert header.sizes == {"F32": {"a.b": 24, "d": 4}, "BF16": {"c": 2}}
    assert header.metadata == {"format": "pt"}
    assert header.payload_bytes == 30
    assert header.file_bytes == len(content)
    assert re.fullmatch("[0-9a-f]{64}", header.sha256)


SECOND = ENTRY | {"data_offsets": [4, 8]}


@pytest.mark.parametrize(
    ("text", "data_bytes"),
    [
        ("{}", 0),
        ("{}   ", 0),
        ('{"__metadata__":{}}', 0),
        ('{"__metadata__":{"a":"\\u00e9\\""}}', 0),
        ('{"w":{"dtype":"U8","shape":[0,7],"data_offsets":[0,0]}}', 0),
        (json.dumps({"b": SECOND, "a": ENTRY}), 8),
        (json.dumps({"ä·b": ENTRY}, ensure_ascii=False), 4),
        (json.dumps({"ä": ENTRY}), 4),
        (json.dumps({"data_offsets": ENTRY, "x-1": SECOND}, indent=2), 8),
        (json.dumps({"true[{": ENTRY, "__metadata__": {"last": "-0"}}), 4),
    ],
)
def test_unusual_headers_that_the_library_loads_are_accepted(text: str, data_bytes: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", framed(text.encode(), bytes(data_bytes)))
    with safe_open(path, framework="np") as file:
        names = set(file.keys())
    assert {name for sizes in read_header(str(path)).sizes.values() for name in sizes} == names


def test_files_are_read_where_the_system_has_no_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from roost.probes.files import safe_files

    monkeypatch.setattr(safe_files, "_pread", safe_files._seek_and_read)
    path = write(tmp_path / "x.safetensors", safetensors({"a": ("F32", (2, 3))}))
    assert read_header(str(path)).payload_bytes == 24


def test_too_many_tensors_are_refused_before_they_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*args: object, **options: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(headers, "read_canonical", parse)
    monkeypatch.setattr(headers, "parse_strict", parse)
    entry = '"%d":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'
    text = "{" + "".join(entry % index for index in range(headers.MAX_TENSORS + 1))[:-1] + "}"
    path = write(tmp_path / "x.safetensors", framed(text.encode(), b"\0"))
    with pytest.raises(InvalidFile, match="lists more than 200000 tensors"):
        read_header(str(path))


@pytest.mark.parametrize("mark", ["[", "{", ",", '"'])
def test_a_header_that_would_fill_the_memory_is_refused_before_it_is_parsed(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "read_canonical", lambda text: pytest.fail("parsed"))
    path = write(tmp_path / "x.safetensors", framed(b'{"a":' + mark.encode() * 4_100_000))
    with pytest.raises(InvalidFile, match="it holds more than"):
        read_header(str(path))


def test_the_pattern_and_the_exact_parse_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {f"blocks.{i}.w": (("BF16", "F32", "I64")[i % 3], (i + 1, 2)) for i in range(50)}
    path = str(write(tmp_path / "x.safetensors", safetensors(tensors, {"format": "pt"})))
    fast = read_header(path)
    assert read_canonical(Path(path).read_bytes()[8:].decode().rstrip("\0")) is not None
    monkeypatch.setattr(headers, "read_canonical", lambda text: None)
    assert read_header(path) == fast


def _accepted_by_the_library(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError):
        return False
    return True


def _accepted_by_us(path: Path) -> bool:
    try:
        read_header(str(path))
    except InvalidFile:
        return False
    return True


_PIECES = [
    b"-", b"0", b"-0", b"1", b"1.0", b"1e2", b"true", b"null", b"NaN", b'"', b"\\", b"\\ud800", b"[", b"]", b"{", b"}",
    b",", b":", b" ", b"\t", b"\n", b"\0", b"\xff", b"\xc3\xa9", b'"w":1,', b'"dtype"', b"F32", b"F16", b"F4", b"U4",
    b"99999999999999999999", b"[[0]]", b"__metadata__", b'"shape":[],', b"data_offsets",
]  # fmt: skip


def _mutate(content: bytes, chance: random.Random) -> bytes:
    """One to three edits of the header; half the time its length is mended, so that deeper checks are reached."""
    header = bytearray(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    data = content[8 + len(header) :]
    edits: list[Callable[[int], None]] = [
        lambda at: header.__setitem__(slice(at, at), chance.choice(_PIECES)),
        lambda at: header.__setitem__(slice(at, at + chance.randint(1, 6)), chance.choice(_PIECES)),
        lambda at: header.__setitem__(slice(at, at + chance.randint(1, 3)), b""),
        lambda at: header.__setitem__(slice(at, at + 1), bytes([chance.randint(48, 57)])),
        lambda at: header.__setitem__(slice(at, at), bytes(header[at : at + chance.randint(1, 60)])),
    ]
    for _ in range(chance.randint(1, 3)):
        chance.choice(edits)(chance.randrange(len(header) or 1))
    length = len(header) if chance.random() < 0.9 else chance.randint(0, 2 * len(header))
    data = data if chance.random() < 0.8 else data[: chance.randint(0, len(data))]
    return length.to_bytes(8, "little") + bytes(header) + data


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2, 3))])
def test_nothing_is_accepted_that_the_library_rejects(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    originals = [
        safetensors({}, {"format": "pt"}),
        safetensors({"w": ("F32", (2, 2)), "v": ("F32", (1,))}, {"format": "pt"}),
        safetensors({"a.0.w": ("BF16", (3, 1)), "a.1.w": ("F4", (2, 2)), "b": ("U8", (0,))}),
        framed(json.dumps({"x": ENTRY, "y": ENTRY | {"data_offsets": [4, 8]}}).encode(), bytes(8)),
    ]
    path = tmp_path / "x.safetensors"
    verdicts = {True: 0, False: 0}
    for _ in range(3000):
        path.write_bytes(_mutate(chance.choice(originals), chance))
        ours = _accepted_by_us(path)
        verdicts[ours] += 1
        assert not ours or _accepted_by_the_library(path), path.read_bytes()
    assert verdicts[True] > 15, "too few mutations stay right for the comparison to mean anything"
    assert verdicts[False] > 2000


_TENSORS = {"a-0.w": ("BF16", [3, 1], [0, 6]), "b,-1": ("U8", [0], [6, 6]), 'c":': ("F32", [], [6, 10])}
_SPELLINGS = [
    {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets} for name, (dtype, shape, offsets) in chosen}
    for chosen in (list(_TENSORS.items()), list(_TENSORS.items())[::-1], list(_TENSORS.items())[:1])
]


@pytest.mark.parametrize("seed", range(2))
def test_what_the_quick_readers_read_is_what_the_exact_one_reads(seed: int) -> None:
    """Of the same mutations: nothing is let through, and nothing is read otherwise."""

    def reject(reason: str) -> NoReturn:
        raise InvalidFile(reason)

    def exact(text: str) -> Entries | None:
        try:
            return check_entries(parse_strict(text, reject, decoder=HEADER_DECODER), reject)
        except InvalidFile:
            return None

    chance = random.Random(seed)
    texts = [json.dumps(each, indent=indent) for each in _SPELLINGS for indent in (None, 1)]
    texts += [json.dumps({"__metadata__": {"format": "pt", ":": ":"}, **each}) for each in _SPELLINGS]
    texts += [text.replace("w", "\\u0077").replace(",", " ,") for text in texts]
    agreed = dict.fromkeys((read_canonical, read_plain), 0)
    for number in range(4000):
        text = chance.choice(texts)
        if number % 4:
            raw = _mutate(framed(text.encode(), b""), chance)[8:]
            text = raw.decode("utf-8", "replace")
        for reader in agreed:
            found = reader(text)
            assert found is None or found == exact(text), text
            agreed[reader] += found is not None
    assert min(agreed.values()) > 50


@pytest.mark.parametrize(
    "inner",
    [
        '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"a":{"dtype":"U8","shape":[1],"data_offsets":[-0,1]}',
        '"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}',
        '"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}',
        '"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"__metadata__":{"a":"1","a":"2"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"__metadata__":{"a" :"1","a" :":"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}',
        '"a":{"dtype":"U8","shape":[18446744073709551616,0],"data_offsets":[0,0]}',
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_no_quick_reader_overlooks_what_is_to_be_refused(inner: str, turned: bool, tmp_path: Path) -> None:
    if turned:  # keys in an order that only the second reader reads
        inner = inner.replace('"dtype":"U8",', "", 1).replace('"data_offsets"', '"dtype":"U8","data_offsets"', 1)
    text = f"{{{inner}}}"
    assert read_canonical(text) is None
    assert read_plain(text) is None


def test_a_config_is_read_alike_quickly_and_exactly(tmp_path: Path) -> None:
    for text in ('{"a": 1, "a": 1}', '{"b": [{"a": ":", "a" : 1}]}', '{"a": 1e999}', '{"a": NaN}', '{"a": "\\ud800"}'):
        path = write(tmp_path / "config.json", text.encode())
        with pytest.raises(InvalidFile), open_regular(str(path), "config.json") as file:
            read_strict_object(file)
