"""One generation that keeps its latents and steps as it goes, or goes on from what an earlier one kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from roost.errors import RoostError
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.described_values import Unkeepable, described, generators_in, rebuilt
from roost.pipelines.entries import wrap_entries
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.hold.attach import Held
from roost.residency.hold.away import AwayComponent
from roost.residency.run.generate import Generation, generate
from roost.residency.run.kept.answers import Answers, NotExact, put_random_state, random_state
from roost.residency.run.kept.files import Kept, KeptFiles, KeptStage
from roost.residency.run.kept.steps import Steps
from roost.residency.run.kept.values import KeptTensors
from roost.residency.run.nesting import Nesting

Watched = HeldComponent | AwayComponent
Attempt = Callable[[], AbstractContextManager[None]]

_STAGES: tuple[KeptStage, ...] = ("decode", "denoise")  # what saves more comes first
# A pipeline's own way of decoding, by several calls of its VAE where there are many frames.
_DECODES = "decode_latents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What a generation went on from: after which of its steps, None where nobody counted them."""

    stage: KeptStage
    step: int | None


def generate_keeping(
    held: Held, request: GenerationRequest, files: KeptFiles, *, resume: bool, attempt: Attempt = nullcontext
) -> tuple[Generation, Resumed | None]:
    """As ``generate``, with ``files`` kept as it goes; with ``resume`` from the latest that is there and ours.

    What turns out not to give the same bits is told and left, and the generation begins before it. Each time it begins
    it is inside an ``attempt`` of its own.
    """
    for stage in _STAGES if resume else ():
        kept = files.read(stage)
        if kept is None:
            continue
        keeper = Keeper(held, files, kept)
        try:
            with attempt():
                return keeper.generate(request), Resumed(stage=stage, step=kept.step)
        except NotExact as error:
            reason = str(error)
        files.say(f"{files.path(stage).name} is not used, because {reason}.")
    with attempt():
        return Keeper(held, files, None).generate(request), None


class Keeper:
    """Watches one generation's calls into denoisers and VAEs.

    With something ``kept``, denoisers are answered with zeros until the pipeline is where that was kept, and the kept
    values take the place of what it then has: no weights of a denoiser are used before.
    """

    def __init__(self, held: Held, files: KeptFiles, kept: Kept | None) -> None:
        self._held, self._files, self._kept = held, files, kept
        self._device = held.device.device
        self._answers = _read_answers(kept, self._device)
        self._steps = Steps(held, files, self._answers, kept)
        self._within = Nesting()  # calls that are watched as a whole
        self._decodes = 0
        self._denoises = False  # whether a denoiser has been called

    def generate(self, request: GenerationRequest) -> Generation:
        """Raises NotExact where it can't go on from what was kept; else what ``generate`` raises."""
        request = replace(request, more={**request.more, **self._steps.arguments()})
        try:
            with self._watching():
                return generate(self._held, request)
        except Exception as error:
            # What Roost itself says, such as that memory ran out, a generation from the start would meet too.
            if self._steps.live or (isinstance(error, RoostError) and error.__cause__ is None):
                raise
            raise NotExact(f"the pipeline failed on the way to it ({type(error).__name__})") from error

    @contextmanager
    def _watching(self) -> Iterator[None]:
        around_kind = {"dit": self._denoise, "vae": self._maybe_decode, "other": self._beside_denoising}
        with ExitStack() as undo:
            watched: list[Watched] = [*self._held.runtime.components.values()]
            for component in (*watched, *self._held.away.values()):
                around = around_kind.get(component.planned.kind)
                if around is not None:
                    undo.callback(wrap_entries(component.module, functools.partial(around, component)))
            decode = getattr(self._held.pipeline, _DECODES, None)
            if callable(decode):
                whole = functools.partial(self._decode_whole, decode)
                set_attribute(self._held.pipeline, _DECODES, whole, undo)
            yield

    def _denoise(
        self, component: Watched, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if self._within:
            return call(*args, **kwargs)
        if self._decodes:
            self._not_the_last("the pipeline denoises again after it decoded")
        self._denoises = True
        result = self._answered(component.name, method, call, args, kwargs)
        if self._steps.live:
            self._steps.after_call()
        return result

    def _beside_denoising(
        self, component: Watched, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """What is called between a denoiser's calls, such as a ControlNet, works for them alone."""
        if self._within or self._decodes or not self._denoises:
            return call(*args, **kwargs)
        return self._answered(component.name, method, call, args, kwargs)

    def _answered(self, name: str, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        if not self._steps.live:
            return self._answers.give(name, method)
        with self._within:
            result = call(*args, **kwargs)
        self._answers.note(name, method, result)
        return result

    def _maybe_decode(
        self, _: object, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        return self._decode(call, args, kwargs) if method == "decode" else call(*args, **kwargs)

    def _decode_whole(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._decode(call, args, kwargs)

    def _decode(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        if self._within or not len(self._answers):  # part of a call, or before anything was denoised
            return call(*args, **kwargs)
        self._decodes += 1
        if self._decodes > 1:
            self._not_the_last("the pipeline decodes in several calls")
        elif self._kept is not None and self._kept.stage == "decode":
            args, kwargs = self._put_back(self._kept, args, kwargs)
        elif not self._steps.live:
            raise NotExact("the pipeline now makes fewer steps")
        else:
            self._keep(args, kwargs)
        with self._within:
            return call(*args, **kwargs)

    def _not_the_last(self, why: str) -> None:
        """What entered the first decode is not all that the output is made of."""
        self._files.remove("decode")
        if self._kept is not None and self._kept.stage == "decode":
            raise NotExact(why)

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> None:
        tensors = KeptTensors(self._device)
        try:
            if self._answers.why_not is not None:
                raise Unkeepable(self._answers.why_not)
            state = {
                "call": described([*args], tensors.put, "decode"),
                "named": described(dict(kwargs), tensors.put, "decode"),
                "random": described(random_state(self._device), tensors.put, "random"),
                "answers": self._answers.document(),
            }
        except Unkeepable as error:
            self._files.say(f"the latents are not kept: what enters the decode can't be ({error}).")
            return
        self._files.write(Kept(stage="decode", step=self._steps.done, state=state, tensors=tensors.tensors))

    def _put_back(self, kept: Kept, args: tuple[Any, ...], kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self._answers.used_up:
            raise NotExact("the pipeline now makes fewer steps")
        tensors, generators = KeptTensors(self._device, kept.tensors), generators_in([args, kwargs])
        try:
            args = tuple(rebuilt(kept.state["call"], tensors.get, generators))
            kwargs = rebuilt(kept.state["named"], tensors.get, generators)
            put_random_state(rebuilt(kept.state["random"], tensors.get), self._device)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise NotExact(f"it can't be put back ({type(error).__name__})") from error
        self._steps.live = True
        return args, kwargs


def _read_answers(kept: Kept | None, device: Any) -> Answers:
    return Answers(device, None if kept is None else kept.state["answers"])
