"""Seeded damage to texts and documents: random enough to surprise, the same on every run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

_PIECES = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
    ),
    *(b"null", b"true", b"NaN", b".nan", b"1e999", b"-", b"0", b"0x", b"9" * 5000, b"\\ud800", b"2026-01-01"),
    *(b"&a ", b"*a", b"!!set ", b"!!python/name:os.system ", b"? ", b"- ", b"<<: ", b"|", b">", b"#", b"%", b"---\n"),
)
_VALUES: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "..", "/etc", "a/b", "\0", "\x1b[31m", "\u202e", "x" * 300, "é", "resident", "fsdp", "float32"),
    *([], [None], ["a", "b"], ["diffusers", "AutoencoderKLWan"], [["a"]], [1, 2], {}, {"a": 1}, [[[[]]]]),
)
_KEYS = ("", "x", "..", "vae_2", "\x1b[2J", "k" * 300, "_x", "a.b")


def mutate_bytes(raw: bytes, chance: Random) -> bytes:
    """One to four edits of the bytes: pieces put in, spans taken out, doubled, cut off, bits turned."""
    found = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        edit = chance.randrange(5)
        if edit == 0:
            found[at : at + chance.choice((0, 0, 3))] = chance.choice(_PIECES)
        elif edit == 1:
            del found[at : at + chance.randint(1, 40)]
        elif edit == 2:
            found[at:at] = found[at : at + chance.randint(1, 200)]
        elif edit == 3:
            del found[len(found) - at // 8 :]
        elif at < len(found):
            found[at] ^= 1 << chance.randrange(8)
    return bytes(found)


def mutate_document(document: object, chance: Random) -> object:
    """One or two edits of the values: others in their place, left out, twice, or under another name."""
    found = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2))):
        places = list(_places(found))
        if places:
            _edit(*chance.choice(places), chance)
    return found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _edit(container: Any, key: Any, chance: Random) -> None:
    value, edit = container[key], chance.randrange(6)
    if edit == 0:
        del container[key]
    elif edit == 1 and isinstance(container, dict):
        container[chance.choice(_KEYS)] = copy.deepcopy(value)
    elif edit > 2 and isinstance(value, int) and not isinstance(value, bool):
        container[key] = chance.choice((0, 1, value + 1, 2 * value, 2**31 - 1))
    elif edit > 2 and isinstance(value, str):
        container[key] = chance.choice((value + "\n", value[:-1], "\u202e" + value, value + "é"))
    else:
        container[key] = copy.deepcopy(chance.choice(_VALUES))
