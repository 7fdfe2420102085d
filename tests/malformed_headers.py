"""Files that are no safetensors files, each wrong in one way, with what the refusal has to say about it."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

from directories import framed, safetensors


@dataclass(frozen=True, slots=True)
class MalformedHeader:
    name: str
    content: bytes
    reason: str  # a pattern


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
_GOOD = safetensors({"w": ("F32", (2, 2))})
_NOT_UNSIGNED = "where only unsigned integers may stand"


def _with(text: str, data_bytes: int = 4) -> bytes:
    return framed(text.encode(), bytes(data_bytes))


def _entry(field: str, value: str, data_bytes: int = 4) -> bytes:
    """One tensor ``w`` with a field's JSON text replaced."""
    fields = {key: json.dumps(each) for key, each in ENTRY.items()} | {field: value}
    return _with('{"w":{' + ",".join(f'"{key}":{each}' for key, each in fields.items()) + "}}", data_bytes)


def _canonical(*entries: tuple[str, str, str, str], data_bytes: int | None = None) -> bytes:
    """Entries in the library's own spelling, from texts of name, dtype, shape and offsets, and their data."""
    if data_bytes is None:
        data_bytes = max(int(offset) for _, _, _, offsets in entries for offset in offsets.split(","))
    spelt = (f'"{n}":{{"dtype":"{d}","shape":[{s}],"data_offsets":[{o}]}}' for n, d, s, o in entries)
    return _with("{" + ",".join(spelt) + "}", data_bytes)


_DUPLICATE = '{"w":' + json.dumps(ENTRY) + ',"w":' + json.dumps(ENTRY) + "}"
_ESCAPED_DUPLICATE = '{"w":' + json.dumps(ENTRY) + ',"\\u0077":' + json.dumps(ENTRY) + "}"
_METADATA_TWICE = '{"__metadata__":{},"__metadata__":{},"w":' + json.dumps(ENTRY) + "}"

_FILES = [
    ("empty", b"", "is empty"),
    ("seven bytes", b"\1\0\0\0\0\0\0", r"too short for a safetensors file \(7 bytes\)"),
    ("zeros", bytes(64), "begins with zeros"),
    (
        "lfs pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "Git LFS pointer.*git lfs pull",
    ),
    ("web page", b"<!DOCTYPE html><html><body>403</body></html>", "is a web page.*hf download"),
    ("web page after blanks", b"\n\n  <HTML><head></head></html>", "is a web page"),
    ("torch zip", b"PK\x03\x04\x00\x00\x08\x08" + bytes(60), "is a zip archive, as torch.save writes"),
    ("pickle", pickle.dumps({"w": [1, 2, 3]}, protocol=2) + bytes(40), "is a pickle"),
    ("newer pickle", pickle.dumps({"w": list(range(50))}, protocol=4), "is a pickle"),
    ("gguf", b"GGUF\x03\0\0\0" + bytes(60), "is a GGUF file"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(60), "is an HDF5 file"),
    ("plain text", b"Entry not found, sorry for that", "its header would be"),
    ("header over the limit", (100_000_001).to_bytes(8, "little") + b"{}", "100000001 bytes long"),
    ("header beyond the end", (5000).to_bytes(8, "little") + b"{}", "is 4.88 KiB short.*interrupted download"),
    ("data cut short", _GOOD[:-3], "is 3 B short of what its header promises"),
    ("data cut off", _GOOD[:-16], "is 16 B short of what its header promises"),
    ("data too long", _GOOD + b"\0", "is 1 B longer than what its header promises"),
]
_TEXTS = [
    ("not an object", b"[]", "doesn't begin with {"),
    ("leading blank", b' {"w":1}', "doesn't begin with {"),
    ("byte order mark", b"\xef\xbb\xbf{}", "doesn't begin with {"),
    ("utf-16", "{}".encode("utf-16"), "doesn't begin with {"),
    ("not utf-8", b'{"\xff":1}', "byte 2 is not UTF-8"),
    ("surrogate bytes", b'{"\xed\xa0\x80":1}', "byte 2 is not UTF-8"),
    ("cut json", b'{"w":', "expecting value at character 5"),
    ("more after the end", b"{}{}", "extra data"),
    ("nul padding", b"{}\0\0", "extra data"),
    ("trailing comma", b'{"w":1,}', "at character"),
    ("single quotes", b"{'w':1}", "at character"),
    ("comment", b"{}//", "extra data"),
    ("control character in a name", b'{"w\n":1}', "control character"),
    ("lone surrogate", b'{"\\ud800":1}', "half of a surrogate pair"),
    ("lone surrogate in metadata", b'{"__metadata__":{"a":"\\udfff"}}', "half of a surrogate pair"),
    ("nested too deeply", b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ("digits without end", b'{"w":' + b"9" * 5000 + b"}", "too many digits"),
    ("nan", b'{"w":NaN}', "NaN is not JSON"),
    ("infinity", b'{"w":-Infinity}', "-Infinity is not JSON"),
    ("metadata null", b'{"__metadata__":null}', "__metadata__ must be an object of strings"),
    ("metadata list", b'{"__metadata__":[]}', "__metadata__ must be an object of strings"),
    ("metadata number", b'{"__metadata__":{"a":1}}', "__metadata__ must be an object of strings"),
    ("metadata nested", b'{"__metadata__":{"a":{"b":"c"}}}', "__metadata__ must be an object of strings"),
    ("metadata key twice", b'{"__metadata__":{"a":"1","a":"2"}}', "duplicate key 'a'"),
    ("tensor as array", b'{"w":["F32",[1],[0,4]]}', "tensor 'w' must be an object"),
    ("tensor as number", b'{"w":4}', "tensor 'w' must be an object"),
    ("tensor null", b'{"w":null}', "tensor 'w' must be an object"),
    ("forged name", b'{"\\u001b[2J\\nw":1}', r"tensor '\\x1b\[2J\\nw' must be an object"),
]
_ENTRIES = [
    ("duplicate name", _with(_DUPLICATE), "duplicate key 'w'"),
    ("duplicate name by escape", _with(_ESCAPED_DUPLICATE), "duplicate key 'w'"),
    ("metadata alone", _with('{"__metadata__":{"a":"b"}', 0), "at character"),
    ("metadata and a comma", _with('{"__metadata__":{"a":"b"},}', 0), "at character"),
    ("metadata twice", _with(_METADATA_TWICE), "duplicate key '__metadata__'"),
    ("metadata as tensor", _with(json.dumps({"__metadata__": ENTRY})), "must be an object of strings"),
    ("no dtype", _with('{"w":{"shape":[1],"data_offsets":[0,4]}}'), "has no dtype"),
    ("no shape", _with('{"w":{"dtype":"F32","data_offsets":[0,4]}}'), "has no shape"),
    ("no offsets", _with('{"w":{"dtype":"F32","shape":[1]}}'), "has no data_offsets"),
    (
        "field twice",
        _with('{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}'),
        "duplicate key 'shape'",
    ),
    ("unknown field", _entry("strides", "[1]"), "unknown field 'strides'"),
    ("unknown dtype", _entry("dtype", '"F128"'), "unknown dtype 'F128'"),
    ("dtype of a later version", _entry("dtype", '"U4"'), "unknown dtype 'U4'"),
    ("dtype in lower case", _entry("dtype", '"f32"'), "unknown dtype 'f32'"),
    ("dtype object", _entry("dtype", '{"F32":null}'), "unknown dtype"),
    ("dtype null", _entry("dtype", "null"), "unknown dtype"),
    ("shape null", _entry("shape", "null"), "a shape that isn't a list"),
    ("shape a number", _entry("shape", "1"), "a shape that isn't a list"),
    ("shape an object", _entry("shape", "{}"), "a shape that isn't a list"),
    ("shape of text", _entry("shape", '["1"]'), "a shape that isn't a list"),
    ("shape of lists", _entry("shape", "[[1]]"), "a shape that isn't a list"),
    ("shape of a bool", _entry("shape", "[true]"), "a shape that isn't a list"),
    ("shape of null", _entry("shape", "[null]"), "a shape that isn't a list"),
    ("shape of a fraction", _entry("shape", "[1.0]"), _NOT_UNSIGNED),
    ("shape of an exponent", _entry("shape", "[1e0]"), _NOT_UNSIGNED),
    ("negative shape", _entry("shape", "[-1,-1]"), _NOT_UNSIGNED),
    ("negative zero", _entry("shape", "[1,-0]", 0), _NOT_UNSIGNED),
    ("leading zero", _entry("shape", "[01]"), "at character"),
    ("shape beyond 64 bits", _entry("shape", "[18446744073709551616,0]", 0), "a shape that isn't a list"),
    ("elements beyond 64 bits", _entry("shape", "[4294967296,4294967296,0]", 0), "too large for 64 bits"),
    ("three offsets", _entry("data_offsets", "[0,4,4]"), "aren't two unsigned integers"),
    ("one offset", _entry("data_offsets", "[4]"), "aren't two unsigned integers"),
    ("negative offset", _entry("data_offsets", "[-4,0]"), _NOT_UNSIGNED),
    ("negative zero offset", _entry("data_offsets", "[-0,4]"), _NOT_UNSIGNED),
    ("offsets backwards", _entry("data_offsets", "[4,0]"), "ends before it starts"),
    ("offsets beyond 64 bits", _entry("data_offsets", "[0,18446744073709551616]"), "aren't two unsigned integers"),
    ("offsets beyond the file", _canonical(("w", "U8", "4000", "0,4000"), data_bytes=4), "is 3.90 KiB short"),
    ("span too small", _entry("shape", "[2]"), "spans 4 bytes where its shape and F32 take 8"),
    ("span too large", _entry("shape", "[0]"), "spans 4 bytes where its shape and F32 take 0"),
    ("half a byte", _canonical(("w", "F4", "3", "0,2")), "doesn't fill whole bytes"),
    ("six bits", _canonical(("w", "F6_E2M3", "3", "0,3")), "doesn't fill whole bytes"),
    ("hole at the start", _canonical(("w", "U8", "4", "4,8")), "leaves a hole before byte 4"),
    ("hole between", _canonical(("w", "U8", "4", "0,4"), ("v", "U8", "4", "6,10")), "leaves a hole before byte 6"),
    ("overlap", _canonical(("w", "U8", "4", "0,4"), ("v", "U8", "4", "2,6")), "overlaps the data before byte 4"),
    ("same span twice", _canonical(("w", "U8", "4", "0,4"), ("v", "U8", "4", "0,4")), "overlaps the data before"),
    (
        "offsets moved over",
        _canonical(("w", "U8", "4", "0"), ("v", "U8", "4", "4,4,8")),
        "aren't two unsigned integers",
    ),
    ("canonical duplicate", _canonical(("w", "U8", "4", "0,4"), ("w", "U8", "4", "4,8")), "duplicate key 'w'"),
    ("canonical metadata", _canonical(("__metadata__", "U8", "4", "0,4")), "an object of strings"),
    ("canonical control", _canonical(("w\t", "U8", "4", "0,4")), "control character"),
    ("canonical blank in a shape", _canonical(("w", "U8", "4, ", "0,4")), "at character"),
    ("name without end", _canonical(("w" * 501, "U8", "4", "0,4")), "more than 500 characters"),
]

CASES = [
    *(MalformedHeader(*case) for case in _FILES),
    *(MalformedHeader(name, framed(text), reason) for name, text, reason in _TEXTS),
    *(MalformedHeader(*case) for case in _ENTRIES),
]
