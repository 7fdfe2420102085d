"""Malformed inputs through the command line: the documented exit code, one line that names it, an untouched disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from directories import write
from malformed import refused
from malformed_directories import CONFIGS, DIRECTORIES, ENTRIES, HARMLESS, INDEXES, MODULAR, Damage, as_modular
from malformed_headers import CASES as HEADERS
from malformed_headers import MalformedHeader
from malformed_options import OPTIONS, RUNS, SETS, TARGETS
from malformed_plans import EDITS, LAYERWISE_EDITS, STALE, TEXTS
from malformed_shards import SHARD_INDEXES, miss_many_shards
from roost.cli.app import run
from small_model import SHARD_INDEX, VAE_WEIGHTS, write_small_model

pytestmark = pytest.mark.long

CARD = ("--gpu", "h200", "--ram", "64GiB")
RUN = ("--prompt", "x", "--device", "emulated", "-o")

needs_permissions = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything"
)


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that everything here happens in; no GPU is visible, and the caches are empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for variable in ("XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def model(disk: Path) -> Path:
    return write_small_model(disk / "model")


@pytest.fixture
def refuse(disk: Path, capfd) -> Callable[..., str]:
    """Runs words that must be refused; returns the line of the error."""
    return lambda *words, code=2: refused([str(word) for word in words], disk, capfd, code=code)


@pytest.fixture(scope="module")
def plan_document(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, Any]]:
    """A valid plan of a model; made once, then moved to where the model is."""
    folder = tmp_path_factory.mktemp("plan")
    assert run(["plan", str(write_small_model(folder / "model")), *CARD, "-o", str(folder / "plan.yaml")]) == 0
    text = (folder / "plan.yaml").read_text()
    return lambda model: yaml.safe_load(text.replace(str(folder / "model"), str(model)))


def _check_everywhere(refuse: Callable[..., str], model: Path, named: str) -> None:
    """Every command that reads a model directory refuses it in the same words."""
    lines = {
        refuse("inspect", model),
        refuse("plan", model, *CARD, "-o", "plan.yaml"),
        *([refuse("run", model, *CARD, *RUN, "x.mp4")] if not model.is_file() else []),  # a file would be a plan
    }
    assert len(lines) == 1
    assert named in lines.pop()


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_that_is_no_model_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = DIRECTORIES[name]
    damage(model)
    _check_everywhere(refuse, model, named)


@pytest.mark.parametrize("name", INDEXES)
def test_a_malformed_model_index_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = INDEXES[name]
    damage(model)
    line = refuse("inspect", model)
    assert "model_index.json" in line
    assert named in line


@pytest.mark.parametrize("name", ENTRIES)
def test_a_malformed_entry_of_the_index_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = ENTRIES[name]
    damage(model)
    _check_everywhere(refuse, model, named)


@pytest.mark.parametrize("name", MODULAR)
def test_a_malformed_modular_index_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = MODULAR[name]
    damage(model)
    as_modular(model)
    line = refuse("inspect", model)
    assert "modular_model_index.json: " in line
    assert named in line


@pytest.mark.parametrize("name", CONFIGS)
def test_a_malformed_config_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = CONFIGS[name]
    damage(model)
    assert named in refuse("inspect", model)


@pytest.mark.parametrize("name", SHARD_INDEXES)
def test_a_malformed_shard_index_or_shard_is_refused(name: str, model: Path, refuse) -> None:
    damage, named = SHARD_INDEXES[name]
    damage(model)
    assert named in refuse("inspect", model)


@pytest.mark.parametrize("case", HEADERS, ids=lambda case: case.name)
def test_a_malformed_header_is_refused_with_its_file(case: MalformedHeader, model: Path, refuse) -> None:
    (model / VAE_WEIGHTS).write_bytes(case.content)
    line = refuse("inspect", model)
    assert line.startswith(f"error: {VAE_WEIGHTS} ")
    assert re.search(case.reason, line)


def test_missing_shards_are_listed_at_once_and_counted_beyond_twenty(model: Path, capfd) -> None:
    miss_many_shards(model)
    assert run(["inspect", str(model)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.count("transformer/model-") == 20
    assert "and 9979 more" in line
    assert len(line) < 2000


@pytest.mark.dealt(4)
@pytest.mark.parametrize("name", HARMLESS)
def test_what_no_load_reads_is_described_without_running_it(name: str, model: Path, capfd) -> None:
    damage: Damage = HARMLESS[name]
    damage(model)
    before = sorted(model.rglob("*"))
    assert run(["inspect", str(model)]) == 0
    assert run(["plan", str(model), *CARD, "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert sorted(model.rglob("*")) == before


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_plan_is_refused(name: str, disk: Path, refuse) -> None:
    content, named = TEXTS[name]
    write(disk / "p.yaml", content)
    line = refuse("run", "p.yaml", *RUN, "x.mp4")
    assert "plan 'p.yaml' is not valid" in line
    assert named in line


@pytest.mark.dealt(4)
@pytest.mark.parametrize("name", EDITS | LAYERWISE_EDITS)
def test_a_plan_with_a_wrong_field_is_refused(name: str, model: Path, plan_document, disk: Path, refuse) -> None:
    edit, named = (EDITS | LAYERWISE_EDITS)[name]
    document = plan_document(model)
    edit(document)
    write(disk / "p.yaml", yaml.safe_dump(document, sort_keys=False))
    line = refuse("run", "p.yaml", *RUN, "x.mp4")
    assert line.startswith("error: plan 'p.yaml' is not valid: ")
    assert named in line


@pytest.mark.parametrize("name", STALE)
def test_a_plan_for_something_else_is_refused(name: str, model: Path, plan_document, disk: Path, refuse) -> None:
    edit, code, named = STALE[name]
    document = plan_document(model)
    edit(document)
    write(disk / "p.yaml", yaml.safe_dump(document, sort_keys=False))
    assert named in refuse("run", "p.yaml", *RUN, "x.mp4", code=code)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_malformed_option_is_refused(name: str, model: Path, refuse) -> None:
    words, named = OPTIONS[name]
    assert named in refuse("plan", model, *words)


@pytest.mark.parametrize("name", SETS)
def test_a_malformed_choice_is_refused(name: str, model: Path, refuse) -> None:
    text, named = SETS[name]
    assert named in refuse("plan", model, *CARD, "--set", text)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", RUNS)
def test_a_malformed_option_of_a_run_is_refused(name: str, model: Path, plan_document, disk: Path, refuse) -> None:
    words, code, named = RUNS[name]
    write(disk / "p.yaml", yaml.safe_dump(plan_document(model)))
    assert named in refuse("run", "p.yaml", *words, code=code)


@pytest.mark.parametrize("name", TARGETS)
def test_what_names_neither_plan_nor_model_is_refused(name: str, refuse) -> None:
    target, named = TARGETS[name]
    assert named in refuse("run", target, "--prompt", "x")


def test_a_plan_that_is_a_fifo_is_refused_without_waiting(disk: Path, refuse) -> None:
    os.mkfifo(disk / "p.yaml")
    assert "is not a file" in refuse("run", "p.yaml", *RUN, "x.mp4")


def test_a_path_that_is_no_text_is_refused_by_plan_alone(disk: Path, refuse, capfd) -> None:
    model = write_small_model(disk / os.fsdecode(b"m\xff"))
    assert run(["inspect", str(model), "--json"]) == 0
    assert "rename it" in refuse("plan", model, *CARD)


def test_a_cache_that_cannot_be_written_is_named(disk: Path, model: Path, refuse) -> None:
    write(disk / "cache", b"")
    assert "XDG_CACHE_HOME" in refuse("run", model, *CARD, *RUN, "x.mp4")


@needs_permissions
@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json", VAE_WEIGHTS, SHARD_INDEX, "vae", "."])
def test_what_may_not_be_read_is_named(name: str, model: Path, refuse) -> None:
    (model / name).chmod(0)
    try:
        line = refuse("inspect", model)
    finally:
        (model / name).chmod(0o700)
    assert "ermission" in line
    assert Path(name).name in line or name == "."


@needs_permissions
def test_a_plan_that_may_not_be_read_is_named(disk: Path, refuse) -> None:
    write(disk / "p.yaml", b"schema: 1").chmod(0)
    assert "Permission denied" in refuse("run", "p.yaml", *RUN, "x.mp4")


@needs_permissions
def test_a_folder_that_may_not_be_written_is_named(disk: Path, model: Path, refuse) -> None:
    (disk / "closed").mkdir(mode=0o500)
    assert "closed" in refuse("plan", model, *CARD, "-o", "closed/plan.yaml")
    assert "can't be written" in refuse("run", model, *CARD, *RUN, "closed/x.mp4")


def test_the_corpus_is_large_enough() -> None:
    tables = (DIRECTORIES, INDEXES, ENTRIES, MODULAR, CONFIGS, SHARD_INDEXES, HEADERS, TEXTS, EDITS, LAYERWISE_EDITS)
    counts = [len(table) for table in (*tables, STALE, OPTIONS, SETS, RUNS, TARGETS)]
    assert sum(counts) >= 500
