"""What rules do and what keeps them from it: the functions that the rows of ``table`` name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from roost.facts.decider import Decider
from roost.facts.request import GROUPS, Group, Strategy
from roost.planner.rules.case import Board, Case, Decision, Rule
from roost.planner.rules.selectors import rank
from roost.planner.rules.typed import dit_layerwise_option, layerwise_option, option_text, strategy_options

# VAEs whose layerwise decode is validated; other decode-side parts stream only when named explicitly.
_STREAMED_VAES = frozenset({"vae", "video_vae", "condition_image_encoder"})
_SMALL_DEVICE_GIB = 30


def decide_explicit(board: Board, rule: Rule) -> bool:
    explicit, fsdp = board.case.explicit, bool(board.case.choices.fsdp)
    dits = {each.name for each in board.case.members["dit"]}
    for component in board.case.components:
        wish = explicit.components.get(component.name)
        if wish and not (fsdp and component.name in dits and wish.level == 4):
            decision = Decision(
                strategy=wish.strategy,
                decided_by=Decider("flag", wish.option),
                why=f"{wish.option}: {rule.why}",
                parameters=wish.parameters,
            )
            board.decide(component, decision)
    for group, wish in explicit.groups.items():
        if not (fsdp and group == "dit" and wish.level == 4):
            board.groups[group] = Decision(
                strategy=wish.strategy, decided_by=Decider("flag", wish.option), why=rule.why
            )
    for group, members in board.case.members.items():
        if members and all(each.name in board.components for each in members):
            board.groups.setdefault(group, board.components[members[0].name])
    return bool(board.components or board.groups)


def decide_all(board: Board, rule: Rule) -> bool:
    decision = rule.decision("resident")
    changed = [board.decide_groups(GROUPS, decision)]
    changed += [board.decide(each, decision) for each in board.open_components()]
    return any(changed)


def decide(strategy: Strategy) -> Callable[[Board, Rule], bool]:
    def effect(board: Board, rule: Rule) -> bool:
        return board.decide_groups(rule.groups(board.case), rule.decision(strategy))

    return effect


def stream_helpers(board: Board, rule: Rule) -> bool:
    decision = rule.decision("layerwise-offload")
    encoders = board.decide_groups(("text_encoder", "image_encoder"), decision)
    return board.decide_groups(("vae",), decision, only=_STREAMED_VAES) or encoders


def decide_rest(board: Board, rule: Rule) -> bool:
    decision, mode = rule.decision("resident"), board.case.choices.mode
    if mode == "manual":
        decision = replace(decision, decided_by=Decider("default"), why="mode manual moves only what is typed.")
    elif mode == "speed":
        decision = replace(decision, why="mode speed keeps everything resident that isn't typed.")
    elif not board.case.on_cuda:
        decision = replace(decision, why="rules move weights on CUDA only.")
    changed = [board.decide(each, decision) for each in board.open_components()]
    return any(changed)


def set_prefetch(board: Board, rule: Rule) -> bool:
    blocks_ahead = board.case.profile.dit_layerwise_prefetch[board.case.choices.mode]
    for component in board.case.members["dit"]:
        decision = board.components[component.name]
        board.components[component.name] = replace(decision, parameters={"prefetch": blocks_ahead})
    return True


def set_linger(board: Board, rule: Rule) -> bool:
    (dit,) = board.case.members["dit"]
    decision = board.components[dit.name]
    if "linger" in decision.parameters:
        return False
    board.components[dit.name] = replace(decision, parameters={**decision.parameters, "linger": True})
    return True


def strategy_blockers(case: Case) -> tuple[str, ...]:
    return (*strategy_options(case.choices), *((case.fsdp_option,) if case.fsdp_option else ()))


def kept_groups(case: Case) -> tuple[Group, ...]:
    kept = {*case.profile.keep_resident_groups, *(("dit",) if case.profile.task == "image" else ())}
    return tuple(group for group in GROUPS if group in kept)


def wan_dit_blockers(case: Case) -> tuple[str, ...]:
    choices = case.choices
    on_dits = [
        choice.option
        for choice in choices.sets
        if rank(choice.selector, None, "dit") is not None
        or any(rank(choice.selector, each.name, "dit") == 0 for each in case.members["dit"])
    ]
    selection, layerwise = layerwise_option(choices), dit_layerwise_option(choices)
    return (
        *((f"--dmd-steps {choices.dmd_steps}",) if choices.dmd_steps is not None else ()),
        *(("--cache-dit",) if choices.cache_dit else ()),
        *((f"--cache {choices.cache}",) if choices.cache is not None else ()),
        *((case.fsdp_option,) if case.fsdp_option else ()),
        *((option_text("dit", choices.cpu_offload["dit"]),) if "dit" in choices.cpu_offload else ()),
        *((layerwise,) if layerwise and not choices.dit_layerwise_offload else ()),
        *on_dits,
        *((selection,) if selection else ()),
    )


def prefetch_blockers(case: Case) -> tuple[str, ...]:
    typed = case.choices.prefetch
    return (f"--dit-offload-prefetch-size {typed:g}",) if typed is not None else ()


def selection_blockers(case: Case) -> tuple[str, ...]:
    selection = layerwise_option(case.choices)
    return (selection,) if selection else ()


def base_groups(case: Case) -> tuple[Group, ...]:
    if case.total_gib < _SMALL_DEVICE_GIB or case.profile.task == "video":
        return ("dit", "text_encoder", "image_encoder")
    return ("dit", "text_encoder")


def has_lingering_dit(case: Case, board: Board) -> bool:
    dits = case.members["dit"]
    if not case.automatic or len(dits) != 1:
        return False
    return board.components[dits[0].name].strategy in ("component-offload", "snapshot-offload")
