"""Plan files: what is written is read back the same, and anything else is refused in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import InvalidFile, RoostError
from roost.facts.model import StoredFile
from roost.plan import PlanDocument, plan_to_yaml, read_plan, write_text_atomically
from roost.planner.by_rules import plan_by_rules
from roost.units import GiB
from worlds import component, inventory, machine, question


@pytest.fixture
def plan() -> PlanDocument:
    parts = (component("transformer", 28 * GiB, blocks=40), component("vae", GiB, blocks=4, position=1))
    return plan_by_rules(question(inventory(*parts), machine(24)))


def test_a_plan_reads_back_as_it_was_written(plan: PlanDocument, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    write_text_atomically(path, plan_to_yaml(plan))
    assert read_plan(path) == plan
    assert plan_to_yaml(read_plan(path)) == plan_to_yaml(plan)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
def test_a_model_of_thousands_of_files_has_a_plan_that_reads_back(plan: PlanDocument, tmp_path: Path) -> None:
    files = {
        f"transformer/diffusion_pytorch_model-{number:05}-of-06500.safetensors": StoredFile(bytes=1, sha256="0" * 64)
        for number in range(6500)
    }
    large = plan.model_copy(update={"model": plan.model.model_copy(update={"files": files})})
    path = tmp_path / "plan.yaml"
    write_text_atomically(path, plan_to_yaml(large))
    assert path.stat().st_size > 1024**2
    assert read_plan(path) == large


@pytest.mark.long
@settings(deadline=None)  # the first example pays for imports
@given(st.text(min_size=1, max_size=40))
def test_names_of_any_characters_survive_the_file(name: str) -> None:
    parts = (component("transformer", 28 * GiB, blocks=40),)
    made = plan_by_rules(question(inventory(*parts), machine(24)))
    renamed = made.model_copy(update={"warnings": [name]})
    assert PlanDocument.model_validate(yaml.safe_load(plan_to_yaml(renamed))).warnings == [name]


def _edited(plan: PlanDocument, *path: str | int, value: object) -> str:
    document = yaml.safe_load(plan_to_yaml(plan))
    target = document
    for key in path[:-1]:
        target = target[key]
    if value is None and isinstance(target, dict):
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("schema",), 2, "schema"),
        (("schema",), "1", "schema"),
        (("schema",), True, "schema"),
        (("fits",), "yes", "fits"),
        (("fits",), 1, "fits"),
        (("surprise",), 1, "surprise"),
        (("budget", "free_bytes"), -1, "budget.free_bytes"),
        (("budget", "free_bytes"), 1.5, "budget.free_bytes"),
        (("components", "transformer", "strategy"), "teleport", "components.transformer.strategy"),
        (("components", "transformer", "prefetch"), 1, "components.transformer"),
        (("components", "vae", "resident_blocks"), 99, "components.vae"),
        (("load_order",), ["vae"], "load_order"),
        (("load_order",), "vae", "load_order"),
        (("model", "files"), {"../../etc/passwd/": 1}, "model.files"),
        (("model", "fingerprint"), "zz", "model.fingerprint"),
        (("predicted",), {"seconds": 1}, "predicted"),
        (("workload",), None, "workload"),
    ],
)
def test_a_wrong_field_is_named(plan: PlanDocument, tmp_path: Path, path, value, named: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(_edited(plan, *path, value=value))
    with pytest.raises(InvalidFile) as caught:
        read_plan(file)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"42",
        b"a: &x 1\nb: *x",
        b"a: 1\na: 2",
        b"? [1, 2]\n: 3",
        b"<<: {a: 1}",
        b"a: !!python/object/apply:os.system ['true']",
        b"a: [",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{a: " * 5_000,
        b"x: " + b"y" * (1024 * 1024),
        b"a: 1\n---\nb: 2",
        b"1: 2",
        b"\x00",
        b"a: 2026-13-45",
        b"a: 0x" + b"f" * 5000,
    ],
    ids=range(18),
)
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(text)
    with pytest.raises(InvalidFile) as caught:
        read_plan(file)
    assert "\n" not in str(caught.value)


def test_a_missing_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="roost plan MODEL"):
        read_plan(tmp_path / "none.yaml")


def test_a_fifo_is_no_plan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.yaml")
    with pytest.raises(InvalidFile, match="not a file"):
        read_plan(tmp_path / "plan.yaml")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RoostError, match="No space left on device"):
        write_text_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_made_and_one_that_can_not_be_is_one_line(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "new" / "plan.yaml", "text")
    assert (tmp_path / "new" / "plan.yaml").read_text() == "text"
    with pytest.raises(RoostError, match="choose another place"):
        write_text_atomically(tmp_path / "new" / "plan.yaml" / "below" / "plan.yaml", "text")


@pytest.mark.long
def test_a_writer_killed_at_any_time_leaves_old_or_new_and_the_next_one_sweeps(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    texts = [letter * 200_000 for letter in "ab"]
    file.write_text(texts[0])
    program = (
        "import sys; from pathlib import Path; from roost.plan import write_text_atomically\n"
        "print('ready', flush=True)\n"
        f"while True:\n for letter in 'ab': write_text_atomically(Path({str(file)!r}), letter * 200_000)"
    )
    for turn in range(5):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.01 * turn)
            child.send_signal(signal.SIGKILL)
        assert file.read_text() in texts
    write_text_atomically(file, "end")
    assert list(tmp_path.iterdir()) == [file]
