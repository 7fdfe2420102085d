"""Planning: facts from the probes and profiles to the planner, and the plan back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from roost.api.machine import find_machine
from roost.api.measurements.learned import NOTHING_KNOWN, known_of
from roost.api.models.attention import check_attention
from roost.api.models.inspect import in_8_bits_where_stored, inspect_model, profile_of
from roost.api.models.loras import with_loras
from roost.api.models.named_files import check_sought, why_single_files
from roost.api.models.step_caches import cache_of, try_cache
from roost.api.models.tensors import check_tensors
from roost.api.models.traces import kept_trace, trace_asked, trace_model
from roost.api.models.versions import RECORDED, installed_versions
from roost.api.plans.commands import plan_command
from roost.api.requests.given_files import check_fuse, lora_texts, read_loras
from roost.api.requests.known_values import dtype_of
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.options import aim_of, choices_of, generation_count, searches, workload_of
from roost.api.requests.python_options import options_of
from roost.api.requests.weight_files import files_of
from roost.errors import DryRunError, InvalidFile, UsageError
from roost.facts.rates import LINKS
from roost.facts.request import Workload
from roost.facts.resident_policy import blocks_of_stacks
from roost.plan import PlanDocument
from roost.plan.figures import Rate
from roost.planner.buffers import in_order_of_use, with_unfiled
from roost.planner.by_rules import Question, plan_by_rules
from roost.planner.by_search import plan_by_search
from roost.planner.cost.attention import attention_shares
from roost.planner.cost.costs import CostModel
from roost.planner.cost.rates import SINGLE_DTYPES, Rates, rates_of, single_dtypes_of
from roost.planner.cost.untraced import guessing, untraced
from roost.planner.leaf_level import at_leaf_level, at_typed_level, open_to_leaf_level
from roost.planner.rule_plan import traced_rule_plan
from roost.planner.rules.roles import parse_role
from roost.planner.ruling import ruling_on
from roost.planner.search_question import SearchQuestion
from roost.planner.side_paths import with_work
from roost.profiles.gpus import load_gpu_profiles
from roost.shell_quoting import shown_path
from roost.trace import Trace

_log = logging.getLogger(__name__)

OnRemedyRun = Callable[[Workload], None]
TraceIt = Callable[[Question], Trace]


def make_plan(model: str | Path, **options: object) -> PlanDocument:
    """The placement plan of a model directory or hub id; ``options`` are the fields of ``PlanOptions``.

    The plan is returned also when it doesn't fit: look at ``fits`` and ``budget``. Raises UsageError, InvalidFile.
    """
    return plan_model(model, options_of(PlanOptions, options, "make_plan"))


def plan_model(model: str | Path, options: PlanOptions, on_remedy_run: OnRemedyRun | None = None) -> PlanDocument:
    """The plan of ``model`` under ``options``; the typed spelling of ``make_plan``.

    ``on_remedy_run`` hears of each smaller workload that is dry-run because the asked one fits nowhere.
    """
    question = _question(model, options)
    _log.info("planning %s for %s", question.inventory.path or question.inventory.family, question.machine)
    if not searches(options):
        return _with_kept_trace(question, options) or plan_by_rules(question)
    ruling_on(_without_order(question))  # refuses wrong options before the slow dry run
    asked = traced_question(question, options, _trace)
    return plan_by_search(
        replace(
            _with_others(asked, on_remedy_run),
            loaded_as=lambda dtype: _loaded_as(model, replace(options, dtype=dtype), on_remedy_run),
            spell=plan_command(model, options),
        )
    )


def _without_order(question: Question) -> Question:
    """The question without numbers of blocks for each stack: a dry run knows in which order those come."""
    sets = tuple(
        replace(
            each,
            parameters={
                key: value
                for key, value in each.parameters.items()
                if key != "resident_policy" or not blocks_of_stacks(str(value))
            },
        )
        for each in question.choices.sets
    )
    return replace(question, choices=replace(question.choices, sets=sets))


def _with_others(asked: SearchQuestion, on_remedy_run: OnRemedyRun | None) -> SearchQuestion:
    """The question of one ``roost run``, which other workloads may be looked at for, at either level."""
    question, at_level = asked.question, asked.at_leaf_level

    def finer(of: Question) -> SearchQuestion | None:
        found = at_level(of) if at_level else None
        return None if found is None else _with_others(found, on_remedy_run)

    return replace(
        asked,
        trace_other=lambda workload: _other_trace(question, workload, on_remedy_run),
        at_leaf_level=finer,
        gives_back=True,
    )


def _loaded_as(model: str | Path, options: PlanOptions, on_remedy_run: OnRemedyRun | None) -> SearchQuestion:
    """The question under a dtype that nobody has typed."""
    question = _question(model, options)
    if on_remedy_run is not None and kept_trace(question.inventory, question.profile, question.workload) is None:
        on_remedy_run(question.workload)
    asked = traced_question(question, options, _trace)
    return _with_others(asked, on_remedy_run)


def _with_kept_trace(question: Question, options: PlanOptions) -> PlanDocument | None:
    """The rule plan, judged by a trace that an earlier dry run left; None without one. Imports no torch."""
    trace = kept_trace(question.inventory, question.profile, question.workload)
    return None if trace is None else traced_rule_plan(traced_question(question, options, lambda _: trace))


def _trace(question: Question) -> Trace:
    return trace_asked(question.inventory, question.profile, question.workload)


def _other_trace(question: Question, workload: Workload, on_remedy_run: OnRemedyRun | None) -> Trace | None:
    trace = _trace_if_possible(question, workload, on_remedy_run)
    return None if trace is None else with_work(trace, question.inventory.components, question.adapters)


def _trace_if_possible(question: Question, workload: Workload, on_remedy_run: OnRemedyRun | None) -> Trace | None:
    kept = kept_trace(question.inventory, question.profile, workload)
    if kept is not None:
        return kept
    if on_remedy_run is not None:
        on_remedy_run(workload)
    try:
        return trace_model(question.inventory, question.profile, workload)
    except DryRunError:
        return None


def search_question(model: str | Path, options: PlanOptions, link_bytes_per_s: float | None = None) -> SearchQuestion:
    """What the search is asked for ``model``, its dry run included; ``link_bytes_per_s`` is an emulated device's."""
    question = _question(model, options)
    ruling_on(_without_order(question))  # refuses wrong options before the slow dry run
    asked = traced_question(question, options, _trace, link_bytes_per_s)
    return replace(asked, spell=plan_command(model, options))


def _question(model: str | Path, options: PlanOptions) -> Question:
    choices, role, dtype = choices_of(options), parse_role(options.role), dtype_of(options)
    inventory = inspect_model(model, variant=options.variant, dtype=dtype, files=files_of(options))
    if not inventory.components or inventory.layout == "single-file":
        raise InvalidFile(why_single_files(inventory))
    check_sought(inventory)
    if inventory.path is not None and not _is_text(inventory.path):
        raise UsageError(
            f"model {shown_path(inventory.path)} has a path that a plan can't hold; rename it to UTF-8 text."
        )
    profile = profile_of(inventory)
    check_attention(options.attention, inventory.components)
    cache = cache_of(options.cache)
    try_cache(cache, inventory)
    if searches(options) and not lora_texts(options):  # LoRAs are fused into what the library loads, as ever
        inventory = in_8_bits_where_stored(inventory)
    loras = read_loras(lora_texts(options), [each.name for each in inventory.components], options.fuse)
    check_fuse(loras, options.fuse)
    adapted = with_loras(inventory, loras)
    question = Question(
        inventory=adapted.inventory,
        profile=profile,
        machine=find_machine(options.gpu, options.vram, options.ram, options.headroom, options.pinned_max),
        workload=workload_of(options, profile, inventory.pipeline),
        choices=choices,
        role=role,
        attention=options.attention,
        cache=cache,
        loras=adapted.loras,
        adapters=adapted.adapters,
        versions=installed_versions(RECORDED),
    )
    return at_typed_level(question)


def plan_traced(question: Question, options: PlanOptions, trace_it: TraceIt) -> PlanDocument:
    """The search's plan; a model that can't be dry-run is planned by its weights, and the plan says so."""
    return plan_by_search(traced_question(question, options, trace_it))


def traced_question(
    question: Question, options: PlanOptions, trace_it: TraceIt, link_bytes_per_s: float | None = None
) -> SearchQuestion:
    """The question with its trace, and with what is known of the device's speed."""
    gpu = question.machine.gpu
    backend = "emulated" if gpu.device_kind == "emulated" else gpu.platform
    measured = known_of(gpu, question.inventory, link_bytes_per_s) if options.measured else NOTHING_KNOWN
    profile = load_gpu_profiles().get(gpu.profile or "")
    computes = profile if backend == "cuda" else None
    model = CostModel(
        rates=_throttled(rates_of(gpu, profile, measured.timed, measured.fitted), link_bytes_per_s),
        backend=backend,
        kappas=measured.kappas,
        single_dtypes=single_dtypes_of(profile),
        attention=attention_shares(computes),
        denoiser_attention=attention_shares(computes, question.attention),
    )
    warnings: tuple[str, ...] = ()
    for note in measured.notes:
        _log.info("%s", note)
    _log.debug("rates: %s", model.rates)
    try:
        trace = trace_it(question)
        warnings = check_tensors(question.inventory, trace)
    except DryRunError as error:
        _log.info("planned by weights alone: %s", error)
        components = question.inventory.components
        trace, model = untraced(components, question.workload, str(error)), guessing(model, components)
    return SearchQuestion(
        question=replace(question, inventory=in_order_of_use(with_unfiled(question.inventory, trace), trace)),
        trace=with_work(trace, question.inventory.components, question.adapters),
        model=model,
        aim=aim_of(options),
        generations=generation_count(options),
        notes=(*warnings, *measured.notes, *_slow_dtypes(trace, model)),
        at_leaf_level=_finer(question, options, trace_it, link_bytes_per_s),
    )


def _finer(
    question: Question, options: PlanOptions, trace_it: TraceIt, link_bytes_per_s: float | None
) -> Callable[[Question], SearchQuestion | None]:
    """Of questions about the same model: with what may stream below its blocks doing so, traced once.

    None where nothing does, or where it can't be traced.
    """

    @functools.cache
    def trace_of(names: frozenset[str]) -> Trace:
        return trace_it(replace(question, inventory=at_leaf_level(question.inventory, names)))

    def finer(asked: Question) -> SearchQuestion | None:
        names = open_to_leaf_level(replace(asked, inventory=question.inventory))
        if not names:
            return None
        inventory = at_leaf_level(question.inventory, names)
        found = traced_question(
            replace(asked, inventory=inventory), options, lambda _: trace_of(names), link_bytes_per_s
        )
        return None if found.trace.no_dry_run is not None else found

    return finer


def _slow_dtypes(trace: Trace, model: CostModel) -> tuple[str, ...]:
    """A warning where most of the work is in a dtype that the card's tensor cores lack."""
    slow = model.single_dtypes - SINGLE_DTYPES
    if not any(use.compute_dtype in slow for use in trace.uses):
        return ()
    return ("this card's tensor cores lack bfloat16, which runs at float32's rate; try --dtype float16.",)


def _throttled(rates: Rates, link_bytes_per_s: float | None) -> Rates:
    """The rates with a link that is known because it is emulated."""
    if link_bytes_per_s is None:
        return rates
    link = Rate(value=link_bytes_per_s, spread=1.0, source="spec", why="the emulated link's limit")
    return rates.changed(dict.fromkeys(LINKS, link))


def _is_text(path: str) -> bool:
    """Whether no byte of the path stayed undecoded."""
    return not any("\ud800" <= character <= "\udfff" for character in path)
