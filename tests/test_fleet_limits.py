"""What workers may not do to a run: other libraries, files of other names, errors that are not theirs to tell; and
when roles share a component.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_worlds import CARDS, at_once, card_question, compared, fleet_of
from in_process_workers import InProcess
from roost.api.requests.request import PlannedGeneration
from roost.api.runs.elsewhere import outputs
from roost.errors import PlanMismatch, RoostError
from roost.fleet.pool import failure_of
from roost.planner.fleet.layouts import FleetQuestion
from roost.planner.fleet.workers import plan_worker, seats_of, without_extras
from roost.planner.search_question import SearchQuestion
from running_fleets import World


def test_a_host_with_other_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InProcess, "versions", {**InProcess.versions, "torch": "1.0"})
    with pytest.raises(PlanMismatch, match=r"torch .* here and 1.0 there"):
        InProcess(World(tmp_path, "flux").planned("two"), tmp_path)


@pytest.mark.parametrize("name", ["fox.journal.jsonl", "other.png", "fox.png.latents.safetensors", "fox-x.png"])
def test_a_worker_writes_no_file_but_the_output_s(name: str, tmp_path: Path) -> None:
    wanted = PlannedGeneration(prompt="a fox", number=None, seed=0, output=tmp_path / "fox.png")
    with pytest.raises(RoostError, match="it is not written"):
        outputs.saved_file(wanted, name, b"x")
    assert not list(tmp_path.iterdir())
    assert outputs.saved_file(wanted, "fox-1.png", b"x") == str(tmp_path / "fox-1.png")


def test_an_error_of_a_worker_has_its_kind_or_none() -> None:
    assert type(failure_of(json.dumps(["PlanMismatch", "x"]).encode())) is PlanMismatch
    for kind in ("SaidElsewhere", "KeyboardInterrupt", "nothing"):
        assert type(failure_of(json.dumps([kind, "x"]).encode())) is RoostError


def test_roles_share_a_component_that_need_not_be_held_twice() -> None:
    fleet = fleet_of(["middle", "middle", "middle"])
    (kind,), seats = seats_of(fleet)
    asked = card_question(CARDS["middle"])
    profile = replace(asked.question.profile, role_extras={"denoiser": ("vae",)})
    twice = replace(asked, question=replace(asked.question, profile=profile))

    def question(asked: SearchQuestion) -> FleetQuestion:
        return FleetQuestion(
            fleet=fleet, seats=seats, service=lambda _, use, others: plan_worker(asked, kind, use, others)
        )

    def denoiser(question: FleetQuestion) -> set[str]:
        layout = compared(question, at_once(), "roles")[0].layout
        (found,) = [each for each in layout.workers if each.planned.role == "denoiser"]
        return set(found.planned.plan.components)

    assert denoiser(question(twice)) == {"transformer", "vae"}
    assert denoiser(replace(question(twice), sharing=question(without_extras(twice)))) == {"transformer"}
