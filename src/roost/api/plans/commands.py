"""A plan's options as the command line that asks for them, with what would fit in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from roost.api.requests.declared import DeclaredOption, declared_options
from roost.api.requests.option_sets import PlanOptions
from roost.planner.search.remedies import Remedy
from roost.shell_quoting import command


def plan_command(model: str | Path, options: PlanOptions) -> Callable[[Remedy], str]:
    """Makes of a remedy the whole ``roost plan`` line: what was typed, less and with what the remedy says."""

    def spell(remedy: Remedy) -> str:
        given = dict(remedy.given)
        words = [word for words in _words(options) if not _gone(words, remedy, given) for word in words]
        added = [word for words in remedy.given for word in words]
        line = command("roost", "plan", str(model), *words, *added)
        return f"{line}  # {remedy.note}" if remedy.note else line

    return spell


def _gone(words: tuple[str, ...], remedy: Remedy, given: Mapping[str, str]) -> bool:
    return words[0] in given or " ".join(words) in remedy.without


def _words(options: PlanOptions) -> Iterator[tuple[str, ...]]:
    """The words of every option that differs from its default."""
    for name, declared in declared_options(PlanOptions).items():
        value = getattr(options, name)
        if value != declared.default:
            yield from _spelled(declared, value)


def _spelled(declared: DeclaredOption, value: object) -> Iterator[tuple[str, ...]]:
    yes, _, no = declared.option.flags.split()[-1].partition("/")
    if isinstance(value, bool):
        yield (yes if value else no,)
    elif isinstance(value, Mapping):
        yield from ((yes, f"{key}={each}") for key, each in value.items())
    elif isinstance(value, list | tuple):
        if declared.option.joined:
            yield yes, ",".join(map(str, value))
        elif yes == "--size":
            yield yes, "x".join(map(str, value))
        else:
            yield from ((yes, str(each)) for each in value)
    else:
        yield yes, f"{value:g}" if isinstance(value, float) else str(value)
