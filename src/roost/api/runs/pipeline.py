"""A checked plan's pipeline: loaded, and held by the plan until it is closed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.api.requests.given_files import planned_loras
from roost.api.requests.run_option_sets import BaseOptions
from roost.api.runs.places import place_of
from roost.api.runs.ready import ReadyPlan, check_plan
from roost.plan import ComponentPlan, PlanDocument, read_plan
from roost.profiles.class_facts import load_class_facts

if TYPE_CHECKING:
    from roost.residency.engine.stages import OnEvent
    from roost.residency.hold.attach import Held
    from roost.residency.run.components import LoadComponent
    from roost.residency.run.loader import OnComponent
    from roost.residency.run.sources.given_files import GivenFiles
    from roost.residency.weights.shared.masters import SharedMasters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """What a worker has from others: components that are ``away``, and the masters that its host shares."""

    away: Mapping[str, ComponentPlan] = field(default_factory=dict)
    shared: SharedMasters | None = None


def open_pipeline(
    ready: ReadyPlan,
    on_component: OnComponent | None = None,
    on_event: OnEvent | None = None,
    load: LoadComponent | None = None,
    among: Among | None = None,
) -> Held:
    """The pipeline of a checked plan, loaded and held; close it, or use it in a ``with``.

    ``load`` makes a component in another way than from its files, with the plan's LoRAs. It is one worker ``among``
    others.
    """
    from roost.residency.device.choice import open_device  # imported here: these bring torch
    from roost.residency.run.loader import Source, load_held
    from roost.residency.run.loras import LoraLoader

    among = among or Among()
    given = given_files(ready)
    if load is None:
        loras = planned_loras(ready.plan)
        load = LoraLoader(ready.plan, loras, given.read, among.away) if loras else given.load
    device = open_device(ready.device_kind, ready.budget_bytes, ready.plan.budget.headroom_bytes)
    try:
        mesh = None if ready.group is None else ready.group.connect(ready.device_kind)
        source = Source(
            load=load,
            class_facts=load_class_facts(),
            given=given,
            away=among.away,
            shared=among.shared,
            mesh=mesh,
        )
        held = load_held(ready.plan, ready.model_dir, device, on_component, on_event, source)
    except BaseException:
        device.close()
        raise
    held.then(device.close)
    _log.info("loaded %s from %s", ready.plan.model.pipeline, ready.model_dir)
    return held


def given_files(ready: ReadyPlan) -> GivenFiles:
    """What reads the components of a checked plan, from files of their own where they have such."""
    from roost.residency.run.sources.given_files import GivenFiles  # imported here: it brings torch

    return GivenFiles(files=ready.inventory.given, class_facts=load_class_facts())


def tie(held: Held) -> None:
    """Keeps the hold alive as long as its pipeline, whose ``roost`` it is until it is closed."""
    attributes = vars(held.pipeline)
    attributes["roost"] = held
    held.then(lambda: attributes.pop("roost", None))


def load_pipeline(
    plan: PlanDocument | str | Path,
    *,
    model: str | None = None,
    tokenizers: str | None = None,
    device: str | None = None,
    force: bool = False,
) -> Any:
    """A diffusers pipeline, ready to call, whose weights live where ``plan`` says.

    ``plan`` is a document or a YAML file's path; ``tokenizers`` is a directory with those of a model known by its name
    whose weights are all files. Raises what ``roost run`` reports: PlanMismatch, NothingFits,
    OutOfMemory, InvalidFile, UsageError.
    """
    document = plan if isinstance(plan, PlanDocument) else read_plan(Path(plan))
    place = place_of(document, BaseOptions(model=model, tokenizers=tokenizers))
    held = open_pipeline(check_plan(document, model=place, device=device, force=force))
    tie(held)
    return held.pipeline
