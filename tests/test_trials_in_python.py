"""``roost.bench`` and ``roost.tune_plan``: what the commands measure, for callers in Python."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import roost
from planted_bench import STUB
from roost.cli.app import run
from roost.errors import UsageError
from roost.plan.results import TrialResult
from roost.tune.trials.runner import Trials
from tiny_models import build

SMALL: dict[str, Any] = {
    **{"gpu": "emulated", "vram": "64MiB", "headroom": 0, "ram": "8GiB"},
    **{"size": (64, 64), "frames": 9, "steps": 10},
}
WORDS = (
    *("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--ram", "8GiB"),
    *("--size", "64x64", "--frames", "9", "--steps", "10"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("wan2.1", tmp_path_factory.mktemp("trials") / "model"))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials take the seconds that are planted by the denoiser's placement."""
    file = tmp_path / "planted.json"
    file.write_text(json.dumps({"layerwise-offload 0 strided 1": {"step_s": 0.001}, "resident": {"step_s": 0.05}}))
    monkeypatch.setattr(Trials.__init__, "__defaults__", ((sys.executable, str(STUB), str(file)),))


class Heard(roost.BenchWatcher):
    def __init__(self) -> None:
        self.names: list[str] = []

    def on_result(self, name: str, result: TrialResult) -> None:
        self.names.append(name)


def shape(document: object) -> object:
    """The keys of a JSON object and the types of its values."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    return [shape(each) for each in document] if isinstance(document, list) else type(document)


@pytest.mark.usefixtures("planted")
def test_a_bench_in_python_finds_what_the_command_prints(model: str, capsys) -> None:
    heard = Heard()
    results = roost.bench(model, heard, strategies=["resident", "layerwise-offload"], rounds=1, **SMALL)
    assert capsys.readouterr() == ("", "")
    assert results.winner in heard.names
    assert {row.candidate.name for row in results.rows if row.rounds} == set(heard.names)
    assert run(["bench", model, *WORDS, "--strategies", "resident,layerwise-offload", "--rounds", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    mine = json.loads(json.dumps(roost.results_document(results)))
    assert shape(mine) == shape(printed)
    for key in ("model", "workload", "machine", "winner", "reference", "standings", "samples", "versions"):
        assert mine[key] == printed[key], key


@pytest.mark.usefixtures("planted")
def test_a_plan_tuned_in_python_is_the_command_s_and_comes_with_all_results(model: str, capsys) -> None:
    heard = Heard()
    tuned = roost.tune_plan(model, heard, tune_seconds=60, measured=False, **SMALL)
    assert capsys.readouterr() == ("", "")
    assert run(["plan", model, *WORDS, "--no-measured", "--tune", "--tune-seconds", "60", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    mine = tuned.plan.model_dump(mode="json", by_alias=True)
    for document in (mine, printed):
        document["measured"].pop("when")
    assert mine == printed
    assert tuned.results is not None
    assert tuned.why_not is None
    assert tuned.results.winner == mine["measured"]["candidate"]
    assert len(tuned.results.rows) == len(mine["measured"]["rivals"]) + 1


@pytest.mark.usefixtures("planted")
def test_trials_as_the_readme_runs_them(model: str, capsys) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = [each for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "tune_plan" in each]
    example = example.replace('"./FLUX.1-dev", vram="12GiB"', "model, **small")
    names: dict[str, Any] = {"roost": roost, "model": model, "small": SMALL}
    exec(example, names)
    assert names["tuned"].plan.measured is not None
    assert capsys.readouterr().out.startswith(f"{names['results'].winner} [")


def test_where_nothing_can_be_tried_the_plan_is_the_predicted_one_with_the_reason(model: str) -> None:
    options = {**SMALL, "vram": "1MiB"}
    tuned = roost.tune_plan(model, **options)
    assert tuned.plan == roost.make_plan(model, **options)
    assert (tuned.results, tuned.why_not) == (None, "nothing fits, so there is nothing to try")


def test_what_no_trial_takes_is_one_line(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bench has no option 'round'; did you mean 'rounds'"):
        roost.bench(model, round=2)
    with pytest.raises(UsageError, match="bench: rounds is a whole number, not 'two'"):
        roost.bench(model, rounds="two")
    with pytest.raises(UsageError, match="bench has no option 'tune_seconds'"):
        roost.bench(model, tune_seconds=3)
    with pytest.raises(UsageError, match="leave objective='memory' out"):
        roost.tune_plan(model, objective="memory")
    with pytest.raises(UsageError, match=r"^vram=, batch=: the plan has decided that"):
        roost.bench(tmp_path / "plan.yaml", vram="1GiB", batch=1)
