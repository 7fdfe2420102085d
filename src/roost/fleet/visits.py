"""One request's visit to one worker: the pipeline's call, as far as this worker's components take it.

The pipeline's own code runs on every worker, unchanged. What it asks of components that are elsewhere was answered
there and came along; where it asks for more, the visit ends, and the request travels on with all that it has got. So
whatever a family calls, in whichever order, is called with the same values and the same random state as in one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from roost.errors import RoostError
from roost.facts.model import Kind
from roost.fleet.answers import Answers, Asked
from roost.fleet.attributes import as_it_was, attributes_of, change, changed_since
from roost.pipelines.described_values import Unkeepable, described
from roost.pipelines.entries import wrap_entries
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.hold.attach import Held
from roost.residency.run.nesting import Nesting

# A pipeline's method that makes of its encoders' large results the small ones that it goes on with.
_ENCODES = "encode_prompt"
_PIPELINE = "pipeline"
_DECODES = "decode"  # the stage, and in the names of VAEs' methods

Call = Callable[..., Any]
Arguments = tuple[Any, ...]

# A call of a component that is elsewhere, made there at once: its name, method, arguments.
Ask = Callable[[str, str, Arguments, Mapping[str, Any]], Any]


class Elsewhere(BaseException):
    """Ends a visit where the pipeline needs ``component``, of a VAE maybe to decode.

    Not an Exception: a pipeline's own ``except`` must not take it.
    """

    def __init__(self, component: str, kind: Kind, method: str) -> None:
        super().__init__(component)
        self.component, self.kind = component, kind
        self.decodes = kind == "vae" and _DECODES in method


class Visit:
    """A request's calls on the worker that has ``held`` its components.

    Where its role doesn't decode, it has a VAE for encoding alone. ``denoised`` is whether a denoiser has run. With
    ``ask``, components elsewhere are called from here, and nothing ends before its time.
    """

    def __init__(self, held: Held, answers: Answers, ask: Ask | None) -> None:
        self.denoised = False
        self._decodes = _DECODES in held.plan.role.stages
        self._held, self._answers, self._ask = held, answers, ask
        self._within = Nesting()  # calls of components of this worker's own

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around each call of the pipeline: it meets the answers from the first one on, as if it had never run."""
        self.denoised, self._answers.met = False, 0
        with as_it_was(self._held):
            yield

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches every call that the pipeline makes inside the context."""
        with ExitStack() as undo:
            for name, component in self._held.runtime.components.items():
                kind = component.planned.kind
                around = functools.partial(self._denoise if kind == "dit" else self._call, name, kind)
                undo.callback(wrap_entries(component.module, around))
            for name, away in self._held.away.items():
                undo.callback(wrap_entries(away.module, functools.partial(self._call_away, name, away.planned.kind)))
            encode = getattr(self._held.pipeline, _ENCODES, None)
            if callable(encode):
                set_attribute(self._held.pipeline, _ENCODES, functools.partial(self._encode, encode), undo)
            yield

    def _denoise(self, _: str, __: Kind, ___: str, call: Call, args: Arguments, kwargs: Any) -> Any:
        self.denoised = True
        with self._within:
            return call(*args, **kwargs)

    def _call(self, name: str, kind: Kind, method: str, call: Call, args: Arguments, kwargs: Any) -> Any:
        if self._within:
            return call(*args, **kwargs)
        if kind == "vae" and _DECODES in method and not self._decodes:
            return self._call_away(name, kind, method, call, args, kwargs)
        if self._answers.left:
            return self._answers.give(Asked.of(name, method, [args, kwargs]), [args, kwargs])
        # Before the call, which may edit what it is given.
        kept = not (self.denoised or self._ask is not None or _DECODES in method)
        asked = Asked.of(name, method, [args, kwargs]) if kept else None
        with self._within:
            result = call(*args, **kwargs)
        if asked is not None:
            self._answers.keep(asked, result, [args, kwargs])
        return result

    def _call_away(self, name: str, kind: Kind, method: str, _: Call, args: Arguments, kwargs: Any) -> Any:
        if self._answers.left:
            return self._answers.give(Asked.of(name, method, [args, kwargs]), [args, kwargs])
        if self._ask is None:
            raise Elsewhere(name, kind, method)
        return self._ask(name, method, args, kwargs)

    def _encode(self, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of the pipeline's method: its result travels, and not the larger ones of the encoders in it.

        What else it changes, such as a tokenizer's settings, goes along.
        """
        if self._within or (not self._answers.left and (self.denoised or self._ask is not None)):
            return encode(*args, **kwargs)
        try:
            asked = Asked.of(_PIPELINE, _ENCODES, [args, kwargs])
        except RoostError:  # what only this pipeline can be given; its encoders may be given something plainer
            return encode(*args, **kwargs)
        pipeline = self._held.pipeline
        if self._answers.is_next(asked):
            result, changes = self._answers.give(asked, [args, kwargs])
            change(pipeline, changes)
            return result
        first, anew, before = self._answers.met, not self._answers.left, attributes_of(pipeline)
        result = encode(*args, **kwargs)
        made = (result, changed_since(before, pipeline))
        if anew and made[1] is not None and _is_plain(made):
            self._answers.keep(asked, made, [args, kwargs], first)
        return result


def _is_plain(result: Any) -> bool:
    try:
        described(result, lambda *_: None)
    except Unkeepable:
        return False
    return True
