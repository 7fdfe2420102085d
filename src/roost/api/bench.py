"""Benches: a model or a plan on the GPU that is here, every way to run it timed."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from roost.api.machine import find_machine
from roost.api.models.files.inspect_files import is_weight_file
from roost.api.models.inspect import inspect_model, inspect_planned, profile_of
from roost.api.plans.plan import search_question
from roost.api.plans.plan_files import load_plan
from roost.api.plans.preflight import check_runnable
from roost.api.requests.declared import filled, typed_options
from roost.api.requests.known_values import dtype_of
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.python_options import given_names, options_of
from roost.api.requests.request import ONE_CALL
from roost.api.requests.run_option_sets import BenchOptions
from roost.api.requests.weight_files import files_of
from roost.api.runs.ready import check_plan
from roost.api.trials import run_trials
from roost.errors import UsageError
from roost.option_spelling import given, option
from roost.plan import PlanDocument
from roost.plan.loras import lora_files
from roost.planner.search_question import SearchQuestion
from roost.tune.results.records import BenchResults
from roost.tune.trials.candidates import list_candidates, parse_strategies
from roost.tune.trials.peers import PEERS
from roost.tune.trials.recorded import BenchWatcher
from roost.units import parse_bytes

GIVEN_PLAN = "this plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTarget:
    """The question, and the plans that take part beside what is made of it, by name."""

    asked: SearchQuestion
    given: Mapping[str, PlanDocument]
    link_bytes_per_s: float | None


def bench(target: str | Path, watcher: BenchWatcher | None = None, **options: object) -> BenchResults:
    """Times each way to run a model on the GPU that is here, each trial in a process of its own.

    ``target`` is a model's directory, hub id or name, or a plan's file. ``options`` are those of ``roost bench``, with
    underscores: ``strategies`` (a text with commas, or a list), ``rounds``, ``trial_steps``, ``max_seconds`` (of all of
    it, 300), ``against``, ``fresh``; ``gpu``, ``vram``, ``ram``, ``headroom`` (bytes, or texts like ``24GiB``);
    ``size``, ``frames``, ``steps``, ``batch``, ``guidance``, ``strength``; ``variant``, ``dtype``; ``link_speed`` of an
    emulated GPU, and ``model``, where a plan's model is now. ``watcher`` hears of the trials; derive it from
    ``roost.BenchWatcher``.

    Returns a row for each candidate, the race's standings, and the name of the winner, None when no trial ran to its
    end; ``roost.results_document`` makes of it what ``roost bench --json`` prints. Raises UsageError for what can't be
    measured here, PlanMismatch for a plan of another model or GPU, InvalidFile for files that can't be read, and
    RoostError when another bench is on the GPU.

        results = roost.bench("./FLUX.1-dev", vram="12GiB", strategies=["resident", "search"])
        print(results.winner)
    """
    return bench_model(str(target), options_of(BenchOptions, options, "bench"), given_names(options), watcher)


def bench_model(
    target: str, options: BenchOptions, typed: Collection[str], watcher: BenchWatcher | None = None
) -> BenchResults:
    """The typed spelling of ``bench``; ``typed`` are the names of the options that were given."""
    strategies = parse_strategies(options.strategies)
    _check(target, options, typed)
    found = bench_target(target, options)
    entrants = list_candidates(found.asked, strategies, found.given, PEERS if options.against else ())
    return run_trials(found.asked, entrants, options, watcher, found.link_bytes_per_s)


def _check(target: str, options: BenchOptions, typed: Collection[str]) -> None:
    """Refuses what no bench takes, and for a plan's file what the plan has decided."""
    if options.against not in (None, "diffusers"):
        raise UsageError(f"{given('against', options.against or '')} is not known; diffusers is.")
    counts = (
        ("rounds", options.rounds),
        ("trial_steps", options.trial_steps),
        ("max_seconds", options.max_seconds),
    )
    for name, value in counts:
        if not 1 <= value < 2**31:
            raise UsageError(f"{option(name, value)} is out of range; give a number from 1.")
    decided = typed_options(_plan_options(options), typed)
    if is_plan_file(target) and decided:
        raise UsageError(f"{', '.join(decided)}: the plan has decided that; leave it out, or give the model instead.")
    if not is_plan_file(target) and options.model is not None:
        raise UsageError(f"{option('model')}: says where a plan's model is, and this is a model; leave it out.")


def _plan_options(options: BenchOptions) -> PlanOptions:
    return filled(PlanOptions, vars(options))


def bench_target(target: str, options: BenchOptions) -> BenchTarget:
    """What to measure: a model under ``options``, or a plan's model under what the plan was made for.

    A model known by its name is measured with random weights.

    Raises UsageError for what can't be measured here, PlanMismatch for a plan of another model or GPU.
    """
    link_speed, asked_options = options.link_speed, _plan_options(options)
    link_bytes_per_s = parse_link_speed(link_speed)
    given: dict[str, PlanDocument] = {}
    model = target
    if is_plan_file(target):
        ready = check_plan(load_plan(target), model=options.model, request=ONE_CALL)
        given[GIVEN_PLAN] = ready.plan
        model, asked_options = str(ready.model_dir), _options_of(ready.plan, ready.model_dir)
    _check_measurable(model, asked_options, link_speed)
    asked = replace(search_question(model, asked_options, link_bytes_per_s), gives_back=True)
    return BenchTarget(asked=asked, given=given, link_bytes_per_s=link_bytes_per_s)


def _check_measurable(model: str, options: PlanOptions, link_speed: str | None) -> None:
    """Refuses before the slow dry run what trials can't be made of."""
    inventory = inspect_model(model, variant=options.variant, dtype=dtype_of(options), files=files_of(options))
    check_runnable(inventory, profile_of(inventory))
    gpu = find_machine(options.gpu, options.vram, options.ram, options.headroom, options.pinned_max).gpu
    if gpu.named:
        raise UsageError(
            f"{option('gpu', gpu.profile)}: trials run on the GPU that is here; leave it out, or try them on the CPU"
            f" with {option('gpu', 'emulated')} and {option('vram', '12GiB')}."
        )
    if link_speed is not None and gpu.device_kind != "emulated":
        raise UsageError(f"{option('link_speed', link_speed)}: only an emulated GPU has one to choose; leave it out.")


def is_plan_file(target: str) -> bool:
    """Whether the argument names a plan's file rather than a model."""
    named = Path(target).suffix.lower() in (".yaml", ".yml")
    return named or (os.path.isfile(target) and not is_weight_file(str(target)))


def parse_link_speed(text: str | None) -> float | None:
    """``2GB/s`` or ``2GB`` as bytes per second; UsageError for anything else."""
    if text is None:
        return None
    speed = parse_bytes(text.strip().removesuffix("/s"), "link_speed")
    if not speed:
        raise UsageError(f"{option('link_speed', '0')} copies nothing; give bytes per second, like 2GB/s.")
    return float(speed)


def _options_of(plan: PlanDocument, model_dir: Path) -> PlanOptions:
    """The options that ask for what ``plan`` was made for."""
    workload, gpu, host = plan.workload, plan.machine.gpu, plan.machine.host
    emulated = gpu.device_kind == "emulated"
    return PlanOptions(
        gpu="emulated" if emulated else None,
        vram=gpu.free_bytes if emulated or gpu.vram_typed else None,
        ram=host.there_bytes if host.ram_typed else None,
        headroom=plan.budget.headroom_bytes,
        size=(workload.width, workload.height),
        frames=workload.frames,
        steps=workload.steps,
        batch=workload.batch,
        guidance=workload.guidance,
        strength=workload.strength,
        variant=plan.model.variant,
        dtype=_typed_dtype(plan, model_dir),
        attention=plan.attention,
        files={name: str(path) for name, path in plan.given_files.items()},
        cache=None if plan.cache is None else plan.cache.text,
        lora=_typed_loras(plan),
        fuse=next((each.fuse for each in lora_files(plan.loras)), None),
    )


def _typed_loras(plan: PlanDocument) -> list[str]:
    """The ``--lora`` of the plan's LoRAs."""
    return [
        f"{f'{each.component}=' if each.component else ''}{each.path}:{each.scale!r}" for each in lora_files(plan.loras)
    ]


def _typed_dtype(plan: PlanDocument, model_dir: Path) -> str | None:
    """The ``--dtype`` that the plan was made with; None when its components load as they would without."""
    untyped = inspect_planned(plan, model_dir)
    planned = {name: each.load_dtype for name, each in plan.components.items()}
    if all(each.load_dtype == planned.get(each.name, each.load_dtype) for each in untyped.components):
        return None
    return next((each.load_dtype for each in plan.components.values() if each.kind == "dit"), None)
