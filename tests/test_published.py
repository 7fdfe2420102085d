"""Timings that others published: the points are complete, and the committed table compares every one of them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.profiles.gpus import load_gpu_profiles
from roost.profiles.published import model_names

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
POINTS: list[dict[str, Any]] = yaml.safe_load((BENCHMARKS / "published.yaml").read_text(encoding="utf-8"))["points"]
TABLE: dict[str, Any] = json.loads((BENCHMARKS / "results" / "published.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["id"])
def test_a_point_names_a_known_model_and_card_and_says_where_it_is_from(point: dict[str, Any]) -> None:
    assert point["model"] in model_names()
    assert point["gpu"] in load_gpu_profiles()
    assert point["placement"] in ("resident", "model-offload", "searched", "streamed")
    assert point["use"] in ("fit", "held", "tuning", "unseen")
    assert ("seconds" in point) == ("covers" in point)
    assert ("peak_gib" in point) == ("peak" in point)
    assert "seconds" in point or "peak_gib" in point
    assert len(point["source"]) > 20
    assert point["assumed"]


def test_there_are_points_of_many_families_and_cards() -> None:
    assert len({point["id"] for point in POINTS}) == len(POINTS) >= 50
    assert len({point["model"] for point in POINTS}) >= 8
    assert len({point["gpu"] for point in POINTS}) >= 12


def test_a_source_chose_the_priors_or_was_held_out_never_both() -> None:
    uses: dict[str, set[str]] = {}
    for point in POINTS:
        uses.setdefault(point["source"], set()).add(point["use"])
    assert all(len(found) == 1 for found in uses.values())


def test_the_committed_table_has_every_point() -> None:
    assert [row["id"] for row in TABLE["points"]] == [point["id"] for point in POINTS]


def test_the_committed_intervals_hold_four_of_five_timings_that_had_no_part_in_the_priors() -> None:
    held = [row["seconds"]["within"] for row in TABLE["points"] if row["use"] == "held" and "seconds" in row]
    assert len(held) >= 30
    assert sum(held) >= 0.8 * len(held)


def test_a_point_is_compared_as_the_committed_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, output = BENCHMARKS / "published.py", tmp_path / "published.json"
    monkeypatch.setattr(sys, "argv", [str(script), "-o", str(output), "--only", "flux-h100-pr11682"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    rows = json.loads(output.read_text(encoding="utf-8"))["points"]
    committed = {row["id"]: row for row in TABLE["points"]}
    assert [row["id"] for row in rows] == ["flux-h100-pr11682-resident", "flux-h100-pr11682-offload"]
    for row in rows:
        # Another version of a library may trace a few elementwise operations more or fewer.
        assert row["seconds"]["mid"] == pytest.approx(committed[row["id"]]["seconds"]["mid"], rel=0.02)
        assert row["peak_gib"]["mid"] == pytest.approx(committed[row["id"]]["peak_gib"]["mid"], rel=0.01)
    assert "None of the published figures was measured by this project" in capsys.readouterr().out
