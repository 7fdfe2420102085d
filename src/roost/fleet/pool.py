"""A pool of workers, whatever processes they are: what is asked of them and what they reply, in bytes and text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from roost.errors import DeviceLost, OutOfMemory, RoostError, SaidElsewhere

Kind = Literal["onward", "done", "failed", "lost", "interrupted"]
# A reply's first byte says which of these the rest is.
_TAGS: dict[Kind, bytes] = {"onward": b"O", "done": b"D", "failed": b"F", "lost": b"L", "interrupted": b"I"}
_KINDS = {tag: kind for kind, tag in _TAGS.items()}


class WorkerLost(RoostError):
    """The worker with ``component``, which was called from this one, is gone, or can't go on, and ``why``."""

    def __init__(self, component: str, why: str) -> None:
        super().__init__(f"the worker with {component}, which was called, is lost: {why}")
        self.component, self.why = component, why


def tagged(kind: Kind, content: bytes) -> bytes:
    """A reply as it travels."""
    return _TAGS[kind] + content


def untagged(raw: bytes) -> tuple[Kind, bytes]:
    return _KINDS[raw[:1]], raw[1:]


def failure(error: Exception) -> bytes:
    """The reply of a visit that raised: what a fresh worker may not meet again is a loss, of this one or of the one
    that it called; all else is the request's.
    """
    if isinstance(error, WorkerLost):
        return tagged("interrupted", json.dumps([error.component, error.why]).encode())
    lost = isinstance(error, OutOfMemory | DeviceLost)
    kind = type(error).__name__ if isinstance(error, RoostError) else "RoostError"
    text = str(error) if isinstance(error, RoostError) else f"{type(error).__name__}: {error}"
    return tagged("lost" if lost else "failed", json.dumps([kind, " ".join(text.split())]).encode())


def failure_of(content: bytes) -> RoostError:
    """The error that a reply tells."""
    kind, text = json.loads(content)
    left: list[type[RoostError]] = [RoostError]
    while left:
        found = left.pop()
        if found.__name__ == kind and found not in (SaidElsewhere, WorkerLost):
            return found(text)
        left += found.__subclasses__()
    return RoostError(text)


def interruption_of(content: bytes) -> WorkerLost:
    """The loss that ended a visit to another worker."""
    return WorkerLost(*json.loads(content))


class WorkerServer(Protocol):
    """A worker as others see it. It serves one call at a time; ``progress`` and ``report`` come from another thread."""

    def boot(self, spec: str) -> bytes:
        """Loads what ``spec`` says; its small weights as ``Worker.values`` gives them, or a tagged failure."""

    def take(self, values: bytes) -> None: ...

    def visit(self, task: bytes) -> bytes: ...

    def answer(self, component: str, question: bytes) -> bytes: ...

    def progress(self) -> str: ...

    def report(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """What a visit to a worker came to, tagged."""

    worker: str
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A worker that has loaded, and knows the others' values."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A worker that died or hangs; ``error`` is what its start ended with, where it told."""

    worker: str
    why: str
    error: RoostError | None = None


PoolEvent = Replied | Serving | Gone


class WorkerPool(Protocol):
    """Starts and reaches the workers. ``wait`` returns what happened to them since, and blocks until there is one."""

    def start(self, worker: str, task: bytes) -> None: ...

    def restart(self, worker: str) -> None: ...

    def give_up(self, worker: str) -> None:
        """The worker isn't started again; others don't wait for its values."""

    def wait(self) -> Sequence[PoolEvent]: ...

    def reports(self) -> dict[str, str]:
        """What each worker that is there reports of itself."""
