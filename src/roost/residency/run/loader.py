"""A pipeline from its directory, component by component in the plan's order, each placed right after its load."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from roost.errors import InvalidFile, PlanMismatch
from roost.facts.model import ClassFacts
from roost.pipelines.build import check_installed, left_out
from roost.pipelines.classes import component_class, pipeline_class, weighted_class
from roost.pipelines.internals.of_transformers import closed_to_the_outside
from roost.pipelines.quiet import quiet_libraries, quiet_torch
from roost.plan import ComponentPlan, PlanDocument
from roost.residency.device.interface import Device
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.eviction import HostTurns
from roost.residency.engine.initial_placement import Placer
from roost.residency.engine.stages import OnEvent
from roost.residency.hold.attach import Beside, Held
from roost.residency.hold.away import AwayComponent
from roost.residency.hold.live_modules import check_strategies
from roost.residency.run.components import SAFELY, LoadComponent, first_line, load_component, unloadable
from roost.residency.run.sources import common_memory
from roost.residency.run.sources.given_files import GivenFiles
from roost.residency.run.sources.shards import shard_source, stored_by_model
from roost.residency.run.sources.shells import build_shell, filling
from roost.residency.sharded.component import ShardedComponent
from roost.residency.sharded.load import load_shards
from roost.residency.weights.mapped_masters import Checkpoint
from roost.residency.weights.shared.masters import SharedMasters
from roost.residency.weights.transfers import Transfers
from roost.shell_quoting import shown_path

_log = logging.getLogger(__name__)

OnComponent = Callable[[str], None]


def load_held(
    plan: PlanDocument,
    model_dir: Path,
    device: Device,
    on_component: OnComponent | None = None,
    on_event: OnEvent | None = None,
    source: Source | None = None,
) -> Held:
    """The plan's pipeline, loaded from ``model_dir`` and held; ``on_component`` hears of each one as its load begins.

    Host memory peaks at the weights that stay there, and one resident component or one file; where the plan has turns,
    it follows them, and of what is given back one generation is made. A component that comes late is built without
    weights, unless its files can be mapped. What other processes share with this one is loaded once for all. Raises
    InvalidFile for a directory that can't be loaded, PlanMismatch for one that the plan isn't for, OutOfMemory when the
    resident weights exceed the budget and can't give way.
    """
    source = source or Source()
    check_strategies(plan, {}, shards=source.mesh is not None)
    transfers = Transfers.under(plan, device)
    placer = Placer(transfers)
    components: dict[str, HeldComponent] = {}
    apart: list[ShardedComponent] = []
    with quiet_libraries(), quiet_torch(), ExitStack() as undo:
        undo.callback(transfers.close)
        _check_index(plan, model_dir, source.away)
        found = pipeline_class(plan.model.pipeline)
        for name in plan.load_order:
            if on_component is not None:
                on_component(name)
            if source.mesh is not None and plan.components[name].strategy == "fsdp":
                shards = shard_source(name, plan, model_dir, source)
                apart.append(load_shards(name, plan.components[name], shards, source.mesh, placer, transfers))
                continue
            components[name] = _loaded(name, plan, model_dir, source, transfers)
            undo.callback(components[name].restore)
            placer.place(components[name])
            _log.info("%s: loaded as %s", name, components[name].plan.strategy)
        away = {name: source.handle(name, each, model_dir, device) for name, each in source.away.items()}
        modules = {name: each.module for name, each in components.items()}
        modules |= {each.name: each.module for each in apart}
        modules |= {name: each.module for name, each in away.items()}
        pipeline = assemble(found, model_dir, modules)
        held = Held(pipeline, plan, components, transfers, on_event, Beside(away=away, sharded=apart))
        held.runtime.host_turns = HostTurns(plan.budget.host_turns, components, held.recorder.leave_out)
        undo.pop_all()
    return held


def _loaded(name: str, plan: PlanDocument, model_dir: Path, source: Source, transfers: Transfers) -> HeldComponent:
    placed = plan.components[name]
    checkpoint = _checkpoint(name, plan, model_dir, source)
    with common_memory.meeting(name, plan, model_dir, source, transfers.changes) as share:
        if checkpoint is not None and checkpoint.fill is not None:
            module = source.shell(name, placed, model_dir)
        else:
            module = common_memory.load(share, name, plan, model_dir, source)
        return HeldComponent(name, module, placed, transfers, checkpoint, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where components come from: ``load`` makes them, from the model's files unless it says otherwise.

    ``given`` are the files of those whose weights aren't the model's own, which ``load`` has too. ``class_facts`` say
    which weights keep float32, in modules that are built without weights. ``away`` are components that another process
    has, of which this one gets the shape. Masters in memory are this process's own, unless it has some ``shared`` with
    others. ``mesh`` are the devices of a run's ranks, if there are several.
    """

    load: LoadComponent = load_component
    class_facts: Mapping[str, ClassFacts] = field(default_factory=dict)
    given: GivenFiles = field(default_factory=GivenFiles)
    away: Mapping[str, ComponentPlan] = field(default_factory=dict)
    shared: SharedMasters | None = None
    mesh: DeviceMesh | None = None

    @property
    def only_reads(self) -> bool:
        """Whether every weight is what files have: nothing goes in beside them, and none is made up."""
        return self.load == load_component or (self.load == self.given.load and self.given.only_reads)

    def shell(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """The component built without weights, in memory that nobody touched."""
        if name in self.given:
            return self.given.shell(name, plan, model_dir)
        return build_shell(name, plan, model_dir, self.class_facts)

    def handle(self, name: str, plan: ComponentPlan, model_dir: Path, device: Device) -> AwayComponent:
        """A component that another process has: its module, and nothing of its weights."""
        return AwayComponent(name, self.shell(name, plan, model_dir), plan, device.device)

    def loads_own(self, name: str) -> bool:
        """Whether the component's weights are what the model's files have."""
        return name not in self.given and self.load in (load_component, self.given.load)


def _checkpoint(name: str, plan: PlanDocument, model_dir: Path, source: Source) -> Checkpoint | None:
    """The files of a component some of whose masters stay in them, or come from them late."""
    master = plan.components[name].master
    late = name in plan.budget.late
    if (master is None or not master.mapped) and not late:
        return None
    if name in source.given:
        checkpoint = Checkpoint(source.given.stored(name), late=late, chosen=True)
    else:
        checkpoint = Checkpoint(stored_by_model(name, plan, model_dir), late=late)
    if late and not (source.loads_own(name) and checkpoint.loads_as_stored(plan.components[name])):
        checkpoint.fill = filling(name, plan.components[name], model_dir, source.load)
    return checkpoint


def assemble(found: Any, model_dir: Path, modules: dict[str, torch.nn.Module]) -> Any:
    """The pipeline of class ``found`` around ``modules``; InvalidFile when its other parts can't be loaded."""
    try:
        # The class's own loader: DiffusionPipeline's would load components that are passed as None.
        with closed_to_the_outside():
            without = left_out(found, _read_index(model_dir / "model_index.json"), modules)
            return found.from_pretrained(str(model_dir), trust_remote_code=False, **SAFELY, **without, **modules)
    except InvalidFile:
        raise
    except Exception as error:  # the libraries raise every kind for a broken file
        raise unloadable("pipeline", error) from error


def _check_index(plan: PlanDocument, model_dir: Path, away: Mapping[str, ComponentPlan]) -> None:
    """Refuses an index that names other code, and one whose weights the plan doesn't place."""
    index = _read_index(model_dir / "model_index.json")
    if index.get("_class_name") != plan.model.pipeline:
        raise PlanMismatch(
            f"model_index.json says {index.get('_class_name')!r} and the plan is for {plan.model.pipeline!r}; "
            "make a plan for this model."
        )
    check_installed(index)
    parameters = inspect.signature(pipeline_class(plan.model.pipeline)).parameters.values()
    components = {each.name for each in parameters if each.default is inspect.Parameter.empty}
    for name, entry in index.items():
        if not isinstance(entry, list) or name.startswith("_") or entry[:1] == [None]:
            continue
        if all(isinstance(part, int | float) for part in entry) and name not in components:
            continue  # the pipeline's own setting, such as numbers of layers
        if len(entry) != 2 or not all(isinstance(part, str) for part in entry):
            raise InvalidFile(f"model_index.json: entry {name!r} is {entry!r}, not [library, class]; mend the index.")
        found = component_class(entry[0], entry[1])
        if weighted_class(found) and name not in plan.components and name not in away:
            raise PlanMismatch(f"component {name!r} is in the model but not in the plan; make a plan for this model.")


def _read_index(path: Path) -> dict[str, object]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidFile(
            f"{shown_path(path)} can't be read: {first_line(error)}; check the model directory."
        ) from None
    if not isinstance(index, dict):
        raise InvalidFile(f"{shown_path(path)} is not a model index; check the model directory.")
    return index
