"""The attention backend that a plan names, checked on the denoisers' classes before anything slow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from roost.facts.model import Component
from roost.plan import ComponentPlan
from roost.planner.rules.names import kind_of


def check_attention(name: str | None, components: Iterable[Component] | Mapping[str, ComponentPlan]) -> None:
    """UsageError for a backend that is unknown, or that a denoiser can't be given; None is the library's default."""
    if name is None:
        return
    from roost.pipelines.attention import check_backend
    from roost.pipelines.classes import component_class
    from roost.pipelines.quiet import quiet_libraries  # imported here: these bring torch

    with quiet_libraries():
        for component, library, class_name in denoisers(components):
            check_backend(name, component, component_class(library, class_name))


def denoisers(
    components: Iterable[Component] | Mapping[str, ComponentPlan],
) -> list[tuple[str, str | None, str]]:
    """Name, library and class of each denoiser."""
    if isinstance(components, Mapping):
        return [(name, each.library, each.class_name) for name, each in components.items() if each.kind == "dit"]
    return [(each.name, each.library, each.class_name) for each in components if kind_of(each) == "dit"]
