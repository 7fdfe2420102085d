"""One worker: a device, the components that its plan gives it, and what it does for the requests that come by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from roost.fleet.answers import Answer, Answers, Asked, unsendable
from roost.fleet.attributes import as_it_was
from roost.fleet.codec import packed, unpacked
from roost.fleet.pool import WorkerLost, failure_of, untagged
from roost.fleet.tasks import Answered, Onward, Task
from roost.fleet.visits import Elsewhere, Visit
from roost.pipelines.described_values import Unkeepable
from roost.residency.hold.attach import Held
from roost.residency.hold.away import dtype_of, small_values
from roost.residency.run.generate import Generation, calling, generate
from roost.residency.run.kept.answers import put_random_state, random_state
from roost.residency.run.kept.files import KeptFiles
from roost.residency.run.kept.keeper import Resumed, generate_keeping

# Has the worker that owns a component answer a call of it: the component's name and the call, for a tagged answer.
Send = Callable[[str, bytes], bytes]


class Worker:
    """Serves one request at a time. ``folder`` is where this host's workers keep what a request has got so far.

    Another worker of the host goes on from a step that was kept there.
    """

    def __init__(self, held: Held, folder: Path, send: Send | None = None) -> None:
        self.held = held
        self._folder, self._send = folder, send
        self._device = held.device.device
        self._answered: list[Answered] = []  # by other workers, in the visit that calls them

    def values(self) -> bytes:
        """What the others' pipelines may read of this worker's components: their small weights, by component."""
        return packed({name: small_values(each.module) for name, each in self.held.runtime.components.items()})

    def take(self, values: bytes) -> None:
        """Puts another worker's ``values`` where this one's pipeline may read them."""
        for name, weights in unpacked(values, self._device).items():
            if name in self.held.away:
                self.held.away[name].take({each: tensor.to(self._device) for each, tensor in weights.items()})

    def visit(self, task: Task) -> Onward | tuple[Generation, Resumed | None]:
        """Takes the request as far as this worker's components do. Raises what ``generate`` does."""
        files = self._files(task)
        answers = Answers(self._device, task.answers)
        visit = Visit(self.held, answers, self._ask if task.through else None)
        with self._nan_components() as nan, visit.watching():
            try:
                if task.through:
                    with visit.attempt():
                        return self._through(task), None
                made = generate_keeping(self.held, task.call, files, resume=True, attempt=visit.attempt)
            except Elsewhere as needed:
                return self._onward(task, needed, visit, answers, files, nan)
        files.remove()
        return made

    def _through(self, task: Task) -> Generation:
        self._answered.clear()
        made = generate(self.held, task.call)
        stages = (*made.stages, *(stage for each in self._answered for stage in each.stages))
        nan = (*made.nan_components, *(name for each in self._answered for name in each.nan_components))
        return replace(made, stages=stages, nan_components=nan)

    def answer(self, raw: bytes) -> bytes:
        """The answer to one call of a component of this worker, made from where its request is; packed."""
        found = unpacked(raw, self._device, iter(map(torch.Generator, repeat("cpu"))))
        name, method, args, kwargs = (found[each] for each in ("part", "method", "args", "kwargs"))
        module = self.held.runtime.components[name].module
        dtype, held = found["dtype"], self.held
        with as_it_was(self.held), self._nan_components() as nan:
            with calling(held.pipeline, held.recorder, held.device, held.runtime.end_call, 0):
                if dtype not in (None, dtype_of(module)):
                    module.to(dtype)
                put_random_state([each.cpu() for each in found["random"]], self._device)
                result = getattr(module, method)(*args, **kwargs)
                answer = Answer.to(Asked(name, method, ""), result, [args, kwargs], self._device)
            return Answered(payload=answer.payload, stages=held.stages, nan_components=nan).pack()

    def _ask(self, name: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        assert self._send is not None, "a task that calls through comes where it can"
        away = self.held.away.get(name) or self.held.runtime.components[name]
        if self.held.runtime.observer is not None:
            self.held.runtime.observer(name, method, args, dict(kwargs))
        question = {
            "part": name,
            "method": method,
            "args": list(args),
            "kwargs": dict(kwargs),
            "dtype": dtype_of(away.module),
            "random": random_state(self._device),
        }
        try:
            raw = packed(question)
        except Unkeepable as error:
            raise unsendable(name, method, error) from None
        kind, content = untagged(self._send(name, raw))
        if kind == "lost":
            raise WorkerLost(name, str(failure_of(content)))
        if kind != "done":
            raise failure_of(content)
        answered = Answered.unpack(content)
        self._answered.append(answered)
        return Answer(Asked(name, method, ""), answered.payload).open([args, kwargs], self._device)

    def _onward(
        self, task: Task, needed: Elsewhere, visit: Visit, answers: Answers, files: KeptFiles, nan: list[str]
    ) -> Onward:
        """Where the request goes from here. What was denoised goes along only as latents to decode."""
        latents = files.path("decode").read_bytes() if files.has("decode") else b""
        files.remove()  # the request takes along what it needs
        went_back = bool(task.latents) and needed.kind == "dit"
        through = went_back or (visit.denoised and not (latents and needed.decodes))
        return Onward(
            component=needed.component,
            decodes=needed.decodes,
            through=through,
            answers=answers.all,
            latents=b"" if through else latents,
            stages=self.held.stages,
            nan_components=nan,
        )

    def _files(self, task: Task) -> KeptFiles:
        """Where the request stands between visits. Of what can't be used there, no user is told: it is made anew."""
        name = hashlib.sha256(task.key.encode()).hexdigest()[:32]
        files = KeptFiles(self._folder / name, key=task.key, shown=task.shown, say=lambda _: None)
        if task.latents:
            files.path("decode").write_bytes(task.latents)
        return files

    @contextmanager
    def _nan_components(self) -> Iterator[list[str]]:
        """The components that gave NaN in a visit that goes on elsewhere."""
        found: list[str] = []
        before, self.held.runtime.on_nan = self.held.runtime.on_nan, found.extend
        try:
            yield found
        finally:
            self.held.runtime.on_nan = before
