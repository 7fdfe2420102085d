"""Whether the files of a model hold the tensors that its classes take: compared with the modules of a dry run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roost.errors import InvalidFile
from roost.facts.model import Component, Inventory
from roost.probes.files.safe_files import listed
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.structure import read_tensors
from roost.profiles.class_facts import load_class_facts
from roost.trace import ModuleTensors, Trace

_NAMED = 3


def check_tensors(inventory: Inventory, trace: Trace) -> tuple[str, ...]:
    """Warnings of tensors that no class takes; InvalidFile for those that a class lacks or has in another shape.

    What isn't known is not judged: quantised and pickled weights, classes that make tensors of others.
    """
    if inventory.path is None:
        return ()
    directory, wanted = ModelDirectory(Path(inventory.path)), {each.component: each for each in trace.tensors}
    warnings: list[str] = []
    for component in inventory.components:
        if component.name in wanted and component.tensors is not None and not _has_other_names(component):
            warnings += _compare(directory, component, wanted[component.name])
    return tuple(warnings)


def _has_other_names(component: Component) -> bool:
    """Whether its tensors' names say nothing: a recipe judged them already, or a quantiser has its own."""
    return component.source is not None or component.quantization is not None


def _compare(directory: ModelDirectory, component: Component, wanted: ModuleTensors) -> Iterator[str]:
    facts = load_class_facts().get(component.class_name)
    if facts is None:
        return  # under which names it loads its files is unknown
    stored = {name: tuple(shape) for name, shape in read_tensors(directory, component, facts)}
    missing = sorted(wanted.shapes.keys() - stored.keys() - set(wanted.spare))
    if missing:
        raise _unlike(component, f"lack {_count(missing)} that {component.class_name!r} has, and that would be random")
    misshapen = sorted(name for name in stored.keys() & wanted.shapes.keys() if stored[name] != wanted.shapes[name])
    if misshapen:
        raise _unlike(component, f"hold {_count(misshapen)} in another shape than its config.json gives them")
    unused = sorted(stored.keys() - wanted.shapes.keys())
    if unused:
        yield f"{component.name}: its files hold {_count(unused)} that {component.class_name} has not and drops"


def _unlike(component: Component, how: str) -> InvalidFile:
    return InvalidFile(
        f"component {component.name!r}: its files {how}; fetch config.json and weights again, from one revision."
    )


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) > 1)} ({listed(names, _NAMED)})"
