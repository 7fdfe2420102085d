"""Files that begin as GGUF and are wrong in one way each, with what the refusal has to say about it."""

from __future__ import annotations

import struct

from gguf_files import ARRAY, BOOL, F32, I32, NUMBERS, STRING, U8, U32, U64, Entry, framed, gguf, key, text

_GOOD = gguf({"w": ("F32", (2, 2)), "q": ("Q4_0", (2, 32))}, {"general.architecture": "flux"})
_W = Entry("w", (4,), NUMBERS["F32"], 0)


def _head(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def _one(dimensions: tuple[int, ...], kind: str, offset: int = 0, data_bytes: int = 64) -> bytes:
    return framed([Entry("w", dimensions, NUMBERS[kind], offset)], data_bytes=data_bytes)


def _keyed(*keys: bytes, alignment: int = 32) -> bytes:
    return framed([_W], keys, data_bytes=16, alignment=alignment)


def _aligned(value: object, kind: int = U32) -> bytes:
    return _keyed(key("general.alignment", kind, value))


_TRUE = "comfy.gguf.orig_shape.w"
_SHORT = r"short of what its header promises \(interrupted download\?\)"

# name -> (content, pattern of the refusal)
MALFORMED_GGUF: dict[str, tuple[bytes, str]] = {
    "only the magic": (b"GGUF", _SHORT),
    "cut in the counts": (_head()[:20], _SHORT),
    "version 0": (_head(0), "its version is 0, and this reads 2 and 3"),
    "version 1": (_head(1), "of version 1, which nothing reads any more"),
    "version 4": (_head(4), "its version is 4"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is a big-endian GGUF file"),
    "too many tensors": (_head(tensors=200_001), "lists 200001 tensors, more than 200000"),
    "2**63 tensors": (_head(tensors=2**63), "lists 9223372036854775808 tensors"),
    "too many keys": (_head(keys=100_001), "lists 100001 keys, more than 100000"),
    "fewer keys than counted": (_head(keys=1), _SHORT),
    "fewer tensors than counted": (_head(tensors=1), _SHORT),
    "a key without a name": (_keyed(key("", U32, 1)), "a key has a name of 0 bytes"),
    "a key with an endless name": (_head(keys=1) + struct.pack("<Q", 2**62), "a key has a name of 4611686018427387904"),
    "a key of 501 characters": (_keyed(key("k" * 501, U32, 1)), "a key has a name of more than 500 characters"),
    "a key that is no text": (_keyed(key(b"\xff\xfe", U32, 1)), "byte 0 of the name of a key is not UTF-8"),
    "a key twice": (_keyed(key("a", U32, 1), key("a", U32, 2)), "key 'a' comes twice"),
    "a key of the package": (_keyed(key("GGUF.version", U32, 1)), "key 'GGUF.version' comes twice"),
    "an unknown type": (_keyed(text("a") + struct.pack("<II", 13, 0)), "key 'a' has the unknown type 13"),
    "a truth value of 2": (_keyed(key("a", BOOL, 2)), "key 'a' is a truth value that is 2"),
    "a text that is no text": (_keyed(key("a", STRING, b"\xc3\x28")), "byte 0 of the text of key 'a' is not UTF-8"),
    "a text longer than any": (
        _head(keys=1) + text("a") + struct.pack("<IQ", STRING, 2**40),
        "key 'a' has a text of 1099511627776 bytes",
    ),
    "a text beyond the end": (_head(keys=1) + text("a") + struct.pack("<IQ", STRING, 5000) + b"x", _SHORT),
    "an array of arrays": (
        _keyed(key("a", ARRAY, (ARRAY, [(U8, [1])]))),
        "key 'a' is an array of the nested type 9",
    ),
    "an array of an unknown type": (
        _keyed(text("a") + struct.pack("<IIQ", ARRAY, 77, 0)),
        "key 'a' is an array of the unknown type 77",
    ),
    "an array without end": (
        _keyed(text("a") + struct.pack("<IIQ", ARRAY, U8, 2**63)),
        "key 'a' is an array of 9223372036854775808 entries",
    ),
    "an array beyond the end": (_head(keys=1) + text("a") + struct.pack("<IIQ", ARRAY, F32, 1000), _SHORT),
    "an array above all headers": (
        _head(keys=1) + text("a") + struct.pack("<IIQ", ARRAY, U64, 99_000_000) + bytes(5000),
        _SHORT,
    ),
    "texts beyond the end": (_head(keys=1) + text("a") + struct.pack("<IIQ", ARRAY, STRING, 1000) + text("x"), _SHORT),
    "an endless text in an array": (
        _keyed(text("a") + struct.pack("<IIQQ", ARRAY, STRING, 1, 2**62)),
        "a text would be 4611686018427387904 bytes long",
    ),
    "alignment 0": (_aligned(0), "general.alignment is 0, which is no power of two"),
    "alignment 4": (_aligned(4), "general.alignment is 4, which is no power of two from 8 on"),
    "alignment 24": (_aligned(24), "general.alignment is 24"),
    "alignment 33": (_aligned(33), "general.alignment is 33"),
    "alignment in 64 bits": (_aligned(32, U64), "general.alignment must be an unsigned 32-bit integer"),
    "alignment as a text": (_aligned("32", STRING), "general.alignment must be an unsigned 32-bit integer"),
    "alignment as an array": (_aligned((U32, [32]), ARRAY), "general.alignment must be an unsigned 32-bit integer"),
    "alignment beyond the file": (_aligned(2**30), _SHORT),
    "a tensor without a name": (framed([Entry("", (4,), 0, 0)], data_bytes=16), "a tensor has a name of 0 bytes"),
    "a tensor of 501 characters": (
        framed([Entry("w" * 501, (4,), 0, 0)], data_bytes=16),
        "a tensor has a name of more than 500 characters",
    ),
    "a tensor whose name is no text": (
        framed([Entry(b"w\xff", (4,), 0, 0)], data_bytes=16),
        "byte 1 of the name of a tensor is not UTF-8",
    ),
    "a tensor twice": (framed([_W, Entry("w", (4,), 0, 32)], data_bytes=64), "tensor 'w' comes twice"),
    "nine dimensions": (_one((1, 1, 1, 1, 1, 1, 1, 1, 4), "F32"), "tensor 'w' has 9 dimensions, more than 8"),
    "2**32 - 1 dimensions": (
        _head(tensors=1) + text("w") + struct.pack("<I", 2**32 - 1),
        "has 4294967295 dimensions",
    ),
    "a shape above 64 bits": (_one((2**62, 2**62), "F32"), "tensor 'w' has a shape too large for any file"),
    "a shape that wraps to 0": (_one((2**32, 2**32), "F32"), "tensor 'w' has a shape too large for any file"),
    "a shape hidden by a zero": (_one((2**63, 0), "F32"), "tensor 'w' has a shape too large for any file"),
    "a type that is gone": (framed([Entry("w", (32,), 4, 0)], data_bytes=64), "tensor 'w' has the unknown type 4"),
    "a type of the future": (framed([Entry("w", (32,), 999, 0)], data_bytes=64), "has the unknown type 999"),
    "rows that fill no block": (_one((33, 2), "Q8_0"), "rows that don't fill blocks of 32, as Q8_0 needs"),
    "elements in blocks across rows": (_one((128, 2), "Q4_K"), "rows that don't fill blocks of 256, as Q4_K needs"),
    "codes without a dimension": (_one((), "Q4_0"), "rows that don't fill blocks of 32"),
    "an offset off the alignment": (_one((4,), "F32", offset=4), "tensor 'w' begins at 4, no multiple of 32"),
    "an offset beyond the end": (_one((4,), "F32", offset=2**40), _SHORT),
    "an offset above 63 bits": (_one((4,), "F32", offset=2**64 - 32), _SHORT),
    "two in one place": (framed([_W, Entry("v", (4,), 0, 0)], data_bytes=64), "overlaps the data before byte 16"),
    "one within another": (
        framed([Entry("v", (64,), 0, 0), Entry("w", (4,), 0, 32)], data_bytes=256),
        "tensor 'w' overlaps the data before byte 256",
    ),
    "data cut short": (_GOOD[:-40], _SHORT),
    "data cut off": (_GOOD[: len(_GOOD) // 2], _SHORT),
    "no data at all": (framed([_W]), "is 16 B short of what its header promises"),
    "a true shape of texts": (_keyed(key(_TRUE, ARRAY, (STRING, ["4"]))), "is no shape: it must hold at most 8"),
    "a true shape of 9 numbers": (_keyed(key(_TRUE, ARRAY, (I32, [1] * 9))), "is no shape: it must hold at most 8"),
    "a negative true shape": (_keyed(key(_TRUE, ARRAY, (I32, [-2, -2]))), "is a shape with a negative number"),
    "a true shape of others": (_keyed(key(_TRUE, ARRAY, (I32, [2, 3]))), "true shape of tensor 'w' has another number"),
}
