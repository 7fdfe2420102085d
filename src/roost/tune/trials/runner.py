"""Running one trial after another: a child each, kept loaded between rounds where memory is ample."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from roost.allocator_settings import allocator_settings
from roost.facts.machine import PROCESS_BYTES, DeviceKind, Machine
from roost.plan.results import TrialResult
from roost.planner.search_question import SearchQuestion
from roost.tune.results.figures import completed
from roost.tune.results.records import Candidate
from roost.tune.trials.candidates import Field
from roost.tune.trials.messages import Message, StepTook, Timed, TrialRequest, encode_request
from roost.tune.trials.process import COMMAND, Child, OnMessage, Patience, TrialEnded, child_environment
from roost.units import format_measured

# A first generation finds the order of blocks, and on a GPU it loads kernels; this many steps are enough for both.
_WARM_UP_STEPS = 2
_LONG_STEP_S = 5.0
# Loading the libraries, by the clock of machines with a warm page cache.
_START_S = 10.0
# How fast this CPU computes nobody predicts.
_EMULATED_DEADLINE_S = 600.0
_LEAST_DEADLINE_S = 120.0
# Something else on the machine may hold one step up, but not as much as this.
_BY_FAR = 3.0
_PROMPT = "a red fox in the snow"
_OUT_OF_TURN = "the trial said that it had loaded when it was to measure"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWorld:
    """What all trials of a bench have in common.

    ``call`` are the fields of ``GenerationRequest``, with the number of steps that a trial runs; ``steps`` are the
    workload's. ``host_bytes`` is what a trial may take of host memory beside the libraries' own, None as much as there
    is. ``keep`` leaves children loaded between rounds. ``deadline_s`` is for loading, and for a generation.
    """

    model_dir: Path
    device_kind: DeviceKind
    budget_bytes: int
    host_bytes: int | None
    call: Mapping[str, object]
    steps: int
    trial_steps: int
    gpu_uuid: str | None
    link_bytes_per_s: float | None
    warm_up: bool
    keep: bool
    deadline_s: float
    random_weights: bool  # the directory has only configs


def world_of(
    asked: SearchQuestion, entrants: Field, model_dir: Path, trial_steps: int, link_bytes_per_s: float | None = None
) -> TrialWorld:
    """How the field's trials are run; of the workload's steps, each runs at most ``trial_steps``.

    ``model_dir`` has the model's files; of a model known by its name, its configs.
    """
    question = asked.question
    workload, emulated = question.workload, question.machine.gpu.device_kind == "emulated"
    steps = min(workload.steps, math.ceil(trial_steps / (workload.strength or 1)))
    ran = replace(workload, steps=steps)
    plans = [each.plan for each in (entrants.plain, *entrants.racing) if each is not None and each.plan is not None]
    predicted = [plan.predicted for plan in plans if plan.predicted is not None]
    slowest_s = max((each.load_s.high + each.next_s.high for each in predicted), default=0.0)
    step_s = min((each.step_s.mid for each in predicted), default=0.0)
    loaded_bytes = (len(entrants.racing) + 1) * (PROCESS_BYTES["emulated"] + 2 * question.inventory.load_bytes)
    return TrialWorld(
        model_dir=model_dir,
        device_kind=question.machine.gpu.device_kind,
        budget_bytes=question.machine.budget_bytes,
        host_bytes=_host_bytes(question.machine),
        call={
            "prompt": _PROMPT,
            "guidance_argument": question.profile.guidance_argument,
            **asdict(ran),
        },
        steps=workload.steps_run,
        trial_steps=ran.steps_run,
        gpu_uuid=question.machine.gpu.uuid,
        link_bytes_per_s=link_bytes_per_s,
        # What a long step gains by being warm is less than what warming up costs.
        warm_up=emulated or step_s < _LONG_STEP_S,
        keep=emulated and loaded_bytes < question.machine.host.available_bytes / 2,
        deadline_s=_EMULATED_DEADLINE_S if emulated else _LEAST_DEADLINE_S + 5 * slowest_s,
        random_weights=question.inventory.source == "name",
    )


class Trials:
    """Runs trials; a context manager that ends every child. ``command`` stands in for the real child's in tests."""

    def __init__(self, world: TrialWorld, command: Sequence[str] = COMMAND) -> None:
        self.world = world
        self._command = command
        self._kept: dict[str, Child] = {}

    def run(
        self,
        candidate: Candidate,
        abort_after_step_s: float | None = None,
        on_message: OnMessage | None = None,
        *,
        bound: bool = True,
    ) -> TrialResult:
        """One trial: whatever becomes of the child, a result with its reason. Without ``bound`` no budget holds."""
        child = self._kept.pop(candidate.name, None)
        patience = Patience(deadline_s=self.world.deadline_s)
        keep = False
        try:
            if child is None:
                child = Child(encode_request(self._request(candidate, bound)), self._environment(), self._command)
                child.ask("", patience, on_message)
            answer = child.ask("measure", patience, _watching(abort_after_step_s, on_message))
            keep = self.world.keep and bound and not runs_once(candidate)
        except TrialEnded as ended:
            return TrialResult(status=ended.status, reason=str(ended))
        finally:
            if child is not None and not keep:
                child.close()
        if keep:
            self._kept[candidate.name] = child
        if not isinstance(answer, Timed):
            return TrialResult(status="crashed", reason=_OUT_OF_TURN)
        return completed(answer.result, self.world.steps, self.world.trial_steps)

    def keep_only(self, names: Container[str]) -> None:
        """Ends the children of candidates that don't run again."""
        for name in [each for each in self._kept if each not in names]:
            self._kept.pop(name).close()

    def close(self) -> None:
        """Ends every child."""
        self.keep_only(())

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, candidate: Candidate, bound: bool) -> TrialRequest:
        assert candidate.plan is not None, "peers too have a plan: it says what to load"
        world = self.world
        warms_up = world.warm_up and not runs_once(candidate)
        return TrialRequest(
            plan=candidate.plan,
            peer=candidate.peer,
            model_dir=world.model_dir.absolute(),
            device_kind=world.device_kind,
            budget_bytes=world.budget_bytes if bound else None,
            host_bytes=world.host_bytes if bound else None,
            link_bytes_per_s=world.link_bytes_per_s,
            random_weights=world.random_weights,
            call=world.call,
            warm_up_steps=min(_WARM_UP_STEPS, world.trial_steps) if warms_up else None,
        )

    def _environment(self) -> dict[str, str]:
        """The child sees one GPU, by its UUID, or none; and no network."""
        gpu = "" if self.world.device_kind == "emulated" else self.world.gpu_uuid
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        inherited = child_environment(os.environ, self.world.model_dir)
        inherited |= allocator_settings(inherited)
        return {**inherited, **visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "HF_HUB_OFFLINE": "1"}


def runs_once(candidate: Candidate) -> bool:
    """Whether a process of it makes one generation: its plan gives back host memory that a second would need."""
    return candidate.peer is None and candidate.plan is not None and bool(candidate.plan.budget.host_turns)


def expected_s(candidate: Candidate, world: TrialWorld) -> float:
    """Seconds of a trial, by the plan's prediction."""
    predicted = candidate.plan.predicted if candidate.plan else None
    if predicted is None:
        return _START_S
    if runs_once(candidate):
        left_out_s = (world.steps - world.trial_steps) * predicted.step_s.mid
        return _START_S + predicted.first_total_s.mid - left_out_s
    beside_s = predicted.next_s.mid - world.steps * predicted.step_s.mid
    generation_s = beside_s + world.trial_steps * predicted.step_s.mid
    return _START_S + predicted.load_s.mid + (2 if world.warm_up else 1) * generation_s


def _host_bytes(machine: Machine) -> int | None:
    """What was typed less the system's share; and an emulated device's memory, which no plan counts as the host's."""
    if not machine.host.ram_typed:
        return None  # the system's own limits hold
    emulated = machine.gpu.device_kind == "emulated"
    host = machine.host
    return host.available_bytes + host.process_bytes + (machine.budget_bytes if emulated else 0)


def _watching(abort_after_step_s: float | None, on_message: OnMessage | None) -> OnMessage:
    """Passes messages on, and ends the trial at the second step that is too long, or the first by far."""
    too_long = 0

    def watch(message: Message) -> None:
        nonlocal too_long
        if on_message is not None:
            on_message(message)
        if abort_after_step_s is None or not isinstance(message, StepTook):
            return
        seconds = message.seconds
        too_long += seconds > abort_after_step_s
        if too_long == 2 or seconds > _BY_FAR * abort_after_step_s:
            took, limit = format_measured(seconds), format_measured(abort_after_step_s, like=seconds)
            raise TrialEnded("eliminated", f"a step took {took}, more than {limit}")

    return watch
