"""JSON as the format defines it, and bounded: what Python's parser lets through beyond that is refused."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from roost.errors import InvalidFile
from roost.probes.files.safe_files import RegularFile, quoted, recognise_content, shown

MAX_CONFIG_BYTES = 32 * 1024**2

# Counts of what costs memory when parsed. A header of the longest allowed list of tensors stays below each.
_BOUNDED_FROM_BYTES = 2 * 1024**2
_MOST = {b'"': 4_000_000, b"[": 1_000_000, b"{": 1_000_000, b",": 4_000_000}

_AFTER_KEY = re.compile(r'"[ \t\n\r]*:')

_Reject = Callable[[str], NoReturn]


class _Refused(ValueError):
    """A value that is JSON for Python and not for the format."""


def read_strict_object(file: RegularFile, *, infinities: bool = False) -> tuple[dict[str, Any], bytes]:
    """The JSON object in a config or index of at most 32 MiB, and the bytes it came from.

    ``infinities`` lets ``Infinity``, ``-Infinity`` and ``NaN`` pass, which diffusers writes into schedulers' configs.
    """
    if file.bytes > MAX_CONFIG_BYTES:
        raise InvalidFile(f"{shown(file.where)} is larger than 32 MiB, too large for a config. Fetch it again.")
    raw = file.read_at(0, file.bytes)
    known = recognise_content(raw[:64])
    if known is not None:
        raise InvalidFile(f"{shown(file.where)} {known[0]}. {known[1]}")

    def reject(reason: str) -> NoReturn:
        raise InvalidFile(f"{shown(file.where)} isn't valid JSON: {reason}. {_remedy(raw)}")

    if not raw:
        reject("it is empty")
    text = decode_strict(raw, reject)
    parsed = _parse_plain(text)
    if parsed is None:
        parsed = parse_strict(text, reject, decoder=config_decoder(infinities=infinities))
    if not isinstance(parsed, dict):
        reject("it must be an object ({...})")
    return parsed, raw


def _remedy(raw: bytes) -> str:
    """What to do about a file that isn't JSON: only one that ends too early, or never was text, is worth fetching."""
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "An editor wrote it: save it as UTF-8 without a byte order mark."
    if b"\0" in raw or not raw.rstrip().endswith((b"}", b"]")):
        return "Fetch that file again."
    return "Mend it, or fetch that file again."


def decode_strict(raw: bytes, reject: _Reject) -> str:
    """Bounded UTF-8 text."""
    if len(raw) > _BOUNDED_FROM_BYTES:
        for mark, most in _MOST.items():
            if raw.count(mark) > most:
                reject(f"it holds more than {most} {mark.decode()} characters")
    if raw.startswith(codecs.BOM_UTF8):
        reject("it begins with a byte order mark")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reject(f"byte {error.start} is not UTF-8")


def parse_strict(text: str, reject: _Reject, *, decoder: json.JSONDecoder) -> Any:
    """The value in ``text``; every departure from what ``decoder`` takes goes to ``reject`` with its reason."""
    try:
        value = decoder.decode(text)
        if "\\" in text:
            # Only an escape can smuggle half a surrogate pair in; nothing can encode one.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        reject("it is nested too deeply")
    except UnicodeEncodeError:
        reject("a string holds half of a surrogate pair")
    except json.JSONDecodeError as error:
        reject(f"{_lower_first(error.msg).removesuffix(' at')} at character {error.pos}")
    except _Refused as error:
        reject(str(error))
    except ValueError:
        reject("a number has too many digits")
    return value


def count_keys(text: str) -> int:
    """How many keys stand in a JSON text, or more: strings may hold what looks like one's end."""
    keys = text.count('":')
    return keys if keys == text.count(":") else len(_AFTER_KEY.findall(text))  # a blank before it, or one in a string


def _parse_plain(text: str) -> Any | None:
    """The value in ``text``, in a third of the time, where it is certain that nothing in it is to be refused."""
    if "\\" in text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    keys = 0
    inner: list[Any] = [[value]]
    while inner:
        each = inner.pop()
        keys += len(each) if type(each) is dict else 0
        values = each.values() if type(each) is dict else each
        kinds = set(map(type, values))
        if float in kinds and not all(math.isfinite(number) for number in values if type(number) is float):
            return None
        if not kinds.isdisjoint((dict, list)):
            inner.extend(found for found in values if type(found) in (dict, list))
    return value if keys == count_keys(text) else None


def config_decoder(*, infinities: bool) -> json.JSONDecoder:
    """Of a config or index; ``infinities`` as above."""
    return _LENIENT_DECODER if infinities else _CONFIG_DECODER


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"duplicate key {quoted(key)}")
            seen.add(key)
    return found


def _refuse_number(text: str) -> NoReturn:
    raise _Refused(f"{quoted(text)} where only unsigned integers may stand")


def _refuse_constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is not JSON")


def _unsigned(text: str) -> int:
    if text.startswith("-"):
        _refuse_number(text)
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {quoted(text)} is too large")
    return value


_CONFIG_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
_LENIENT_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite)
# Of all numbers only unsigned integers.
HEADER_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_float=_refuse_number,
    parse_int=_unsigned,
)
