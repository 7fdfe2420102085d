"""The state of a generation between two of its steps: kept now and then, and put back by the step callback."""

from __future__ import annotations

import hashlib
import inspect
import time
import types
from collections.abc import Mapping
from typing import Any

import torch

from roost.pipelines.described_values import Unkeepable, described, generators_in, rebuilt
from roost.pipelines.internals.of_diffusers import REGISTRY
from roost.pipelines.step_loops import CALLBACK, StepLoop, step_loop
from roost.residency.hold.attach import Held
from roost.residency.run.calls import accepts
from roost.residency.run.kept.answers import Answers, NotExact, put_random_state, random_state
from roost.residency.run.kept.files import Kept, KeptFiles
from roost.residency.run.kept.values import KeptTensors
from roost.residency.run.texts_ahead import comparable

EVERY_S = 180.0  # what a failure may cost
_TENSOR_INPUTS = "callback_on_step_end_tensor_inputs"
_CONFIG = "_internal_dict"  # of diffusers' ConfigMixin: nothing changes it
_NO_STATE = (torch.nn.Module, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)


class Steps:
    """Keeps a generation's steps in ``files``; with some ``kept``, puts those back first.

    ``live`` is whether denoisers run: not before what was kept, of either stage, is put back. ``done`` counts the
    steps; None for a pipeline that doesn't tell. Where a step can't be kept exactly, that is said when the first one is
    due.
    """

    def __init__(self, held: Held, files: KeptFiles, answers: Answers, kept: Kept | None) -> None:
        self.live = kept is None
        self.done: int | None = None
        self._pipeline, self._device = held.pipeline, held.device.device
        self._files, self._answers, self._kept = files, answers, kept
        self._loop, self._why_not = _loop_of(held)
        self._kept_s = time.monotonic()

    def arguments(self) -> dict[str, Any]:
        """What the pipeline's call is given for it."""
        if self._loop is None:
            return {}
        more: dict[str, Any] = {_TENSOR_INPUTS: []} if accepts(type(self._pipeline), _TENSOR_INPUTS) else {}
        return {CALLBACK: self._at_step_end, **more}

    def after_call(self) -> None:
        """After a denoiser's call: says once why no step is kept."""
        if self._why_not is not None and self._is_due():
            self._files.say(f"steps are not kept: {self._why_not}; after a failure they are made again.")
            self._kept_s = float("inf")

    def _is_due(self) -> bool:
        return time.monotonic() - self._kept_s >= EVERY_S

    def _at_step_end(self, pipeline: Any, _step: int, _timestep: Any, _values: Any) -> dict[str, Any]:
        self.done = (self.done or 0) + 1
        frame = inspect.currentframe()
        caller = None if frame is None else frame.f_back
        if not self.live:
            return self._maybe_put_back(caller)
        # Behind the last step nothing surely overwrites what that step left.
        if self._is_due() and self._why_not is None and self.done < getattr(pipeline, "num_timesteps", 0):
            self._keep(caller)
        return {}

    def _keep(self, frame: types.FrameType | None) -> None:
        assert self._loop is not None
        tensors = KeptTensors(self._device)
        try:
            if self._answers.why_not is not None:
                raise Unkeepable(self._answers.why_not)
            if frame is None or frame.f_code is not self._loop.code:
                raise Unkeepable("loop in another call than the pipeline's")
            state = self._state(self._loop, _locals_of(frame), tensors)
        except Unkeepable as error:
            self._why_not = f"the pipeline holds a {error}"
            return
        if self._files.write(Kept(stage="denoise", step=self.done, state=state, tensors=tensors.tensors)):
            self._kept_s = time.monotonic()
        else:
            self._kept_s = float("inf")

    def _state(self, loop: StepLoop, values: Mapping[str, Any], tensors: KeptTensors) -> dict[str, Any]:
        taken = {name: values[local] for name, local in loop.taken.items() if local in values}
        return {
            "taken": described(taken, tensors.put, "step"),
            "parts": {
                name: described(_state_of(part), tensors.put, name) for name, part in _parts(self._pipeline).items()
            },
            "generators": described(list(generators_in(_outside(loop, values))), tensors.put, "generator"),
            "random": described(random_state(self._device), tensors.put, "random"),
            "carried": _carried(loop, values),
            "same": self._same(loop, values),
            "answers": self._answers.document(),
        }

    def _same(self, loop: StepLoop, values: Mapping[str, Any]) -> dict[str, str]:
        """A hash of each value that a generation which goes on must come to by itself."""
        own = {id(each) for each in (self._pipeline, *self._pipeline.components.values())}
        found = {
            name: _hash_of(name, each)
            for name, each in _outside(loop, values).items()
            if id(each) not in own and not isinstance(each, _NO_STATE)
        }
        for name, each in vars(self._pipeline).items():
            if isinstance(each, torch.Tensor | bool | int | float | str):
                found[f"self.{name}"] = _hash_of(name, each)
        return found

    def _maybe_put_back(self, frame: types.FrameType | None) -> dict[str, Any]:
        kept = self._kept
        if kept is None or kept.stage != "denoise" or self.done != kept.step:
            return {}
        return self._put_back(kept, _locals_of(frame))

    def _put_back(self, kept: Kept, values: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that zeros were given for; what the callback returns."""
        if self._loop is None or not self._answers.used_up:
            raise NotExact("the pipeline now makes other calls")
        tensors, generators = KeptTensors(self._device, kept.tensors), generators_in(_outside(self._loop, values))
        state = kept.state
        try:
            rebuilt(state["generators"], tensors.get, generators)
            if _carried(self._loop, values) != state["carried"] or self._same(self._loop, values) != state["same"]:
                raise NotExact("the pipeline's call has other values now")
            for name, part in _parts(self._pipeline).items():
                vars(part).update(rebuilt(state["parts"][name], tensors.get))
            put_random_state(rebuilt(state["random"], tensors.get), self._device)
            taken: dict[str, Any] = rebuilt(state["taken"], tensors.get)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, Unkeepable) as error:
            raise NotExact(f"it can't be put back ({type(error).__name__})") from error
        self.live, self._kept_s = True, time.monotonic()
        return taken


def _loop_of(held: Held) -> tuple[StepLoop | None, str | None]:
    """The loop of the pipeline's steps, and why none of them can be kept."""
    kind: type = type(held.pipeline)
    found = step_loop(kind)
    if isinstance(found, str):
        return None, found
    for component in held.runtime.components.values():
        hooks = [name for part in component.attributes if REGISTRY in part for name in part[REGISTRY].hooks]
        if hooks:
            return found, f"{component.name} has diffusers' hook {hooks[0]!r}, whose state can't be kept"
    return found, None


def _locals_of(frame: types.FrameType | None) -> dict[str, Any]:
    if frame is None:
        return {}
    snapshot = frame.f_locals
    values = dict(snapshot)
    if isinstance(snapshot, dict):  # before Python 3.13 the frame would keep it, and with it memory of the device
        snapshot.clear()
    return values


def _outside(loop: StepLoop, values: Mapping[str, Any]) -> dict[str, Any]:
    """The locals that no step assigns, by name."""
    return {name: values[name] for name in sorted(values) if name not in loop.assigned}


def _carried(loop: StepLoop, values: Mapping[str, Any]) -> dict[str, Any]:
    """What steps carry on beside what their callback takes: plain values, which come about without denoisers."""

    def refuse(_tensor: torch.Tensor, name: str) -> Any:
        raise Unkeepable(f"tensor {name!r}, which steps carry on and their callback doesn't take")

    return {name: described(values[name], refuse, name) for name in sorted(loop.carried) if name in values}


def _hash_of(name: str, value: Any) -> str:
    try:
        return hashlib.sha256(repr(comparable(plainer(value))).encode()).hexdigest()
    except Unkeepable as error:
        raise Unkeepable(f"{error} ({name!r})") from None


def plainer(value: Any) -> Any:
    """Generators as their state, and numpy's arrays as tensors."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Mapping):
        return {name: plainer(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return [plainer(each) for each in value]
    if type(value).__module__ == "numpy":
        return torch.from_numpy(value.copy()) if hasattr(value, "shape") and value.shape else value.item()
    return value


def _parts(pipeline: Any) -> dict[str, Any]:
    """The pipeline's components that change as it runs: schedulers, and what guides."""
    return {
        name: each
        for name, each in sorted(pipeline.components.items())
        if not isinstance(each, torch.nn.Module) and type(each).__module__.startswith("diffusers.")
    }


def _state_of(part: Any) -> dict[str, Any]:
    return {name: each for name, each in vars(part).items() if name != _CONFIG and not isinstance(each, _NO_STATE)}
