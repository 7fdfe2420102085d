"""What is tried: each strategy, streaming with several numbers of residents, and the plans of rules and search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from roost.errors import UsageError
from roost.facts.model import Kind
from roost.facts.request import Choices
from roost.option_spelling import given
from roost.plan import PlanDocument
from roost.planner.by_search import plan_by_search
from roost.planner.rule_plan import predicted_rule_plan
from roost.planner.rules.names import kind_of
from roost.planner.rules.selectors import parse_set
from roost.planner.rules.typed import resolve
from roost.planner.search_question import SearchQuestion
from roost.tune.results.records import PLAIN, Candidate
from roost.tune.trials.peers import Peer
from roost.units import format_bytes

STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload", "rules", "search")
RULE_PLAN, SEARCHED_PLAN = "rule plan", "searched plan"

# Of the denoiser's blocks, how many stay; which; and how many come ahead.
_STREAMINGS = (
    (0.0, "strided", 1),
    (0.0, "strided", 2),
    (0.25, "strided", 1),
    (0.5, "strided", 1),
    (0.5, "strided", 2),
    (0.5, "leading", 1),
    (0.75, "strided", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Who takes part, in the order of promise, and why others don't, by name.

    ``plain`` is diffusers alone; None compares outputs among the candidates only.
    """

    plain: Candidate | None
    racing: tuple[Candidate, ...]
    left_out: tuple[tuple[Candidate, str], ...]


def parse_strategies(text: str) -> tuple[str, ...]:
    """``all``, or names of ``STRATEGIES`` with commas between; UsageError for anything else."""
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if names == ("all",):
        return STRATEGIES
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise UsageError(
            f"{given('strategies', text)}: there is no {unknown[0]!r}; choose all or {', '.join(STRATEGIES)}."
        )
    return names


def list_candidates(
    asked: SearchQuestion,
    strategies: Sequence[str],
    given: Mapping[str, PlanDocument] | None = None,
    peers: Sequence[Peer] = (),
    searched: PlanDocument | None = None,
) -> Field:
    """The field for the question; ``given`` are plans that take part by their names, whatever ``strategies`` say.

    All decode as the first given plan does, else as the ``searched`` one, which is sought where it isn't known.
    """
    asked = replace(asked, seek_remedies=False)  # who fits only likely races as it is
    pattern = next(iter((given or {}).values()), None)
    if pattern is None:
        pattern = searched = searched or plan_by_search(asked)
    asked = asked.with_bits_of(pattern)
    everything = plan_by_search(replace(_asking(asked, Choices(mode="speed")), gives_back=False))  # diffusers can't
    plain = Candidate(name=PLAIN, strategy=PLAIN, plan=everything, peer=PLAIN)
    found = [
        *(
            Candidate(name=name, strategy="plan", plan=each, predicted=each.predicted)
            for name, each in (given or {}).items()
        ),
        *_wanted(asked, strategies, searched),
    ]
    racing, left_out = [], []
    seen: dict[object, str] = {}
    for candidate in sorted(found, key=_promise):
        reason = why_unfit(candidate)
        if reason is None and candidate.plan is not None:
            same = seen.setdefault(placement_of(candidate.plan), candidate.name)
            reason = f"places everything as {same} does" if same != candidate.name else None
        if reason is None:
            racing.append(candidate)
        else:
            left_out.append((candidate, reason))
    for peer in peers:  # after Roost's own: nothing predicts how slow they are
        beside = Candidate(name=peer.name, strategy=peer.strategy, params=peer.params, plan=everything, peer=peer.name)
        reason = peer.why_not(asked.question.machine.gpu.device_kind)
        if reason is None:
            racing.append(beside)
        else:
            left_out.append((beside, reason))
    return Field(plain=plain, racing=tuple(racing), left_out=tuple(left_out))


def why_unfit(candidate: Candidate) -> str | None:
    """Why the model says that it can't fit; None when it may."""
    plan = candidate.plan
    if plan is None:
        return None
    if not plan.fits:
        return plan.budget.verdict_alone.rstrip(".")
    if plan.budget.host_deficit_bytes:
        return f"host memory is {format_bytes(plan.budget.host_deficit_bytes)} short"
    guessed = plan.budget.activations_known is False
    if not guessed and plan.predicted is not None and plan.predicted.peak_bytes.low > plan.budget.budget_bytes:
        peak, budget = format_bytes(plan.predicted.peak_bytes.low), format_bytes(plan.budget.budget_bytes)
        return f"does not fit: it would peak at {peak} or more of a budget of {budget}"
    return None


def _wanted(asked: SearchQuestion, strategies: Sequence[str], searched: PlanDocument | None) -> Iterator[Candidate]:
    """In the order of simplicity: among equals, the first one counts."""
    for name in ("resident", "snapshot-offload", "component-offload"):
        if name in strategies:
            yield _candidate(name, name, _with_rest(asked, name))
    if "layerwise-offload" in strategies:
        yield from _streamed(asked)
    if "rules" in strategies:
        yield _candidate(RULE_PLAN, "rules", predicted_rule_plan(asked))
    if "search" in strategies:
        yield _candidate(SEARCHED_PLAN, "search", searched or plan_by_search(asked))


def _streamed(asked: SearchQuestion) -> Iterator[Candidate]:
    """The denoiser streams; the search places the rest beside it."""
    choices = asked.question.choices
    if choices.layerwise_components is not None or choices.dit_layerwise_offload is False:
        return  # what streams was typed
    counts = [
        sum(stack.count for stack in each.units)
        for each in asked.question.inventory.components
        if kind_of(each) == "dit"
    ]
    blocks = min(counts, default=0)
    made = set()
    for share, policy, prefetch in _STREAMINGS:
        resident = round(share * blocks)
        if resident + prefetch > blocks or (resident, policy, prefetch) in made:
            continue
        made.add((resident, policy, prefetch))
        params = {"resident_blocks": resident, "resident_policy": policy, "prefetch": prefetch}
        typed = ",".join(f"{key}={value}" for key, value in params.items())
        plan = _with_rest(asked, f"layerwise-offload,{typed}", kind="dit")
        yield _candidate(f"layerwise k={resident} {policy} p{prefetch}", "layerwise-offload", plan, params)


def _candidate(name: str, strategy: str, plan: PlanDocument, params: Mapping[str, object] | None = None) -> Candidate:
    frozen = MappingProxyType(dict(params or {}))
    return Candidate(name=name, strategy=strategy, params=frozen, plan=plan, predicted=plan.predicted)


def _with_rest(asked: SearchQuestion, placement: str, kind: Kind | None = None) -> PlanDocument:
    """The search's plan with the components (of a ``kind``) that no option has a word on placed so."""
    question = asked.question
    components, choices = question.inventory.components, question.choices
    typed = resolve(choices, components).components
    rest = [each.name for each in components if each.name not in typed and kind in (None, kind_of(each))]
    added = tuple(parse_set(f"{name}={placement}") for name in rest)
    return plan_by_search(_asking(asked, replace(choices, sets=(*choices.sets, *added))))


def _asking(asked: SearchQuestion, choices: Choices) -> SearchQuestion:
    return replace(asked, question=replace(asked.question, choices=choices))


def _promise(candidate: Candidate) -> float:
    """Predicted seconds of a generation, to about one percent: closer ones keep their order."""
    if candidate.predicted is None:
        return 0.0
    return float(f"{candidate.predicted.next_s.mid:.2g}")


def placement_of(plan: PlanDocument) -> tuple[object, ...]:
    """What two plans that place everything alike have in common."""
    return tuple(
        (
            name,
            each.strategy,
            each.leaf_level,
            each.resident_blocks,
            each.resident_policy if each.resident_blocks else None,
            each.prefetch,
            each.hold,
            each.linger,
            None if each.master is None else tuple(each.master.model_dump().values()),
            each.tiling,
            each.slicing,
            each.storage,
        )
        for name, each in sorted(plan.components.items())
    )
