"""A worker in a process of Ray's: an actor, whose methods take and give bytes and text alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roost.fleet.pool import WorkerLost, WorkerServer

# A worker's server, given what sends a call of another's component there.
MakeServer = Callable[[Callable[[str, bytes], bytes]], WorkerServer]

# An actor's groups of methods, each with so many threads.
SERVED, LOOKED_AT = "serve", "look"
GROUPS = {SERVED: 1, LOOKED_AT: 1}


class WorkerActor:
    """A server in an actor's process."""

    def __init__(self, make_server: MakeServer) -> None:
        self._owners: Mapping[str, str] = {}
        self._answers = self._calls = False
        self._server = make_server(self._send)

    def boot(self, spec: str) -> bytes:
        return self._server.boot(spec)

    def take(self, values: list[bytes]) -> None:
        for each in values:
            self._server.take(each)

    def visit(self, task: bytes, owners: Mapping[str, str]) -> bytes:
        """``owners`` are the actors' names by component."""
        self._owners = owners
        return self._server.visit(task)

    def answer(self, component: str, question: bytes) -> bytes:
        self._answers = True
        try:
            return self._server.answer(component, question)
        finally:
            self._answers = False

    def progress(self) -> tuple[str, bool, bool]:
        """The server's; whether it answers another worker's call; and whether another is to answer its own."""
        return self._server.progress(), self._answers, self._calls

    def report(self) -> str:
        return self._server.report()

    def _send(self, component: str, question: bytes) -> bytes:
        import ray  # imported here: in an actor it is there

        self._calls = True
        try:
            answer = ray.get_actor(self._owners[component]).answer.options(concurrency_group=SERVED)
            found: bytes = ray.get(answer.remote(component, question))
        except (ray.exceptions.RayError, ValueError) as error:
            raise WorkerLost(component, why_no_reply(ray, error)) from error
        finally:
            self._calls = False
        return found


def why_no_reply(ray: Any, error: Exception) -> str:
    """What kept a call from its reply; looking for an actor that is no more raises no RayError."""
    if isinstance(error, ray.exceptions.RayActorError) or not isinstance(error, ray.exceptions.RayError):
        return "its process ended"
    return " ".join(f"{type(error).__name__}: {error}".split())
