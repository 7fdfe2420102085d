"""Workers of a fleet's plan in one process, and a request's way through them: the protocol without processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from roost.fleet.plans import plan_of
from roost.fleet.tasks import Onward, Task
from roost.fleet.worker import Worker
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.residency.device.choice import open_device
from roost.residency.run.generate import Generation
from roost.residency.run.loader import Source, load_held


class Workers:
    """One for each of the plan's; ``visits`` are the names of those that a request came to, in order."""

    def __init__(self, document: PlanDocument, folder: Path) -> None:
        self.visits: list[str] = []
        plans = {each.name: plan_of(document, each) for each in document.workers}
        everything = {name: each for plan in plans.values() for name, each in plan.components.items()}
        self.by_name = {name: _worker(plan, everything, folder, self.send) for name, plan in plans.items()}
        for values in [each.values() for each in self.by_name.values()]:
            for each in self.by_name.values():
                each.take(values)

    def run(self, task: Task, first: str) -> Generation:
        name = first
        while True:
            self.visits.append(name)
            outcome = self.by_name[name].visit(Task.unpack(task.pack()), print)
            if not isinstance(outcome, Onward):
                return outcome[0]
            onward = Onward.unpack(outcome.pack())
            task = Task(
                call=task.call,
                key=task.key,
                shown=task.shown,
                answers=onward.answers,
                latents=onward.latents,
                through=onward.through,
            )
            if not task.through:
                name = self.owner(onward.component)
            elif onward.component in self.by_name[name].held.away:
                name = next(each for each, worker in self.by_name.items() if worker.held.plan.role.name == "denoiser")

    def owner(self, component: str) -> str:
        return next(name for name, each in self.by_name.items() if component in each.held.plan.components)

    def send(self, component: str, question: bytes) -> bytes:
        return self.by_name[self.owner(component)].answer(question)

    def close(self) -> None:
        for each in self.by_name.values():
            each.held.close()


def _worker(plan: PlanDocument, everything: Mapping[str, object], folder: Path, send: object) -> Worker:
    budget = plan.budget
    device = open_device("emulated", budget.budget_bytes, budget.headroom_bytes)
    away = {name: each for name, each in everything.items() if name not in plan.components}
    held = load_held(plan, Path(plan.model.path), device, source=Source(away=away))
    held.then(device.close)
    return Worker(held, folder, send)


def call_of(**more: object) -> GenerationRequest:
    return GenerationRequest(prompt="a fox", steps=2, seed=7, **more)
