"""Options as keyword arguments of Python, whose types nobody has checked as the command line does."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from numbers import Integral, Real

from roost.api.requests.options import PlanOptions
from roost.errors import UsageError

_MOST_SHOWN = 60
_LISTS = ("allow", "layerwise_offload_components")  # on the command line their values are joined by commas


def options_of(given: Mapping[str, object], caller: str, refused: Collection[str] = ()) -> PlanOptions:
    """``PlanOptions`` of keyword arguments of ``caller``; None stands for an option that isn't given.

    UsageError for a name that is unknown or ``refused``, and for a value of another type than the option has.
    """
    known = {each.name: str(each.type) for each in fields(PlanOptions) if each.name not in refused}
    checked: dict[str, object] = {}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}."
            raise UsageError(f"{caller} has no option {name!r}; {hint}")
        if value is not None:
            checked[name] = _checked(name, value, known[name], caller)
    return PlanOptions(**checked)  # type: ignore[arg-type]  # each was just compared with its field


def _checked(name: str, value: object, wanted: str, caller: str) -> object:
    if name in _LISTS and isinstance(value, list | tuple | set | frozenset) and _all_texts(value):
        return ",".join(sorted(value) if isinstance(value, set | frozenset) else value)
    kinds = [kind for kind in wanted.split(" | ") if kind != "None"]
    if not any(_IS[kind](value) for kind in kinds):
        takes = " or ".join(_WORDS[kind] for kind in kinds)
        raise UsageError(f"{caller}: {name} is {takes}, not {_cut(repr(value))}.")
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # numpy's whole numbers are no ints
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _all_texts(value: Collection[object]) -> bool:
    return all(isinstance(each, str) for each in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": _is_whole,
    "float": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "Sequence[str]": lambda value: isinstance(value, list | tuple) and _all_texts(value),
    "tuple[int, int]": lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value)),
}
_WORDS = {
    "str": "a text",
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "Sequence[str]": "a list of texts",
    "tuple[int, int]": "a pair of whole numbers",
}
