"""What a plan may take of host memory: a machine's, less what its system and the run's own process need of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.api.bench import _options_of
from roost.api.machine import find_machine
from roost.api.plans.plan import make_plan
from roost.cli.app import run
from roost.errors import UsageError
from roost.plan import read_plan
from roost.units import GiB, MiB

CARD = ("--gpu", "rtx-4090", "--policy", "rules")
OLD = Path(__file__).parent / "fixtures" / "plans-0.1"


def test_a_plan_shows_what_the_system_and_the_process_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no dry run has left a trace
    assert run(["plan", "flux.1-dev", *CARD, "--ram", "64GiB", "-v"]) in (
        0,
        3,
    )  # with a kept trace, or without
    line = "64.0 GiB of host memory (--ram), system 5.12 GiB, process 2.00 GiB, budget 56.9 GiB"
    assert line in capsys.readouterr().out.splitlines()


def test_a_plans_budget_says_what_was_reserved_and_older_plans_reserved_nothing() -> None:
    plan = make_plan("flux.1-dev", gpu="rtx-4090", ram="50GiB", policy="rules")
    assert plan.budget.host_reserved_bytes == 6 * GiB
    assert plan.machine.host.available_bytes == 44 * GiB
    older = read_plan(OLD / "wan2.2-t2v-a14b-rtx-4090.yaml")
    assert older.budget.host_reserved_bytes == 0
    assert older.machine.host.there_bytes == older.machine.host.available_bytes


def test_masters_that_would_fill_a_machine_are_not_planned() -> None:
    plan = make_plan("wan2.2-t2v-a14b", gpu="rtx-4090", ram="64GiB", policy="rules")
    assert 50 * GiB < plan.budget.host_bytes <= plan.machine.host.available_bytes < 57 * GiB
    assert sum(each.master.mapped for each in plan.components.values() if each.master) > 0


@pytest.mark.parametrize(
    ("gpu", "vram", "ram", "least"),
    [
        ("rtx-4090", None, "4GiB", "4.00 GiB"),
        ("emulated", "1GiB", "2GiB", "2.68 GiB"),
        ("gb10", None, "1MiB", "4.00 GiB"),
    ],
)
def test_a_machine_too_small_for_its_own_is_refused_with_the_sum(
    gpu: str, vram: str | None, ram: str, least: str
) -> None:
    with pytest.raises(UsageError, match=rf"^--ram .* the system's and .* the process's own; .* more than {least}\.$"):
        find_machine(gpu, vram=vram, ram=ram)


def test_a_bench_of_a_plan_asks_for_the_memory_that_was_typed() -> None:
    plan = make_plan("flux.1-dev", gpu="rtx-4090", ram="50GiB", policy="rules")
    assert _options_of(plan, Path("flux.1-dev")).ram == 50 * GiB


def test_an_emulated_device_runs_on_the_same_host_without_a_driver() -> None:
    host = find_machine("emulated", vram="1GiB", ram="16GiB").host
    assert (host.system_bytes, host.process_bytes) == (2 * GiB, 700 * MiB)
