"""The store of what was measured: it gives back what it got, keeps devices apart, and survives what lies in its way."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurements import EMULATED, RTX, entry, rate, residual
from roost.errors import RoostError, UsageError
from roost.plan.measurements import KEPT_RUNS, DeviceKey, MeasuredEntry
from roost.profiles import lock
from roost.profiles.store import MeasuredStore


@pytest.fixture
def store(tmp_path: Path) -> MeasuredStore:
    return MeasuredStore(tmp_path / "measured")


def file_of(store: MeasuredStore) -> Path:
    (path,) = store.folder.glob("*/*.yaml")
    return path


def test_it_is_in_the_users_data_directory_and_a_test_has_its_own(tmp_path: Path, monkeypatch) -> None:
    assert not MeasuredStore().folder.exists()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert MeasuredStore().folder == tmp_path / "roost" / "measured"


def test_it_gives_back_what_it_got(store: MeasuredStore) -> None:
    whole = entry(RTX, "flux", residuals=[residual(2.0, 1.0, {"matmul_flop_per_s": 1e14})])
    store.put(whole)
    assert MeasuredStore(store.folder).read(RTX, "flux") == whole
    assert (store.read(RTX, None), store.notes) == (None, [])


@pytest.mark.parametrize(
    "other",
    [
        RTX.model_copy(update={"driver": "575.10"}),
        RTX.model_copy(update={"driver": None}),
        RTX.model_copy(update={"device_kind": "emulated"}),
        EMULATED,
        EMULATED.model_copy(update={"h2d_bytes_per_s": 20e9}),
        EMULATED.model_copy(update={"h2d_bytes_per_s": 10e9}),
    ],
)
def test_devices_never_mix(store: MeasuredStore, other: DeviceKey) -> None:
    store.put(entry(RTX))
    assert store.read(other, None) is None
    store.put(entry(other, rates={}))
    assert store.read(RTX, None) == entry(RTX)
    assert len(store.entries()) == 2


def test_names_that_differ_only_in_signs_are_kept_apart(store: MeasuredStore) -> None:
    for name in ("a/b", "a b", "A b", "../a b", "é", ""):
        store.put(entry(RTX, name or None, rates={}))
    assert len(store.entries()) == 6
    assert {path.parent.parent for path in store.folder.glob("**/*.yaml")} == {store.folder}


def test_an_update_sees_what_was_there(store: MeasuredStore) -> None:
    store.update(RTX, None, lambda old: old.model_copy(update={"rates": {"disk_bytes_per_s": rate(2e9)}}))
    store.update(RTX, None, lambda old: old.model_copy(update={"rates": {**old.rates, "pin_bytes_per_s": rate(4e9)}}))
    kept = store.read(RTX, None)
    assert kept is not None
    assert list(kept.rates) == ["disk_bytes_per_s", "pin_bytes_per_s"]


BROKEN = {
    "empty": b"",
    "binary": bytes(range(256)),
    "list": b"- 1\n",
    "torn": b"schema: 1\ndevice: {device_kind: cu",
    "alias": b"schema: &a 1\ndevice: *a\n",
    "newer": b"schema: 2\nplanets: 9\n",
    "bool": b"schema: true\n",
    "nested": b"[" * 2000,
    "huge": b"#" * (1024 * 1024 + 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_newer_file_is_noted_once_and_set_aside_when_new_figures_come(
    store: MeasuredStore, name: str
) -> None:
    store.put(entry(RTX))
    path = file_of(store)
    path.write_bytes(BROKEN[name])
    assert store.read(RTX, None) is None
    assert store.entries() == []
    (note,) = store.notes
    assert str(path) in note
    assert path.read_bytes() == BROKEN[name]
    store.put(entry(RTX))
    assert store.read(RTX, None) == entry(RTX)
    (aside,) = path.parent.glob("*.unusable*")
    assert aside.read_bytes() == BROKEN[name]
    assert store.delete_all() == 2
    assert not list(store.folder.glob("*/*.*"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("value: 25000000000.0", "value: 0.0"),
        ("value: 25000000000.0", "value: .nan"),
        ("value: 25000000000.0", "value: '25'"),
        ("spread: 1.05", "spread: 0.5"),
        ("n: 5", "n: 0"),
        ("2026-11-21T12:00:00Z", "yesterday"),
        ("source: measured", "source: guessed"),
        ("model_class: null", "model_class: null\nmore: 1"),
        ("device_kind: cuda", "device_kind: tpu"),
    ],
)
def test_a_figure_that_no_measurement_gives_makes_a_file_unusable(store: MeasuredStore, old: str, new: str) -> None:
    store.put(entry(RTX))
    path = file_of(store)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert store.read(RTX, None) is None
    assert len(store.notes) == 1


@settings(max_examples=40, deadline=None)  # every write waits for the disk
@given(st.data())
def test_whatever_a_file_holds_nothing_fails_and_nothing_unread_is_lost(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        store = MeasuredStore(Path(folder))
        store.put(entry(RTX, "flux", residuals=[residual(2.0, 1.0, {"matmul_flop_per_s": 1e14})]))
        path = file_of(store)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=10))
        path.write_bytes(content)
        read = store.read(RTX, "flux")
        store.put(entry(RTX, "flux"))
        assert store.read(RTX, "flux") == entry(RTX, "flux")
        aside = [each.read_bytes() for each in path.parent.glob("*.unusable*")]
        assert aside == ([] if read else [bytes(content)])


def test_a_file_under_another_devices_name_is_not_used(store: MeasuredStore) -> None:
    store.put(entry(RTX))
    path = file_of(store)
    path.write_text(path.read_text().replace("570.86", "999.99"))
    assert store.read(RTX, None) is None


def test_a_newer_file_says_so(store: MeasuredStore) -> None:
    store.put(entry(RTX))
    file_of(store).write_bytes(BROKEN["newer"])
    assert store.read(RTX, None) is None
    assert "a newer Roost wrote it" in store.notes[0]


def _add(folder: Path, name: str) -> None:
    for number in range(5):
        new = {f"{name}_{number}": rate()}
        MeasuredStore(folder).update(
            RTX, None, lambda old, new=new: old.model_copy(update={"rates": {**old.rates, **new}})
        )


def test_writers_at_the_same_time_lose_nothing(store: MeasuredStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(store.folder, name)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    kept = store.read(RTX, None)
    assert kept is not None
    assert len(kept.rates) == 15


def test_a_busy_store_is_refused_after_a_while(store: MeasuredStore, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.05)
    store.folder.mkdir(parents=True)
    with lock.locked(store.folder / ".lock"), pytest.raises(RoostError, match="another process has held"):
        store.put(entry(RTX))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RoostError, match="XDG_DATA_HOME"):
        MeasuredStore(tmp_path / "measured").put(entry(RTX))


def test_a_folder_that_is_a_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "measured").write_text("")
    store = MeasuredStore(tmp_path / "measured")
    with pytest.raises(RoostError, match="XDG_DATA_HOME"):
        store.put(entry(RTX))
    assert store.read(RTX, None) is None


def test_a_full_disk_is_an_error_with_a_remedy_of_its_own_and_the_old_entry_stays(
    store: MeasuredStore, monkeypatch
) -> None:
    store.put(entry(RTX))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RoostError, match="No space left on device; set XDG_DATA_HOME"):
        store.put(entry(RTX, rates={}))
    assert store.read(RTX, None) == entry(RTX)


def test_delete_takes_one_key_and_says_when_there_is_none(store: MeasuredStore) -> None:
    store.put(entry(RTX))
    store.put(entry(RTX, "flux"))
    first, second = (kept.key for kept in store.entries())
    store.delete(first)
    assert [kept.key for kept in store.entries()] == [second]
    with pytest.raises(UsageError, match="roost profiles lists"):
        store.delete("../../etc/passwd")


def test_an_entry_holds_a_bounded_number_of_runs() -> None:
    runs = [residual(1.0, 1.0, {})] * (KEPT_RUNS + 1)
    with pytest.raises(ValueError, match="residuals"):
        MeasuredEntry(device=RTX, model_class="flux", residuals=runs)
