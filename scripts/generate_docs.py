"""Writes docs/rules.md and docs/options.md from the tables in the source; with --check, fails when one is stale."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from roost.api.requests.declared import DeclaredOption, declared_options
from roost.api.requests.option_sets import PlanOptions, TuneOptions
from roost.api.requests.run_option_sets import BenchOptions
from roost.cli.commands.inspect import InspectCommand
from roost.cli.commands.run import RunCommand
from roost.cli.commands.timeline import TimelineCommand
from roost.planner.rules.table import RULES

DOCS = Path(__file__).parents[1] / "docs"


def rules_page() -> str:
    """The page's text."""
    parts = [
        "# Placement rules",
        "",
        "Generated from `src/roost/planner/rules/table.py` by `scripts/generate_docs.py`; edit there.",
        "",
        "`roost plan --policy rules` evaluates these rows once, from top to bottom. Each starts from what is still",
        "undecided; what a row decided is never decided again. `roost rules` prints the same table.",
    ]
    for rule in RULES:
        parts += [
            "",
            f"## {rule.id}",
            "",
            f"- **When:** {rule.condition}",
            f"- **Then:** {rule.result}",
            f"- **Why:** {rule.why}",
            f"- **Source:** {rule.source}",
        ]
    return "\n".join(parts) + "\n"


def options_page() -> str:
    """The page's text: a row for each option, with what takes it."""
    takers: dict[str, list[type]] = {
        "inspect": _sets_of(InspectCommand),
        "plan": [PlanOptions],
        "plan --tune": [TuneOptions],
        "run": _sets_of(RunCommand),
        "bench": [BenchOptions],
        "timeline": _sets_of(TimelineCommand),
    }
    options: dict[str, DeclaredOption] = {}
    taken_by: dict[str, list[str]] = {}
    for taker, sets in takers.items():
        for name, option in _all_options(sets).items():
            options.setdefault(name, option)
            taken_by.setdefault(name, []).append(taker)
    parts = [
        "# Options",
        "",
        "Generated from `src/roost/api/requests/option_sets.py` by `scripts/generate_docs.py`; edit there.",
        "",
        "`roost.make_plan` takes those of `plan` by their names in Python (`roost.make_fleet_plan` of a fleet),"
        " `roost.tune_plan` also those of",
        "`plan --tune`, `roost.bench` those of `bench`, and `roost.attach` those of `plan` but for what a pipeline in",
        "memory has decided. What only a command takes is in its `--help`.",
        "",
        "| Option | In Python | If not given | Taken by | |",
        "| --- | --- | --- | --- | --- |",
        *(_row(name, option, taken_by[name]) for name, option in options.items()),
    ]
    return "\n".join(parts) + "\n"


def _sets_of(command: type) -> list[type]:
    hints = get_type_hints(command)
    return [hints[each.name] for each in fields(command)]


def _all_options(sets: list[type]) -> dict[str, DeclaredOption]:
    dataclasses = [each for each in sets if hasattr(each, "__dataclass_fields__")]
    return {name: option for each in dataclasses for name, option in declared_options(each).items()}


def _row(name: str, declared: DeclaredOption, taken_by: list[str]) -> str:
    option, default = declared.option, declared.default
    flags = " ".join(f"`{each}`" for each in option.flags.replace("/", " ").split())
    types = " or ".join([*map(_type_name, declared.types), *(["list[str]"] if option.joined else [])])
    shown = "" if default in (None, ()) else f"`{default}`"
    return f"| {flags} | `{name}`: {types} | {shown} | {', '.join(taken_by)} | {option.help} |"


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and str(kind).startswith("<") else str(kind).split("abc.")[-1]


PAGES = {"rules.md": rules_page, "options.md": options_page}


def main() -> int:
    stale = 0
    for name, page in PAGES.items():
        target, text = DOCS / name, page()
        if "--check" not in sys.argv[1:]:
            target.write_text(text, encoding="utf-8")
        elif not target.is_file() or target.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale: run scripts/generate_docs.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
