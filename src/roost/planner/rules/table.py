"""The rule table. A new rule is one row; ``why`` is what the user reads. ``docs/rules.md`` is generated from it."""

from __future__ import annotations

from dataclasses import dataclass

from roost.facts.decider import Blocked, Fired
from roost.facts.request import GROUPS, Group
from roost.planner.rules.case import Board, Case, Decision, Rule
from roost.planner.rules.effects import (
    base_groups,
    decide,
    decide_all,
    decide_explicit,
    decide_rest,
    has_lingering_dit,
    kept_groups,
    prefetch_blockers,
    selection_blockers,
    set_linger,
    set_prefetch,
    strategy_blockers,
    stream_helpers,
    wan_dit_blockers,
)
from roost.planner.rules.selectors import DEFAULT_GROUPS

RULES: tuple[Rule, ...] = (
    Rule(
        id="EXPLICIT",
        condition="an option that sets a strategy was typed",
        applies=lambda case, board: bool(case.explicit.components or case.explicit.groups),
        result="as typed",
        effect=decide_explicit,
        why="the user's word stands.",
        source="placement rules, section 3",
    ),
    Rule(
        id="FSDP-RESIDENT",
        condition="FSDP is on: typed, or mode speed with two or more GPUs and a family that allows it",
        applies=lambda case, board: case.fsdp_option is not None,
        groups=lambda case: ("dit",),
        result="DiT group → fsdp; nothing else ever moves an FSDP-managed module",
        effect=decide("fsdp"),
        why="FSDP moves its own shards; two managers of one tensor corrupt it.",
        source="sglang#25930",
    ),
    Rule(
        id="ALL-RESIDENT",
        condition="mode auto, free memory ≥ 2 × weights at load dtype, batch 1",
        applies=lambda case, board: (
            case.on_cuda
            and case.choices.mode == "auto"
            and case.batch == 1
            and case.machine.gpu.free_bytes >= 2 * case.weights_bytes
        ),
        blockers=strategy_blockers,
        groups=lambda case: GROUPS,
        result="everything → resident",
        effect=decide_all,
        why="free memory is at least twice the weights; offload is pure loss when everything fits.",
        source="placement rules, section 4",
    ),
    Rule(
        id="KEEP-RESIDENT",
        condition="mode auto, free memory ≥ the family's threshold",
        applies=lambda case, board: (
            case.on_cuda and case.choices.mode == "auto" and case.free_gib >= case.profile.keep_resident_free_gib
        ),
        groups=kept_groups,
        result="the family's keep-resident groups → resident; an image pipeline's DiT too",
        effect=decide("resident"),
        why="free memory reaches the family's keep-resident threshold; offload is pure loss when it fits.",
        why_several="free memory reaches the family's keep-resident threshold; offload is pure loss when they fit.",
        source="sglang#23771",
    ),
    Rule(
        id="HELPERS-LAYERWISE",
        condition="mode auto or memory",
        applies=lambda case, board: case.automatic,
        blockers=selection_blockers,
        groups=lambda case: DEFAULT_GROUPS,
        result="the default groups → layerwise-offload (of VAEs: vae, video_vae, condition_image_encoder)",
        effect=stream_helpers,
        why="streaming an encoder's or VAE's blocks is 12–52 % faster than moving it whole, at about the same memory.",
        source="sglang#25517 (seven encoder and VAE cases on RTX 4090 and H100)",
    ),
    Rule(
        id="WAN-DIT-LAYERWISE",
        condition="the family streams its DiT in this mode",
        applies=lambda case, board: case.on_cuda and case.choices.mode in case.profile.dit_layerwise_prefetch,
        blockers=wan_dit_blockers,
        groups=lambda case: ("dit",),
        result="DiT group → layerwise-offload",
        effect=decide("layerwise-offload"),
        why="streaming the DiT halves peak reserved memory at equal or slightly better latency at video sizes.",
        source="sglang#25930",
    ),
    Rule(
        id="A14B-PREFETCH",
        condition="WAN-DIT-LAYERWISE fired, and the family's prefetch in this mode is above 1",
        applies=lambda case, board: (
            "WAN-DIT-LAYERWISE" in board.fired and case.profile.dit_layerwise_prefetch[case.choices.mode] > 1
        ),
        blockers=prefetch_blockers,
        result="DiTs: prefetch 2",
        effect=set_prefetch,
        why="two blocks ahead measured best for the A14B experts.",
        source="sglang#25930",
    ),
    Rule(
        id="BASE-OFFLOAD",
        condition="mode auto or memory, and nothing above decided the group",
        applies=lambda case, board: case.automatic and any(group not in board.groups for group in base_groups(case)),
        groups=base_groups,
        result=(
            "device total < 30 GiB or a video task: dit, text_encoder, image_encoder; else dit, text_encoder"
            " → component-offload"
        ),
        effect=decide("component-offload"),
        why="no better rule covers it; moving it in for its own stage only is the fallback.",
        why_several="no better rule covers them; moving each in for its own stage only is the fallback.",
        source="placement rules, section 4",
    ),
    Rule(
        id="REST-RESIDENT",
        condition="a component is still undecided",
        applies=lambda case, board: bool(board.open_components()),
        result="→ resident",
        effect=decide_rest,
        why="no rule moves it.",
        why_several="no rule moves them.",
        source="placement rules, section 4",
    ),
    Rule(
        id="LINGER",
        condition="the pipeline's only DiT is component- or snapshot-offloaded",
        applies=has_lingering_dit,
        result="linger: it stays after its stage while the budget of later stages allows",
        effect=set_linger,
        why="the DiT is needed first again by the next generation.",
        source="placement rules, section 4",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Every component's decision, and what each rule did."""

    decisions: dict[str, Decision]
    layerwise_groups: tuple[Group, ...]
    fired: tuple[Fired, ...]
    blocked: tuple[Blocked, ...]


def apply_rules(case: Case) -> Outcome:
    """The rule plan's decisions: the table, evaluated once from top to bottom."""
    board = Board(case=case)
    fired: list[Fired] = []
    blocked = [Blocked(id=beaten, by=winner) for beaten, winner in case.explicit.beaten]
    for rule in RULES:
        if not rule.applies(case, board):
            continue
        blockers = rule.blockers(case) or _owners_of_all(board, rule.groups(case))
        if not blockers and rule.effect(board, rule):
            board.fired.add(rule.id)
            fired.append(Fired(id=rule.id, why=rule.why))
        else:
            blocked.extend(Blocked(id=rule.id, by=blocker) for blocker in blockers)
    return Outcome(
        decisions=board.components,
        layerwise_groups=board.layerwise_groups(),
        fired=tuple(fired),
        blocked=tuple(blocked),
    )


def _owners_of_all(board: Board, groups: tuple[Group, ...]) -> tuple[str, ...]:
    """Who decided the groups, when nothing in them is left to decide."""
    if not groups or any(group not in board.groups for group in groups):
        return ()
    return board.owners(groups)
