"""Text from a model directory, made safe for a one-line message."""

from __future__ import annotations

_MAX_SHOWN = 100


def quoted(value: object) -> str:
    r"""A value in quotes, ASCII only and cut to a readable length; a backslash stays one backslash."""
    text = "null" if value is None else str(value)
    escaped = "".join(_visible(char) for char in text)
    return _cut(f'"{escaped}"' if "'" in text and '"' not in text else f"'{escaped}'")


def _visible(char: str) -> str:
    plain = char.isascii() and char.isprintable()
    return char if plain else char.encode("unicode_escape").decode("ascii")


def shown(name: str) -> str:
    """A file's name as it is, or quoted when it holds anything that a terminal or a log could stumble over."""
    plain = name.isascii() and name.isprintable() and name.strip() == name and "[" not in name
    return _cut(name) if name and plain else quoted(name)


def listed(names: list[str], most: int = 20) -> str:
    """Names after each other, with the count of those left out."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…{text[-_MAX_SHOWN:]}"
