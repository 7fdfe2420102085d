"""Options as keyword arguments of Python, whose types nobody has checked as the command line does."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from roost.api.requests.declared import DeclaredOption, declared_options, filled
from roost.errors import UsageError

T = TypeVar("T")

_MOST_SHOWN = 60


def options_of(options: type[T], given: Mapping[str, object], caller: str, refused: Collection[str] = ()) -> T:
    """``options`` of keyword arguments of ``caller``; None stands for an option that isn't given.

    UsageError for a name that is unknown or ``refused``, and for a value of another type than the option has.
    """
    known = {name: each for name, each in declared_options(options).items() if name not in refused}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}."
            raise UsageError(f"{caller} has no option {name!r}; {hint}")
    named = given_names(given)
    return filled(options, {name: _checked(name, given[name], known[name], caller) for name in named})


def given_names(given: Mapping[str, object]) -> list[str]:
    """The names of the arguments that are given: not None."""
    return [name for name, value in given.items() if value is not None]


def _checked(name: str, value: object, declared: DeclaredOption, caller: str) -> object:
    if declared.option.joined and isinstance(value, list | tuple | set | frozenset) and _all_texts(value):
        return ",".join(sorted(value) if isinstance(value, set | frozenset) else value)
    if not any(_IS[kind](value) for kind in declared.types):
        takes = " or ".join(_WORDS[kind] for kind in declared.types)
        raise UsageError(f"{caller}: {name} is {takes}, not {_cut(repr(value))}.")
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # numpy's whole numbers are no ints
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)  # nor are its floats of 32 bits floats
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _all_texts(value: Collection[object]) -> bool:
    return all(isinstance(each, str) for each in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_IS: Mapping[Any, Callable[[object], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: _is_whole,
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    Sequence[str]: lambda value: isinstance(value, list | tuple) and _all_texts(value),
    Mapping[str, str]: lambda value: (
        isinstance(value, Mapping)
        and _all_texts(value)
        and all(isinstance(each, str | Path) for each in value.values())
    ),
    tuple[int, int]: lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value)),
}
_WORDS: Mapping[Any, str] = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    Sequence[str]: "a list of texts",
    Mapping[str, str]: "paths by components' names",
    tuple[int, int]: "a pair of whole numbers",
}
