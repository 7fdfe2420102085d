"""Fleets of tiny models run in this process, and what one process makes of the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleet_cases import FLEET_CASES, fleet_plan, model_of, one_plan
from in_process_workers import InProcess, run_in_process
from roost.api.measurements.run_records import GenerationRecord, RunRecord
from roost.api.runs.ready import check_plan
from roost.api.runs.run import run_plan
from roost.fleet.pool import PoolEvent
from roost.fleet.tasks import Task
from roost.plan import PlanDocument

# Whether a worker is lost in a visit: its name and the seed.
Loses = Callable[[str, int], bool]


class LosingPool(InProcess):
    """Workers that are lost in visits of which ``loses`` is true."""

    def __init__(self, document: PlanDocument, folder: Path, loses: Loses | None, **more: Any) -> None:
        self._loses = loses
        super().__init__(document, folder, **more)

    def wait(self) -> Sequence[PoolEvent]:
        if not self._events and self._asked and self._loses is not None:
            worker, task = self._asked[0]
            if self._loses(worker, Task.unpack(task).call.seed):
                self._lose[len(self.visits)] = "it was killed"
        return super().wait()


class World:
    """A case's model, what one process makes of it, and fleets of its workers; all in one folder.

    ``words`` are added to every plan's command.
    """

    def __init__(self, folder: Path, name: str = "sdxl", *words: str, model: Path | None = None) -> None:
        self.folder, self.case, self.words = folder, FLEET_CASES[name], words
        self.model = model or model_of(name)
        self.loses: Loses | None = None
        self.models: dict[str, Path] = {}  # of workers that have the model elsewhere
        self.lose_called: dict[int, str] = {}  # in answers to other workers, by their number
        self.notes: list[str] = []
        self.pools: list[LosingPool] = []

    @property
    def visits(self) -> list[str]:
        """The workers that the latest run's requests came to, in order."""
        return [worker for worker, _, _ in self.pools[-1].visits]

    @property
    def files(self) -> list[str]:
        """What lies beside the outputs, and they themselves."""
        return sorted(each.name for each in self.folder.iterdir() if each.is_file())

    def planned(self, layout: str) -> PlanDocument:
        return fleet_plan(self.model, self.case, layout, *self.words)

    def alone(self, name: str = "alone", **more: Any) -> RunRecord:
        """The run of one process, its outputs by that name."""
        plan = one_plan(self.model, self.case, *self.words)
        return run_plan(check_plan(plan), self.case.request(self.folder, name, **more))

    def fleet(self, layout: str, plan: PlanDocument | None = None, **more: Any) -> RunRecord:
        """The run of a fleet; a ``plan`` may be given that was made for it."""
        plan = plan or self.planned(layout)
        kept = self.folder / "workers"
        kept.mkdir(exist_ok=True)

        def start_pool() -> LosingPool:
            self.pools.append(LosingPool(plan, kept, self.loses, models=self.models, lose_called=self.lose_called))
            return self.pools[-1]

        return run_in_process(plan, self.case.request(self.folder, "fleet", **more), start_pool, self.notes)


def made(record: RunRecord) -> list[tuple[Any, ...]]:
    """What must be the same of each generation, wherever it was made."""
    return [_made(each) for each in record.generations]


def _made(each: GenerationRecord) -> tuple[Any, ...]:
    files = [Path(path).read_bytes() for path in each.output]
    return (each.prompt, each.seed, each.digest, each.latent_digest, files, each.has_nan, each.nan_components)
