"""Before an hour is spent: the least certain stage is tried, and what would fail is changed or refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel

from edited_plans import edited
from roost.cli.app import run
from roost.plan import read_plan
from roost.planner import calibration
from roost.residency.device import choice as devices
from roost.residency.device.emulated import EmulatedDevice
from roost.units import KiB
from tiny_models import build

ROOMY = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
# Enough for a step, and for a decode as it was traced; too little for half as much again.
BUDGET_BYTES = 2200 * KiB
SMALL = ("--size", "128x128", "--steps", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdxl", tmp_path_factory.mktemp("rehearsed") / "model")


@pytest.fixture(scope="module")
def sure(model: Path) -> Path:
    """A plan that surely fits, with nothing resident."""
    path = model.with_name("sure.yaml")
    assert run(["plan", str(model), *ROOMY, "--set", "all=snapshot-offload,linger=false", *SMALL, "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def likely(sure: Path) -> Path:
    """The same plan, that may not fit."""
    return edited(sure, sure.with_name("likely.yaml"), _less_sure)


def _less_sure(plan: Any) -> None:
    plan["certainty"] = "likely"


def _untileable(plan: Any) -> None:
    _less_sure(plan)
    plan["components"]["vae"]["may_tile"] = False


def _long(plan: Any) -> None:
    stage = next(each for each in plan["predicted"]["stages"] if each["phase"] == "denoise")
    stage["seconds"] = 301.0


def _words(plan: Path, *more: str) -> list[str]:
    return ["run", str(plan), "--prompt", "a fox", *more, "--json"]


def _record(capsys: pytest.CaptureFixture[str], plan: Path, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(_words(plan, *more)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _takes(monkeypatch: pytest.MonkeyPatch, budget_bytes: int, factor: float) -> None:
    """From now on runs have this budget, and activations take so much more than their trace tells."""
    monkeypatch.setattr(
        devices,
        "open_device",
        lambda *_: EmulatedDevice(budget_bytes, count_activations=True, activation_factor=factor),
    )


def _counted(monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> list[None]:
    """Grows with each call of the class's method."""
    original, calls = getattr(kind, method), list[None]()

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, method, counted)
    return calls


@pytest.mark.dealt(2)
def test_what_may_not_fit_is_tried_first_and_no_bit_or_peak_of_the_run_is_another(likely, capsys) -> None:
    rehearsed = _record(capsys, likely)
    plain = _record(capsys, likely, "--no-rehearse")
    assert plain["rehearsed"] == []
    (found,) = rehearsed["rehearsed"]
    decode = next(each for each in rehearsed["stages"] if each["phase"] == "decode")
    assert found["stage"] == "decode (vae)"
    assert found["measured_bytes"] == pytest.approx(decode["peak_bytes"], rel=0.02)
    assert found["measured_bytes"] == pytest.approx(found["predicted_bytes"], rel=0.02)
    for each in ("digest", "latent_digest", "peak_bytes", "changes"):
        assert rehearsed[each] == plain[each]
    peaks = [[each["peak_bytes"] for each in record["stages"]] for record in (rehearsed, plain)]
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(("spare_bytes", "count"), [(0, 1), (-1, 0)])
def test_masters_that_come_late_are_tried_where_they_fit_beside_those_before(
    spare_bytes, count, sure, tmp_path, capsys
) -> None:
    def take_turns(plan: Any) -> None:
        _less_sure(plan)
        sizes = {name: each["load_bytes"] for name, each in plan["components"].items()}
        last = {"vae": sizes.pop("vae")}
        turns = [("text_encoder", sizes), ("vae", last)]
        plan["budget"]["host_turns"] = [
            {"component": name, "masters": masters, "host_bytes": sum(masters.values())} for name, masters in turns
        ]
        plan["machine"]["host"]["available_bytes"] = sum(sizes.values()) + last["vae"] + spare_bytes

    plan = edited(sure, tmp_path / "plan.yaml", take_turns)
    record = _record(capsys, plan)
    assert len(record["rehearsed"]) == count
    assert record["digest"] == _record(capsys, sure)["digest"]


@pytest.mark.parametrize(("change", "count"), [(lambda plan: None, 0), (_long, 1)])
def test_what_surely_fits_is_tried_before_a_long_denoise_only(change, count, sure, tmp_path, capsys) -> None:
    assert len(_record(capsys, edited(sure, tmp_path / "plan.yaml", change))["rehearsed"]) == count


def test_a_run_of_several_is_rehearsed_once_and_one_line_says_what_it_took(likely, capsys, monkeypatch) -> None:
    decodes = _counted(monkeypatch, AutoencoderKL, "decode")
    assert run(_words(likely, "--seed", "1", "--seed", "2")) == 0
    assert len(decodes) == 3
    assert capsys.readouterr().err.count("rehearsed decode (vae): ") == 1


def test_a_decode_that_would_fail_is_tiled_before_the_denoise(likely, capsys, monkeypatch) -> None:
    _takes(monkeypatch, BUDGET_BYTES, 1.5)
    decodes = _counted(monkeypatch, AutoencoderKL, "decode")
    record = _record(capsys, likely)
    assert record["tiling"] == ["vae"]
    assert record["rehearsed"][0]["measured_bytes"] < BUDGET_BYTES
    assert any("tiled" in each for each in record["changes"])
    assert any("decoded in tiles" in each for each in record["warnings"])
    assert len(decodes) > 2


def test_what_nothing_makes_fit_ends_before_the_denoise(sure, tmp_path, capsys, monkeypatch) -> None:
    plan = edited(sure, tmp_path / "plan.yaml", _untileable)
    _takes(monkeypatch, BUDGET_BYTES, 1.5)
    steps = _counted(monkeypatch, UNet2DConditionModel, "forward")
    capsys.readouterr()
    assert run(_words(plan, "-o", str(tmp_path / "fox.png"))) == 5
    (said,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert said.startswith("error: rehearsed before denoising, decode (vae): out of memory on the emulated device")
    assert "--no-rehearse runs it all the same" in said
    assert steps == []
    assert [each.name for each in tmp_path.iterdir()] == ["plan.yaml"]


def test_what_is_denoised_already_is_not_rehearsed(likely, tmp_path, capsys, monkeypatch) -> None:
    words = _words(likely, "-o", str(tmp_path / "fox.png"))
    with monkeypatch.context() as patched:
        patched.setattr(AutoencoderKL, "decode", _interrupt)
        assert run([*words, "--no-rehearse"]) == 130
    capsys.readouterr()
    assert run(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["resumed_from"]["stage"], record["rehearsed"]) == ("decode", [])


def test_what_a_rehearsal_measured_is_known_to_the_next_plan_though_the_run_fails(
    likely, model, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(calibration, "_LEAST_BYTES", 0)
    _takes(monkeypatch, 64 * 2**20, 1.3)
    monkeypatch.setattr(UNet2DConditionModel, "forward", _interrupt)
    assert run(_words(likely)) == 130
    plan = model.with_name("next.yaml")
    assert run(["plan", str(model), *ROOMY, *SMALL, "-o", str(plan)]) == 0
    arithmetic = read_plan(plan).arithmetic
    assert arithmetic is not None
    (decode,) = [each for each in arithmetic.stages if each.phase == "decode"]
    assert decode.kappa == pytest.approx(1.3, rel=0.03)


def test_a_call_that_can_not_be_made_up_costs_a_line_and_not_the_run(likely, capsys, monkeypatch) -> None:
    original, calls = AutoencoderKL.decode, list[None]()

    def picky(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise ValueError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "decode", picky)
    assert run(_words(likely)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rehearsed"] == []
    assert err.count("not rehearsed: vae failed on made-up inputs: ValueError.") == 1


def test_of_latents_no_decode_is_rehearsed(likely, tmp_path, capsys, monkeypatch) -> None:
    decodes = _counted(monkeypatch, AutoencoderKL, "decode")
    record = _record(capsys, likely, "--output-type", "latent", "-o", str(tmp_path / "fox.safetensors"))
    assert decodes == []
    assert [each["stage"] for each in record["rehearsed"]] == ["denoise (unet)"]


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
