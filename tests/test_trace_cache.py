"""Traces are kept, found again equal, and traced anew when a file is broken or the model differs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dry_runs import tiny_directory, tiny_inventory, tiny_trace, tiny_workload
from roost.api.models import traces
from roost.api.models.inspect import profile_of
from roost.errors import InvalidFile
from roost.facts.model import Inventory
from roost.probes.dry_run import DryRunOptions
from roost.probes.dry_run.cache import read_trace, trace_key, weightless_digests, write_trace
from roost.trace import trace_from_json, trace_to_json


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "roost" / "traces"


def test_a_kept_trace_comes_back_equal(tmp_path: Path) -> None:
    write_trace(tmp_path, "key", tiny_trace("wan2.2"))
    assert read_trace(tmp_path, "key") == tiny_trace("wan2.2")


def test_the_second_trace_of_a_model_comes_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory, workload = tiny_inventory("ltx"), tiny_workload("ltx")
    first = traces.trace_model(inventory, profile_of(inventory), workload)
    monkeypatch.setattr(traces, "dry_run", lambda *_: pytest.fail("dry-run again"))
    assert traces.trace_model(inventory, profile_of(inventory), workload) == first


@pytest.mark.dealt(3)
@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"uses": []}', b"\xff", b"[" * 100_000])
def test_a_broken_file_is_traced_anew_and_rewritten(cache: Path, broken: bytes) -> None:
    inventory, workload = tiny_inventory("ltx"), tiny_workload("ltx")
    first = traces.trace_model(inventory, profile_of(inventory), workload)
    (file,) = cache.iterdir()
    file.write_bytes(broken)
    again = traces.trace_model(inventory, profile_of(inventory), workload)
    assert again.uses == first.uses
    assert read_trace(cache, file.stem) == again


def test_a_trace_that_names_a_missing_use_is_refused() -> None:
    document = trace_to_json(replace(tiny_trace("ltx"), sequence=((99, 1),)))
    with pytest.raises(InvalidFile, match="a use that it doesn't have"):
        trace_from_json(document)


def _edited(inventory: Inventory, ending: str) -> Inventory:
    name = next(name for name in inventory.files if name.endswith(ending))
    return replace(inventory, files={**inventory.files, name: replace(inventory.files[name], sha256="0" * 64)})


def test_the_key_depends_on_configs_workload_arguments_and_versions() -> None:
    inventory, workload, options = tiny_inventory("ltx"), tiny_workload("ltx"), DryRunOptions()
    edited = [_edited(inventory, ending) for ending in ("/config.json", "model_index.json")]
    keys = {
        trace_key(inventory, workload, options, {}, {}),
        *(trace_key(each, workload, options, {}, {}) for each in edited),
        trace_key(inventory, replace(workload, steps=5), options, {}, {}),
        trace_key(inventory, workload, DryRunOptions(negative_prompt="fog"), {}, {}),
        trace_key(inventory, workload, options, {"torch": "0"}, {}),
        trace_key(inventory, workload, options, {}, {"tokenizer": "0"}),
    }
    assert len(keys) == 7
    elsewhere = replace(inventory, path="/elsewhere", fingerprint="other")
    assert trace_key(elsewhere, workload, options, {}, {}) in keys


def test_another_tokenizer_is_traced_anew_and_the_same_one_elsewhere_is_not(tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_directory("ltx"), tmp_path / "ltx"))
    inventory = tiny_inventory("ltx")
    elsewhere = replace(inventory, path=str(model))
    before = weightless_digests(elsewhere)
    assert before == weightless_digests(inventory)
    assert set(before) == set(inventory.weightless)
    file = model / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace("1.0", "1.1", 1))
    after = weightless_digests(elsewhere)
    assert [name for name in before if before[name] != after[name]] == ["tokenizer"]


def test_what_is_no_regular_file_among_tokenizers_counts_by_its_name(tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_directory("ltx"), tmp_path / "ltx"))
    inventory = replace(tiny_inventory("ltx"), path=str(model))
    before = weightless_digests(inventory)
    os.mkfifo(model / "tokenizer" / "pipe")
    (model / "tokenizer" / "passwords").symlink_to("/etc/passwd")
    assert weightless_digests(inventory)["tokenizer"] != before["tokenizer"]


def test_a_trace_from_the_cache_needs_no_torch(cache: Path) -> None:
    directory = tiny_directory("ltx")
    script = (
        "import sys; from roost.api.models.inspect import inspect_model, profile_of; "
        "from roost.api.models.traces import trace_model; from roost.facts.request import Workload; "
        f"inventory = inspect_model({str(directory)!r}, dtype='bfloat16'); "
        f"trace = trace_model(inventory, profile_of(inventory), {tiny_workload('ltx')!r}); "
        "print(len(trace.uses), 'torch' in sys.modules)"
    )
    traces.trace_model(tiny_inventory("ltx"), profile_of(tiny_inventory("ltx")), tiny_workload("ltx"))
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(len(tiny_trace("ltx").uses)), "False"]
