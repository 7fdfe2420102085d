"""``roost profiles``: what is kept, as text, as JSON, and from one machine's store to another's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from measurements import EMULATED, RTX, WHEN, entry, rate, residual
from roost.api.measurements import store as exports
from roost.cli.app import run
from roost.profiles.store import MeasuredStore

pytestmark = pytest.mark.long

FLUX = entry(
    RTX,
    "flux.1-dev",
    rates={"matmul_flop_per_s": rate(5e13, source="fitted", n=2)},
    kappas={},
    residuals=[residual(2.0, 1.0, {"matmul_flop_per_s": 1e14}), residual(2.1, 2.0, {"matmul_flop_per_s": 5e13})],
)


@pytest.fixture
def kept() -> list[str]:
    """A store of three entries; their keys."""
    store = MeasuredStore()
    for each in (entry(), FLUX, entry(EMULATED)):
        store.put(each)
    return [each.key for each in store.entries()]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["profiles", *words]) == 0
    return capsys.readouterr().out


def test_it_lists_what_was_measured_when_and_how_often(kept: list[str], capsys) -> None:
    text = shown(capsys)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == kept
    text = " ".join(text.split())
    assert f"flux.1-dev on NVIDIA GeForce RTX 4090, driver 570.86; the latest of {WHEN}" in text
    assert "fitted: matmul 50.0 TFLOP/s (n 2)" in text
    assert "measured: pinned h2d 25.0 GB/s (n 5)" in text
    assert "activations, measured over traced: AutoencoderKL 1.23 (n 2)" in text
    assert "runs: 2; a step over its prediction: 2.00, 1.05" in text


def test_json_is_one_object(kept: list[str], capsys) -> None:
    document = json.loads(shown(capsys, "--json"))
    assert document["schema"] == 1
    assert [each["key"] for each in document["entries"]] == kept
    assert [each["runs"] for each in document["entries"]] == [0, 0, 2]
    assert document["entries"][1]["rates"]["pinned_h2d_bytes_per_s"]["value"] == 25e9
    assert (document["entries"][1]["newest"], document["notes"]) == (WHEN, [])


def test_an_empty_store_says_how_it_fills(capsys) -> None:
    assert "roost probe --save" in " ".join(shown(capsys).split())
    assert json.loads(shown(capsys, "--json"))["entries"] == []
    assert yaml.safe_load(shown(capsys, "export")) == {"schema": 1, "entries": []}


def test_an_unusable_file_is_a_note_beside_the_list(kept: list[str], capsys) -> None:
    (MeasuredStore().folder / f"{kept[0]}.yaml").write_text("{")
    assert run(["profiles"]) == 0
    captured = capsys.readouterr()
    assert kept[0] in captured.err
    assert captured.out.startswith(kept[1])


def test_an_export_imported_elsewhere_is_the_same_store(kept: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    before = MeasuredStore().entries()
    path = tmp_path / "measured.yaml"
    assert shown(capsys, "export", "-o", str(path)) == ""
    assert path.read_text() == shown(capsys, "export")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert shown(capsys, "import", str(path)) == "imported 3 entries\n"
    assert MeasuredStore().entries() == before
    assert json.loads(shown(capsys, "export", "--json"))["entries"][1]["device"]["driver"] == "570.86"


def test_what_import_would_not_read_is_not_exported(kept: list[str], monkeypatch, capsys) -> None:
    size = len(shown(capsys, "export").encode())
    monkeypatch.setattr(exports, "MAX_BYTES", size)
    assert len(shown(capsys, "export").encode()) == size
    monkeypatch.setattr(exports, "MAX_BYTES", size - 1)
    assert run(["profiles", "export"]) == 1
    assert "roost profiles delete KEY" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "schema: 1\n", "entries: [1]\nschema: 1\n", "schema: 2\nentries: []\n"])
def test_a_file_that_is_no_export_imports_nothing(text: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "measured.yaml"
    path.write_text(text)
    assert run(["profiles", "import", str(path)]) == 2
    assert "is not what roost profiles export writes" in capsys.readouterr().err
    assert run(["profiles", "import", str(tmp_path / "none")]) == 2
    assert MeasuredStore().entries() == []


def test_delete_takes_a_key_or_all_and_not_both(kept: list[str], capsys) -> None:
    assert shown(capsys, "delete", kept[0]) == "deleted 1 entry\n"
    assert kept[0] not in shown(capsys)
    for words in ((), (kept[1], "--all"), ("nothing",)):
        assert run(["profiles", "delete", *words]) == 2
        assert "roost profiles lists" in capsys.readouterr().err
    assert json.loads(shown(capsys, "delete", "--all", "--json")) == {"schema": 1, "deleted": 2}
    assert json.loads(shown(capsys, "--json"))["entries"] == []


def test_a_misplaced_json_is_told_where_it_goes(capsys) -> None:
    assert run(["profiles", "--json", "export"]) == 2
    assert "after the word export" in capsys.readouterr().err


def test_it_starts_without_torch() -> None:
    program = "import sys; from roost.cli.app import run; run(['profiles']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
