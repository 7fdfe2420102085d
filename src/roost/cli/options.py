"""Commands with options: a dataclass says what a command takes, and the command is given one of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import typer

from roost.api.requests.declared import DeclaredOption, declared_options, filled

T = TypeVar("T")
C = TypeVar("C", bound="Command")

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model directory, a hub id in the local cache, or a name (roost models)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a command takes, and was given: fields are options, arguments, or sets of options (``option_sets``).

    ``typed`` are the names of those that stood on the command line.
    """

    typed: frozenset[str] = frozenset()

    def filled(self, options: type[T]) -> T:
        """Options of that class, from all that the command takes."""
        return filled(options, _values(self))


def _values(given: object) -> Mapping[str, object]:
    """Fields and those of sets, by name."""
    found: dict[str, object] = {}
    for each in fields(given):  # type: ignore[arg-type]
        value = getattr(given, each.name)
        found.update(_values(value) if is_dataclass(value) else {each.name: value})
    return found


def takes_options(command: Callable[[C], None]) -> Callable[..., None]:
    """The function that Typer builds a command from, for one that is ``given`` a ``Command``."""
    given: type[C] = get_type_hints(command)["given"]

    @wraps(command)
    def called(context: typer.Context, **values: Any) -> None:
        typed = frozenset(name for name in values if _was_typed(context, name))
        command(_made(given, values, typed=typed))

    where = Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    vars(called)["__signature__"] = Signature([where, *_parameters(given)])
    return called


def _was_typed(context: typer.Context, name: str) -> bool:
    """By the framework's word for it, never by comparing values with defaults."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameters(given: type) -> Iterator[Parameter]:
    hints = get_type_hints(given, include_extras=True)
    for each in fields(given):
        hint, default = hints[each.name], Parameter.empty if each.default is MISSING else each.default
        if is_dataclass(hint):
            yield from (_parameter(*one) for one in declared_options(cast(type, hint)).items())
        elif get_origin(hint) is Annotated:
            yield Parameter(each.name, Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def _parameter(name: str, declared: DeclaredOption) -> Parameter:
    """What Python takes as a text, too, is a text here; a list is an option that may stand several times.

    A default that is no text stays with the dataclass: Typer would make a text of it.
    """
    option, types = declared.option, declared.types
    listed = next((get_args(each)[0] for each in types if get_origin(each) is Sequence), None)
    kind = str if str in types else types[0]
    default = None if listed or (kind is str and not isinstance(declared.default, str)) else declared.default
    how = typer.Option(*option.flags.split(), metavar=option.metavar, help=option.help, hidden=option.hidden)
    hint = list[listed] if listed else kind  # type: ignore[valid-type]
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        annotation=Annotated[hint | None if default is None else hint, how],
        default=default,
    )


def _made(given: type[T], values: Mapping[str, Any], **others: object) -> T:
    """One of that class and its sets from Typer's values; what is None has its default."""
    hints, found = get_type_hints(given), dict(others)
    for each in fields(given):  # type: ignore[arg-type]
        hint = hints[each.name]
        if is_dataclass(hint):
            found[each.name] = _made(cast(type, hint), values)
        elif values.get(each.name) is not None:
            found[each.name] = values[each.name]
    return given(**found)
