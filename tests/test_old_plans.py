"""Plans that other versions wrote: older ones stay readable, and of a newer one it is said that it is newer."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from roost.cli.app import run
from roost.errors import InvalidFile
from roost.plan import plan_to_yaml, read_plan

OLD = Path(__file__).parent / "fixtures" / "plans-0.1"
PLANS = sorted(OLD.glob("*.yaml"))


def test_there_are_old_plans_of_both_policies() -> None:
    plans = [read_plan(path) for path in PLANS]
    assert {plan.versions["roost"] for plan in plans} == {"0.1.0"}
    assert {plan.policy.name for plan in plans} == {"rules", "search"}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_of_0_1_is_read_with_every_value_it_has(path: Path) -> None:
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = yaml.safe_load(plan_to_yaml(read_plan(path)))
    assert _only_of(now, old) == old


def _only_of(now: object, old: object) -> object:
    """What a newer version says, without the keys that it added."""
    if isinstance(old, dict) and isinstance(now, dict):
        return {key: _only_of(now[key], value) for key, value in old.items() if key in now}
    if isinstance(old, list) and isinstance(now, list):
        return [_only_of(*pair) for pair in zip(now, old, strict=True)]
    return now


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_of_0_1_is_explained_and_compared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(path)]) == 0
    assert "transformer" in capsys.readouterr().out
    for other in PLANS:
        assert run(["diff", str(path), str(other)]) == 0


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_run_of_a_plan_of_0_1_asks_for_the_model_only(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = read_plan(path).model.family
    assert run(["run", str(path), "--prompt", "a red fox", "-o", "fox.mp4"]) == 2
    assert f"this plan is for {family} by name; say where the model is with --model DIR" in capsys.readouterr().err


def _edited(tmp_path: Path, version: str, *path: str) -> Path:
    """An old plan as ``version`` would have written it, with a key that isn't known at ``path``."""
    plan = yaml.safe_load(PLANS[0].read_text(encoding="utf-8"))
    plan["versions"]["roost"] = version
    if path:
        inside = plan
        for key in path:
            inside = inside[key]
        inside["planets"] = 9
    edited = tmp_path / "plan.yaml"
    edited.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return edited


@pytest.mark.parametrize("path", [("policy",), ("components", "vae")])
@pytest.mark.parametrize("version", ["99.0.0", "0.100.0", "1.0rc1"])
def test_a_plan_with_newer_keys_is_said_to_be_written_by_a_newer_version(
    tmp_path: Path, version: str, path: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidFile, match=r"planets.*written by a newer version, Roost '.*update Roost, or plan again"):
        read_plan(_edited(tmp_path, version, *path))


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9", "unknown"])
def test_unknown_keys_in_a_plan_of_an_older_version_may_also_come_by_hand(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidFile, match=r"planets.*written by a newer version than this.*or by hand: take them out"):
        read_plan(_edited(tmp_path, version, "policy"))


def test_a_plan_of_a_newer_version_without_newer_keys_is_read(tmp_path: Path) -> None:
    assert read_plan(_edited(tmp_path, "99.0.0")).versions["roost"] == "99.0.0"


def test_what_is_wrong_otherwise_in_a_plan_of_this_version_blames_no_version(tmp_path: Path) -> None:
    edited = _edited(tmp_path, "0.1.0")
    edited.write_text(edited.read_text(encoding="utf-8").replace("fits: true", "fits: perhaps"), encoding="utf-8")
    with pytest.raises(InvalidFile, match="fits") as raised:
        read_plan(edited)
    assert "version" not in str(raised.value)
