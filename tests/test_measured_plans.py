"""Plans use what was measured on this machine when it is the same device, say so, and can do without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dry_runs import tiny_directory, tiny_inventory
from measurements import EMULATED, RTX, WHEN, entry, rate
from roost import make_plan
from roost.api.machine import gpu_of_profile
from roost.api.measurements.learned import known_of, model_class_of
from roost.cli.app import run
from roost.plan import PlanDocument, plan_to_yaml
from roost.plan.measurements import MeasuredKappa
from roost.profiles.gpus import find_gpu_profile
from roost.profiles.store import MeasuredStore

SMALL = {"size": "64x64", "frames": 9, "steps": 2}
WORKLOAD = ("--size", "64x64", "--frames", "9", "--steps", "2")
DEVICE = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")


def planned(**options: object) -> PlanDocument:
    return make_plan(tiny_directory("wan2.2"), gpu="emulated", vram="64MiB", ram="8GiB", headroom=0, **SMALL, **options)


def kept(**changed: object) -> None:
    MeasuredStore().put(entry(EMULATED, **{"rates": {"kernels_per_s": rate(1e4, spread=1.2)}, **changed}))


def test_a_kept_rate_is_used_and_the_interval_is_its_spread() -> None:
    before = planned()
    assert before.arithmetic.rates["kernels_per_s"].source == "spec"
    kept()
    after = planned()
    assert before.predicted
    assert after.predicted
    used = after.arithmetic.rates["kernels_per_s"]
    assert (used.value, used.spread, used.source, used.when) == (1e4, 1.2, "measured", WHEN)
    step = after.predicted.step_s
    assert step.mid > 5 * before.predicted.step_s.mid  # paced by the host: 7 µs against 100 µs a launch
    assert step.high / step.low == pytest.approx(1.44, rel=0.02)
    assert after.arithmetic.rates["matmul_flop_per_s"] == before.arithmetic.rates["matmul_flop_per_s"]


def test_the_same_store_gives_the_same_plan_and_without_it_the_plan_is_as_before() -> None:
    before = planned()
    kept()
    assert planned() == planned() != before
    assert planned(measured=False) == before


def test_fitted_rates_of_the_models_own_class_go_first() -> None:
    kept()
    family = model_class_of(tiny_inventory("wan2.2").family, None)
    MeasuredStore().put(entry(EMULATED, family, rates={"kernels_per_s": rate(2e3, source="fitted")}))
    MeasuredStore().put(entry(EMULATED, "another", rates={"kernels_per_s": rate(5.0, source="fitted")}))
    assert planned().arithmetic.rates["kernels_per_s"].value == 2e3


def test_a_fitted_factor_moves_the_peak() -> None:
    before = planned()
    kept(kappas={"AutoencoderKLWan": MeasuredKappa(samples=[3.0, 3.0, 3.0], when=WHEN)})
    after = planned()
    assert before.predicted
    assert after.predicted
    peaks = [
        next(each.peak_bytes for each in plan.predicted.stages if each.component == "vae") for plan in (before, after)
    ]
    work = [next(each for each in plan.arithmetic.stages if each.component == "vae") for plan in (before, after)]
    assert (work[0].kappa, work[1].kappa) == (1.0, 3.0)
    assert work[0].traced_bytes == work[1].traced_bytes
    assert peaks[1] - peaks[0] == pytest.approx(2 * work[0].traced_bytes, rel=1e-3)


def test_the_screen_names_the_fitted_factors_of_its_components(capsys: pytest.CaptureFixture[str]) -> None:
    measured = MeasuredKappa(samples=[1.1], when=WHEN)
    kept(kappas={"AutoencoderKLWan": measured, "FluxTransformer2DModel": measured})
    assert run(["plan", str(tiny_directory("wan2.2")), *DEVICE, *WORKLOAD, "-v"]) == 0
    assert "activation factors fitted on this machine: AutoencoderKLWan." in capsys.readouterr().out


def test_another_driver_is_another_device_and_the_note_says_so() -> None:
    MeasuredStore().put(entry(RTX))
    inventory = tiny_inventory("wan2.2")
    here = replace(gpu_of_profile(find_gpu_profile("rtx-4090")), driver="570.86")
    found = known_of(here, inventory)
    assert (found.timed["pinned_h2d_bytes_per_s"], found.notes) == (rate(), ())
    assert found.kappas["AutoencoderKL"].mid == 1.225
    newer = known_of(replace(here, driver="580.01"), inventory)
    assert (newer.timed, newer.kappas) == ({}, {})
    assert newer.notes == (
        "what was measured on NVIDIA GeForce RTX 4090, driver 570.86 is not used: this plan is for NVIDIA GeForce RTX"
        " 4090, driver 580.01.",
    )
    assert known_of(replace(here, name="NVIDIA L4"), inventory).notes == ()


def test_a_card_by_its_name_is_not_the_card_that_was_measured() -> None:
    MeasuredStore().put(entry(RTX))
    plan = make_plan(tiny_directory("wan2.2"), gpu="rtx-4090", ram="64GiB", **SMALL)
    assert {each.source for each in plan.arithmetic.rates.values()} == {"spec"}
    assert [each for each in plan.warnings if "the card by its name alone" in each]


def test_a_broken_store_is_a_warning_in_the_plan() -> None:
    kept()
    (path,) = MeasuredStore().folder.glob("*/*.yaml")
    path.write_text("{")
    plan = planned()
    assert [str(path) in each for each in plan.warnings] == [True]
    assert plan.arithmetic.rates["kernels_per_s"].source == "spec"


def test_the_screen_says_what_is_used_and_how_to_do_without(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(tiny_directory("wan2.2")), *DEVICE, *WORKLOAD, "-v"]
    said = "uses rates measured on this machine on 2026-11-21: 1 of 15 timed by themselves, 0 fitted to runs"
    assert run(command) == 0
    assert "measured on this machine" not in capsys.readouterr().out
    kept()
    assert run(command) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert run([*command, "--no-measured"]) == 0
    assert "measured on this machine" not in capsys.readouterr().out


def test_the_plans_file_tells_every_rate_with_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    path = tmp_path / "plan.yaml"
    command = ["plan", str(tiny_directory("wan2.2")), *DEVICE, *WORKLOAD, "-o", str(path), "--json"]
    assert run(command) == 0
    listed = json.loads(capsys.readouterr().out)["arithmetic"]["rates"]
    assert len(listed) == 15
    assert listed["kernels_per_s"]["when"] == WHEN
    assert listed["disk_bytes_per_s"]["source"] == "spec"
    assert "kernels_per_s:\n      value: 10000.0" in path.read_text()


def test_a_run_of_a_model_can_be_planned_without_what_was_measured(capsys) -> None:
    kept()
    command = ["run", str(tiny_directory("wan2.2")), *DEVICE, *WORKLOAD, "--prompt", "a fox", "--dry-run"]
    assert run(command) == 0
    assert "uses rates measured on this machine" in capsys.readouterr().out
    assert run([*command, "--no-measured"]) == 0
    assert "uses rates measured on this machine" not in capsys.readouterr().out


def test_a_plan_has_decided_whether_measurements_count(tmp_path: Path, capsys) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(planned()))
    assert run(["run", str(tmp_path / "plan.yaml"), "--prompt", "a fox", "--no-measured"]) == 2
    assert capsys.readouterr().err.startswith("error: --no-measured: the plan has decided that")


def test_what_does_not_fit_is_the_rules_plan_and_dry_runs_of_less_are_announced(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["plan", str(tiny_directory("wan2.2")), *DEVICE, "--vram", "5MiB", *WORKLOAD, "--size", "128x128", "-v"]
    assert run(words) == 3
    captured = capsys.readouterr()
    assert "no plan fits; placement and figures below are those of the rules' plan:" in captured.out
    announced = [line for line in captured.err.splitlines() if "dry-running " in line]
    assert announced
    assert run(words) == 3
    assert "dry-running" not in capsys.readouterr().err  # they are kept
