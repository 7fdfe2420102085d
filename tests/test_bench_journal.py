"""A bench's journal: what was written is found again, whatever happened to the file's end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from roost.api.machine import emulated_gpu
from roost.errors import RoostError, UsageError
from roost.plan.results import TrialResult
from roost.profiles import lock
from roost.tune.results.records import Candidate
from roost.tune.trials.journal import Journal, journal_key, only_bench
from roost.tune.trials.recorded import BenchWatcher, RecordedTrials

KEY = journal_key({"model": "a"})


def test_equal_facts_have_equal_keys_in_any_order() -> None:
    assert journal_key({"a": 1, "b": 2}) == journal_key({"b": 2, "a": 1}) != journal_key({"a": 1, "b": 3})


def test_lines_come_back_and_a_torn_one_is_ignored_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, KEY)
    journal.add({"name": "resident", "round": 1, "n": 1})
    journal.add({"name": "resident", "round": 2, "n": 2})
    with path.open("a") as file:
        file.write('{"name": "layerwise", "round": 1, "di')
    again = Journal(path, KEY)
    assert again.trials == 2
    found = again.find(name="resident", round=2)
    assert found is not None
    assert found["n"] == 2
    assert again.find(name="layerwise", round=1) is None
    again.add({"name": "layerwise", "round": 1, "n": 3})
    assert Journal(path, KEY).trials == 3
    assert json.loads(path.read_text().splitlines()[-1])["n"] == 3


def test_every_cut_of_the_file_leaves_the_whole_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, KEY)
    for number in range(3):
        journal.add({"name": "é", "round": number})
    text = path.read_bytes()
    for cut in range(len(text)):
        path.write_bytes(text[:cut])
        whole = text[: cut + 1].count(b"\n") if text[cut : cut + 1] == b"\n" else text[:cut].count(b"\n")
        assert Journal(path, KEY).trials == whole


def test_lines_of_another_key_and_what_is_no_line_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, journal_key({"model": "b"})).add({"name": "resident", "round": 1})
    with path.open("a") as file:
        file.write("[1]\nnull\n\n")
    assert Journal(path, KEY).trials == 0


def test_trials_on_a_model_cut_short_which_earlier_versions_ran_do_not_count(tmp_path: Path) -> None:
    path, cut = tmp_path / "journal.jsonl", {"blocks": 4, "of_blocks": 16, "kept": "0" * 16}
    written = Journal(path, KEY)
    written.add({"name": "resident", "round": 0, "n": 1, "heat": cut})
    written.add({"name": "resident", "round": 0, "n": 2, "heat": None})
    written.add({"name": "streamed", "round": 0, "heat": cut})
    journal = Journal(path, KEY)
    assert journal.trials == 1
    assert (journal.find(name="resident", round=0) or {})["n"] == 2
    assert journal.find(name="streamed", round=0) is None


def test_fresh_and_finished_journals_make_way_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, KEY)
    journal.add({"name": "resident", "round": 1})
    assert Journal(path, KEY, fresh=True).trials == 0
    assert Journal(path.with_suffix(".previous.jsonl"), KEY).trials == 1
    journal = Journal(path, KEY)
    journal.add({"name": "resident", "round": 1})
    journal.finish()
    assert Journal(path, KEY).trials == 0
    assert not path.exists()


def test_a_place_that_can_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="XDG_STATE_HOME"):
        Journal(tmp_path / "file" / "journal.jsonl", KEY).add({"name": "resident", "round": 1})


def test_two_benches_on_one_device_do_not_run_at_the_same_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    gpu = emulated_gpu(1024)
    with (
        only_bench(gpu),
        only_bench(replace(gpu, device_kind="cuda", uuid="GPU-1")),
        pytest.raises(RoostError, match="another bench runs on emulated"),
        only_bench(gpu),
    ):
        pytest.fail("it must not begin")
    with only_bench(gpu):
        pass


class PlantedTrials:
    """Answers each candidate with a digest of its own."""

    def __init__(self, **digests: str) -> None:
        self.digests, self.ran = digests, list[str]()

    def run(self, candidate: Candidate, *_: object, **__: object) -> TrialResult:
        self.ran.append(candidate.name)
        return TrialResult(status="ok", step_seconds=(0.1,), total_s=1.0, digest=self.digests[candidate.name] * 64)


def statuses(path: Path, trials: PlantedTrials, *names: str) -> list[str]:
    """What a bench of these candidates, going on from the journal, finds of each."""
    recorded = RecordedTrials(trials, Journal(path, KEY), BenchWatcher(), emulated_gpu(1024), same_bits=True)
    return [recorded.run(Candidate(name=name, strategy=name, peer=name), 1).status for name in names]


def test_lines_of_newer_versions_count_and_lines_of_no_version_are_measured_anew(tmp_path: Path) -> None:
    trials, path = PlantedTrials(a="1", b="2"), tmp_path / "journal.jsonl"
    assert statuses(path, trials, "a", "b") == ["ok", "wrong"]
    newer, broken = (json.loads(line) for line in path.read_text().splitlines())
    newer["from tomorrow"] = {"stages": []}
    newer["stages"] = [{"name": "decode", "component": "vae", "seconds": 1.0, "peak_bytes": 1, "from tomorrow": 1}]
    del newer["stall_s"], broken["status"]
    path.write_text("".join(json.dumps(line) + "\n" for line in (newer, broken)))
    for _ in range(2):  # what was measured anew is found the next time
        assert statuses(path, trials, "a", "b") == ["ok", "wrong"]
    assert trials.ran == ["a", "b", "b"]


def test_an_output_is_judged_by_the_reference_of_the_bench_that_goes_on(tmp_path: Path) -> None:
    trials, path = PlantedTrials(a="1", b="2", c="2"), tmp_path / "journal.jsonl"
    assert statuses(path, trials, "a", "b") == ["ok", "wrong"]
    assert statuses(path, trials, "a", "b") == ["ok", "wrong"]
    assert statuses(path, trials, "b", "c") == ["ok", "ok"]  # without a, nothing is wrong with b
    assert statuses(path, trials, "c", "a") == ["ok", "wrong"]
    assert trials.ran == ["a", "b", "c"]
