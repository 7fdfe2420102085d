"""What a declared option is: a field of a dataclass, and beside its type how it is typed and what it is for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from roost.option_spelling import option

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """Beside a field's type in ``Annotated``: the field's option on the command line, and its help.

    ``flags`` are as Typer takes them, with spaces between: ``-o --output``, ``--fsdp/--no-fsdp``. Values of a
    ``joined`` option stand with commas between; in Python they may be a list. A ``hidden`` one is another spelling,
    which the help leaves out.
    """

    flags: str
    help: str
    _: KW_ONLY
    metavar: str | None = None
    joined: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredOption:
    """An option with its field's types: all that Python may give for it, None left out."""

    option: Option
    types: tuple[Any, ...]
    default: Any


def declared_options(options: type) -> Mapping[str, DeclaredOption]:
    """The options of a dataclass by the names of their fields, in the fields' order."""
    hints, found = get_type_hints(options, include_extras=True), {}
    for each in fields(options):
        hint = hints[each.name]
        declared = next((beside for beside in get_args(hint)[1:] if isinstance(beside, Option)), None)
        if get_origin(hint) is Annotated and declared is not None:
            types = _members(get_args(hint)[0])
            found[each.name] = DeclaredOption(option=declared, types=types, default=each.default)
    return found


def _members(hint: Any) -> tuple[Any, ...]:
    members = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return tuple(each for each in members if each is not type(None))


def filled(options: type[T], values: Mapping[str, object]) -> T:
    """``options`` with those of the values that it declares; the others have their defaults."""
    return options(**{name: values[name] for name in declared_options(options) if name in values})


def typed_options(options: object, typed: Collection[str]) -> list[str]:
    """Those options that are among the ``typed``, spelled for whoever typed them."""
    names = [name for name in declared_options(type(options)) if name in typed]
    return [option(name, False if getattr(options, name) is False else None) for name in names]
