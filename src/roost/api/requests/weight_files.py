"""Files of weights as typed: which component's, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

from roost.api.requests.option_sets import FileOptions
from roost.errors import UsageError
from roost.option_spelling import file_option, given
from roost.plan import ComponentPlan, PlanDocument
from roost.plan.revision import revised
from roost.shell_quoting import shown_path

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)


def files_of(options: FileOptions) -> dict[str, Path]:
    """The file given for each component; UsageError for a text without a component's name, and for two of one."""
    found: dict[str, Path] = {}
    for component, path in _given(options):
        if component in found and found[component] != path:
            raise UsageError(
                f"two files are given for {component!r}, {shown_path(found[component])} and {shown_path(path)};"
                " leave one out."
            )
        found[component] = path
    return found


def with_moved_files(plan: PlanDocument, files: Mapping[str, Path]) -> PlanDocument:
    """The plan with its files where they are now; UsageError for a component that it takes from the model itself."""
    others = plan.worker_plans
    for name, path in files.items():
        planned = [plan.components.get(name), *(each.components.get(name) for each in others.values())]
        if not any(each is not None and each.source is not None for each in planned):
            raise UsageError(
                f"this plan takes no file for {name!r}; plan again with {file_option(name, path)}, or leave it out."
            )
    if not files:
        return plan
    moved = {name: revised(each, components=_moved(each.components, files)) for name, each in others.items()}
    return revised(plan, components=_moved(plan.components, files), worker_plans=moved)


def _moved(components: Mapping[str, ComponentPlan], files: Mapping[str, Path]) -> dict[str, ComponentPlan]:
    return {
        name: revised(each, source=replace(each.source, path=str(files[name].absolute())))
        if name in files and each.source is not None
        else each
        for name, each in components.items()
    }


def _given(options: FileOptions) -> Iterator[tuple[str, Path]]:
    files = options.files
    if isinstance(files, Mapping):
        yield from (_paired(component, path) for component, path in files.items())
    else:
        yield from map(_parsed, files)
    for each in fields(FileOptions):
        path = getattr(options, each.name)
        if each.name != "files" and path is not None:
            yield each.name, Path(path)


def _paired(component: object, path: object) -> tuple[str, Path]:
    if not isinstance(component, str) or not isinstance(path, str | Path):
        raise UsageError(f"files gives components by name a path each, not {component!r}: {path!r}.")
    if not str(path):
        raise UsageError(f"files names no file for {component!r}.")
    return component, Path(path)


def _parsed(text: object) -> tuple[str, Path]:
    if not isinstance(text, str):
        raise UsageError(f"files are given like {file_option('transformer')}, not as {text!r}.")
    named = _NAMED.fullmatch(text)
    if re.fullmatch(r"\w+=", text):
        raise UsageError(f"{given('files', text)} names no file; write {file_option(text[:-1])}.")
    if named is None:
        raise UsageError(
            f"{given('files', text)} names no component; write {file_option('transformer')}, with the"
            " component's name in the model."
        )
    return named[1], Path(named[2])
