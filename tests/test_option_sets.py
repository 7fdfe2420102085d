"""Options are declared once: commands take sets of them, and know which were typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from roost.api.requests.declared import Option, declared_options, typed_options
from roost.api.requests.option_sets import PlanOptions, TunedPlanOptions, WorkloadOptions
from roost.api.requests.run_option_sets import BenchOptions, GenerationOptions
from roost.cli.options import Command, takes_options
from roost.option_spelling import at_a_shell, option


@dataclass(frozen=True, kw_only=True)
class Colours:
    colour: Annotated[str | tuple[int, int, int], Option("--colour", "A name.")] = "red"
    bright: Annotated[bool, Option("--bright/--no-bright", "Much light.")] = True
    layer: Annotated[str | None, Option("-l --layer", "Where.")] = None


@dataclass(frozen=True, kw_only=True)
class Paint(Command):
    what: Annotated[str, typer.Argument()]
    colours: Colours
    workload: WorkloadOptions
    twice: Annotated[bool, typer.Option("--twice")] = False


def painted(*words: str) -> Paint:
    """What a command is given for these words."""
    seen: list[Paint] = []

    @takes_options
    def paint(given: Paint) -> None:
        seen.append(given)

    app = typer.Typer()
    app.command()(paint)
    app(list(words), standalone_mode=False)
    return seen[0]


def test_a_command_is_given_its_sets_with_what_was_typed_and_defaults_for_the_rest() -> None:
    given = painted("wall", "--no-bright", "--steps", "4", "--twice")
    assert given.colours == Colours(bright=False)
    assert given.workload == WorkloadOptions(steps=4)
    assert (given.what, given.twice) == ("wall", True)


def test_a_default_that_was_typed_is_known_as_typed() -> None:
    given = painted("wall", "--colour", "red", "--batch", "1", "--no-bright", "-l", "top")
    assert given.typed == {"what", "colour", "batch", "bright", "layer"}
    assert typed_options(given.colours, given.typed) == ["colour=", "bright=False", "layer="]
    with at_a_shell():
        assert typed_options(given.colours, given.typed) == ["--colour", "--no-bright", "--layer"]
    assert painted("wall").typed == {"what"}


def test_options_of_another_class_are_filled_from_all_sets() -> None:
    filled = painted("wall", "--steps", "4").filled(PlanOptions)
    assert filled == PlanOptions(steps=4)


@pytest.mark.parametrize("options", [TunedPlanOptions, BenchOptions, GenerationOptions])
def test_flags_are_the_names_of_python_and_help_is_a_sentence(options: type) -> None:
    for name, each in declared_options(options).items():
        flag = each.option.flags.split()[-1].partition("/")[0]
        with at_a_shell():
            assert flag == option(name)
        assert each.option.help.endswith(".")
