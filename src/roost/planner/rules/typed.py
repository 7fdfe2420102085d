"""What the user typed, resolved to one decision per component and group. Source: placement rules, section 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from roost.errors import UsageError
from roost.facts.model import Component
from roost.facts.request import GROUPS, Choices, Group, Strategy
from roost.option_spelling import option
from roost.planner.rules.names import group_of
from roost.planner.rules.selectors import rank

_CPU_OFFLOAD_LEVEL = 4
_LAYERWISE = "layerwise_offload_components"
_MOVED_LOCALLY: tuple[Strategy, ...] = ("component-offload", "snapshot-offload", "layerwise-offload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One typed option's word on one component or group. Lower levels and ranks win.

    ``option`` is as plans have it; ``name`` and ``value`` are Python's.
    """

    option: str
    name: str
    value: str | bool
    level: int
    rank: int
    strategy: Strategy
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def typed(self) -> str:
        """For whoever typed it."""
        return option(self.name, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explicit:
    """The winning wish of each component and group, and the options that another option beat: (loser, winner)."""

    components: Mapping[str, Wish]
    groups: Mapping[Group, Wish]
    beaten: tuple[tuple[str, str], ...]


def option_text(group: Group, value: bool) -> str:
    return f"--{'' if value else 'no-'}{group.replace('_', '-')}-cpu-offload"


def layerwise_option(choices: Choices) -> str | None:
    """The explicit layerwise selection as typed, or None."""
    if choices.layerwise_components is None:
        return None
    return f"--layerwise-offload-components {_layerwise_text(choices)}"


def _layerwise_text(choices: Choices) -> str:
    return choices.layerwise_text or ",".join(choices.layerwise_components or ()) or "none"


def dit_layerwise_option(choices: Choices) -> str | None:
    if choices.dit_layerwise_offload is None:
        return None
    return "--dit-layerwise-offload" if choices.dit_layerwise_offload else "--no-dit-layerwise-offload"


def strategy_options(choices: Choices) -> tuple[str, ...]:
    """Every typed option that sets a strategy, as typed."""
    flags = (layerwise_option(choices), dit_layerwise_option(choices))
    return (
        *(choice.option for choice in choices.sets),
        *(flag for flag in flags if flag is not None),
        *(option_text(group, value) for group, value in choices.cpu_offload.items()),
    )


def resolve(choices: Choices, components: tuple[Component, ...]) -> Explicit:
    """One wish per component and group.

    Raises UsageError when two options of one level and rank disagree about a component, or when FSDP was typed
    together with a local movement of a DiT; the message names both.
    """
    winners: dict[str, Wish] = {}
    beaten: dict[tuple[str, str], None] = {}
    for component in components:
        wishes = _wishes(choices, component.name, group_of(component))
        if wishes:
            winners[component.name] = _winner(wishes, f"component {component.name!r}", beaten)
        sharding = [wish.typed for wish in wishes if wish.strategy == "fsdp"]
        if choices.fsdp and group_of(component) == "dit":
            sharding.append(option("fsdp", True))
            _note_beaten_by_fsdp(wishes, beaten)
        _refuse_movement_beside_fsdp(sharding, wishes, component.name)
    groups: dict[Group, Wish] = {}
    for group in GROUPS:
        wishes = _wishes(choices, None, group)
        if wishes:
            groups[group] = _winner(wishes, f"group {group!r}", beaten)
    if choices.dit_layerwise_offload is False:
        dits = [winners.get(each.name) for each in components if group_of(each) == "dit"]
        for wish in (*dits, groups.get("dit")):
            if wish and wish.strategy == "layerwise-offload":
                beaten["--no-dit-layerwise-offload", wish.option] = None
    return Explicit(components=winners, groups=groups, beaten=tuple(beaten))


def _wishes(choices: Choices, name: str | None, group: Group | None) -> list[Wish]:
    wishes: list[Wish] = []
    for choice in choices.sets:
        matched = rank(choice.selector, name, group)
        if matched is not None:
            wishes.append(
                Wish(
                    option=choice.option,
                    name="set",
                    value=choice.text,
                    level=1,
                    rank=matched,
                    strategy=choice.strategy,
                    parameters=choice.parameters,
                )
            )
    selection = layerwise_option(choices)
    if selection and any(rank(each, name, group) is not None for each in choices.layerwise_components or ()):
        wishes.append(
            Wish(
                option=selection,
                name=_LAYERWISE,
                value=_layerwise_text(choices),
                level=2,
                rank=0,
                strategy="layerwise-offload",
            )
        )
    if group == "dit" and choices.dit_layerwise_offload:
        wishes.append(
            Wish(
                option="--dit-layerwise-offload",
                name="dit_layerwise_offload",
                value=True,
                level=3,
                rank=0,
                strategy="layerwise-offload",
            )
        )
    if group is not None and group in choices.cpu_offload:
        value = choices.cpu_offload[group]
        strategy: Strategy = "component-offload" if value else "resident"
        wishes.append(
            Wish(
                option=option_text(group, value),
                name=f"{group}_cpu_offload",
                value=value,
                level=_CPU_OFFLOAD_LEVEL,
                rank=0,
                strategy=strategy,
            )
        )
    return wishes


def _winner(wishes: list[Wish], target: str, beaten: dict[tuple[str, str], None]) -> Wish:
    best = min(wishes, key=lambda wish: (wish.level, wish.rank))
    for wish in wishes:
        same_place = (wish.level, wish.rank) == (best.level, best.rank)
        differs = (wish.strategy, dict(wish.parameters)) != (best.strategy, dict(best.parameters))
        if same_place and differs:
            raise UsageError(f"{best.typed} and {wish.typed} disagree about {target}; keep one of them.")
        if wish.strategy != best.strategy:
            beaten[wish.option, best.option] = None
    return best


def _note_beaten_by_fsdp(wishes: list[Wish], beaten: dict[tuple[str, str], None]) -> None:
    """``--no-dit-cpu-offload`` keeps FSDP from nothing: sharded weights are never sent to the host either."""
    for wish in wishes:
        if wish.level == _CPU_OFFLOAD_LEVEL and wish.strategy == "resident":
            beaten[wish.option, "--fsdp"] = None


def _refuse_movement_beside_fsdp(sharding: list[str], wishes: list[Wish], name: str) -> None:
    moving = [wish.typed for wish in wishes if wish.strategy in _MOVED_LOCALLY]
    if sharding and moving:
        raise UsageError(
            f"{sharding[0]} and {moving[0]} both manage component {name!r}, and two managers of one tensor corrupt it;"
            " keep one of them."
        )
