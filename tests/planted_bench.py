"""A bench in a folder of its own whose trials do what a test plants."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from roost.planner.search_question import SearchQuestion
from roost.tune.bench import Bench, BenchSettings, key_facts
from roost.tune.results.records import BenchResults, Row
from roost.tune.trials.candidates import Field, list_candidates
from roost.tune.trials.journal import Journal, journal_key
from roost.tune.trials.recorded import BenchWatcher
from roost.tune.trials.runner import Trials, TrialWorld, world_of

STUB = Path(__file__).with_name("stub_trial.py")


def with_vram(asked: SearchQuestion, vram_bytes: int) -> SearchQuestion:
    machine = asked.question.machine
    gpu = replace(machine.gpu, total_bytes=vram_bytes, free_bytes=vram_bytes)
    return replace(asked, question=replace(asked.question, machine=replace(machine, gpu=gpu)))


class Setting:
    """A bench of planted trials in a folder of its own."""

    def __init__(
        self,
        asked: SearchQuestion,
        folder: Path,
        strategies: tuple[str, ...] = ("resident", "snapshot-offload", "layerwise-offload"),
    ) -> None:
        self.asked, self.folder = asked, folder
        self.entrants: Field = list_candidates(asked, strategies)
        self.planted = folder / "planted.json"
        self.journal_file = folder / "journal.jsonl"
        self.plant()

    def plant(self, **planted: Any) -> None:
        self.planted.write_text(json.dumps({key.replace("_", " "): value for key, value in planted.items()}))

    def plant_keys(self, planted: dict[str, Any]) -> None:
        self.planted.write_text(json.dumps(planted))

    @property
    def started(self) -> list[str]:
        file = Path(f"{self.planted}.started")
        return [line.split("\t")[0] for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def warmed(self) -> dict[str, bool]:
        """Whether a generation was asked for ahead, by what was started."""
        lines = [line.split("\t") for line in Path(f"{self.planted}.started").read_text().splitlines()]
        return {key: steps != "None" for key, _, steps in lines}

    @property
    def pids(self) -> list[int]:
        return [int(line.split("\t")[1]) for line in Path(f"{self.planted}.started").read_text().splitlines()]

    def world(self, **changed: Any) -> TrialWorld:
        return replace(
            world_of(self.asked, self.entrants, Path(str(self.asked.question.inventory.path)), 5),
            **{"deadline_s": 30.0, **changed},
        )

    def run(
        self,
        *,
        rounds: int = 1,
        max_seconds: float = 300.0,
        watcher: BenchWatcher | None = None,
        fresh: bool = False,
        **changed: Any,
    ) -> BenchResults:
        world = self.world(**changed)
        key = journal_key(key_facts(self.asked, world))
        journal = Journal(self.journal_file, key, fresh=fresh)
        with Trials(world, (sys.executable, str(STUB), str(self.planted))) as trials:
            return Bench(self.asked, self.entrants, trials, journal, watcher or BenchWatcher()).run(
                BenchSettings(rounds=rounds, max_seconds=max_seconds)
            )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal_file.read_text().splitlines()]


def row_of(results: BenchResults, name: str) -> Row:
    return next(row for row in results.rows if row.candidate.name == name)


def gone(pid: int) -> bool:
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in ("Z", "X"):
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
