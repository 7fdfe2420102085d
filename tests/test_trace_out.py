"""``roost run --trace-out``: a recording tells every call, block and copy, changes nothing, and survives a failure."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from build_demo_model import build_demo_model
from live_pipelines import STRATEGIES, bare_digest, held_by, live_pipeline, own_pipeline, request_for, state_of
from plans import LAYERWISE, plan_for
from roost.api.plans.plan import make_plan
from roost.cli.app import run
from roost.plan import PlanDocument, plan_to_yaml
from roost.residency.device.cuda import CudaDevice
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.media import outputs
from roost.residency.run import recording as recording_module
from roost.residency.run.generate import generate
from roost.residency.run.recording import Recording
from roost.timeline import MemoryLevel, Pass, Slice
from trace_event_format import check_trace

GIB = 1024**3


def recorded(held: Held, name: str = "wan2.2") -> tuple[tuple[Slice, ...], tuple[Pass, ...], tuple[MemoryLevel, ...]]:
    with Recording(held) as recording:
        generate(held, request_for(name))
    return recording.read()


def check_order(slices: tuple[Slice, ...], passes: tuple[Pass, ...]) -> None:
    """Each lane does one thing at a time; a block runs within a call of its component."""
    lanes: dict[str, list[Slice]] = defaultdict(list)
    for each in slices:
        assert 0 <= each.start_s <= each.end_s
        lanes[each.lane].append(each)
    for lane in lanes.values():
        assert all(before.end_s <= after.start_s for before, after in pairwise(lane))
    assert all(before.end_s <= after.start_s for before, after in pairwise(passes))
    for each in lanes["compute"]:
        inside = [call for call in passes if call.start_s <= each.start_s and each.end_s <= call.end_s]
        assert [call.component for call in inside] == [each.component]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_recording_tells_every_copy_and_call_under_every_strategy(strategy: str) -> None:
    pipeline = live_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        held.transfers.uploaded_bytes = held.transfers.downloaded_bytes = 0
        slices, passes, _ = recorded(held)
        transfers = held.transfers
        copies = [each for each in slices if each.lane == "copy"]
        assert sum(each.bytes for each in copies if each.bytes > 0) == transfers.uploaded_bytes
        assert -sum(each.bytes for each in copies if each.bytes < 0) == transfers.downloaded_bytes
        blocks = {name: set(each.rungs.names) for name, each in held.runtime.components.items()}
    check_order(slices, passes)
    assert not any(each.component == "?" for each in slices)
    used = {each.component for each in passes}
    assert used == {"text_encoder", "transformer", "transformer_2", "vae"}
    for name in used - {"vae"}:  # whose decoder is used, not its encoder
        ran = {each.part for each in slices if each.component == name and each.lane == "compute"}
        assert ran == blocks[name]


def test_a_recording_changes_neither_the_bits_nor_the_pipeline() -> None:
    pipeline = live_pipeline("flux")
    bare = bare_digest("flux")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        before = state_of(pipeline)
        with Recording(held):
            assert state_of(pipeline) != before
            assert generate(held, request_for("flux")).digest == bare
        assert held.transfers.watch is None
        assert generate(held, request_for("flux")).digest == bare


def hook_counts(pipeline: Any) -> dict[str, list[int]]:
    modules = {name: each for name, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
    return {
        f"{name}.{path}": [*part._forward_hooks, *part._forward_pre_hooks]
        for name, module in modules.items()
        for path, part in module.named_modules()
    }


def test_hooks_of_a_recording_go_with_it() -> None:
    pipeline = live_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline)) as held:
        before = hook_counts(pipeline)
        with Recording(held):
            assert hook_counts(pipeline) != before
        assert hook_counts(pipeline) == before


def test_memory_reaches_the_peak_of_the_device_and_tells_the_weights_apart() -> None:
    pipeline = live_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        held.runtime.around_calls = held.device.counting_activations
        with Recording(held) as recording:
            made = generate(held, request_for("wan2.2"))
        _, _, levels = recording.read()
    assert [each.time_s for each in levels] == sorted(each.time_s for each in levels)
    assert max(each.total_bytes for each in levels) == made.peak_bytes
    assert {"transformer", "transformer_2", "text_encoder", "vae"} <= {name for each in levels for name in each.bytes}


def test_asking_for_the_highest_level_changes_no_other_figure() -> None:
    with EmulatedDevice(GIB) as device:
        first = device.allocate(4096)
        device.free(first)
        assert (device.peak_bytes, device.take_high_bytes(), device.peak_bytes) == (4096, 4096, 4096)
        assert device.take_high_bytes() == 0
        device.free(device.allocate(256))
        device.reset_peak()
        assert (device.peak_bytes, device.take_high_bytes()) == (0, 256)


def test_copies_through_the_staging_thread_have_their_times_too() -> None:
    pipeline = own_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        assert held.transfers.pinned_bytes == 0
        slices, passes, _ = recorded(held)
    check_order(slices, passes)


def test_a_recording_of_a_broken_call_tells_what_came_before() -> None:
    pipeline = own_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:

        def break_it(*_: object) -> None:
            raise RuntimeError("planted")

        pipeline.transformer_2.blocks[1].register_forward_pre_hook(break_it)
        with pytest.raises(RuntimeError, match="planted"), Recording(held) as recording:
            generate(held, request_for("wan2.2"))
        slices, passes, _ = recording.read()
    check_order(slices, passes)
    assert sum(each.component == "transformer_2" for each in passes) == 1
    assert any((each.component, each.part) == ("transformer_2", "blocks.0") for each in slices)
    assert not any(each.component == "vae" for each in passes)


SMALL = {"gpu": "emulated", "vram": "22MiB", "headroom": "0", "size": "96x64", "frames": 9, "steps": 3}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> PlanDocument:
    folder = tmp_path_factory.mktemp("trace-out") / "model"
    build_demo_model(folder)
    return make_plan(folder, **SMALL)


def test_the_command_writes_measured_beside_predicted(plan: PlanDocument, tmp_path: Path, capsys) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    words = [
        "run",
        f"{tmp_path}/plan.yaml",
        "--prompt",
        "x",
        "--steps",
        "2",
        "--trace-out",
        f"{tmp_path}/t.json",
        "--json",
    ]
    assert run(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["digest"]
    assert "t.json" in captured.err
    document = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    check_trace(document)
    names = [each["args"]["name"] for each in document["traceEvents"] if each["name"] == "process_name"]
    assert [name.split(":")[0] for name in names] == ["measured", "predicted"]
    assert "2 steps" in names[0]
    assert "3 steps" in names[1]
    assert {each["pid"] for each in document["traceEvents"] if each["ph"] == "X"} == {1, 2}


def test_a_run_that_fails_midway_leaves_the_trace_and_its_own_error(plan, tmp_path: Path, capsys, monkeypatch) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")

    def save_nothing(*_: object) -> None:
        raise OSError("planted: no space left")

    monkeypatch.setattr(outputs, "save_outputs", save_nothing)
    words = ["run", f"{tmp_path}/plan.yaml", "--prompt", "x", "-o", f"{tmp_path}/x.mp4"]
    words += ["--trace-out", f"{tmp_path}/t.json"]
    assert run(words) == 1
    assert "planted" in capsys.readouterr().err
    document = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    check_trace(document)
    assert sum(each["ph"] == "X" for each in document["traceEvents"]) > 20
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_run_in_which_nothing_is_left_to_do_says_that_there_is_no_trace(plan, tmp_path: Path, capsys) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    words = ["run", f"{tmp_path}/plan.yaml", "--prompt", "x", "--seed", "1", "--seed", "2", "--steps", "1"]
    words += ["-o", f"{tmp_path}/x.mp4", "--trace-out", f"{tmp_path}/t.json"]
    assert run(words) == 0
    assert "saved" in capsys.readouterr().err
    (tmp_path / "t.json").unlink()
    assert run(words) == 0
    assert "t.json is not written" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("name", ["trace.txt", "plan.yaml/trace.json"])
def test_a_place_that_can_not_hold_the_trace_is_said_before_loading(plan, name: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    assert run(["run", f"{tmp_path}/plan.yaml", "--prompt", "x", "--trace-out", f"{tmp_path}/{name}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert "--trace-out" in line


@pytest.mark.gpu
def test_a_cuda_device_times_both_streams_and_knows_its_highest_level() -> None:
    pipeline = own_pipeline("wan2.2")
    with CudaDevice(GIB) as device, hold(pipeline, plan_for(pipeline, LAYERWISE), device) as held:
        generate(held, request_for("wan2.2"))
        with Recording(held) as recording:
            made = generate(held, request_for("wan2.2"))
        slices, passes, levels = recording.read()
    check_order(slices, passes)
    assert sum(each.bytes for each in slices if each.lane == "copy") > 0
    assert max(each.total_bytes for each in levels) == pytest.approx(made.peak_bytes, rel=0.05)


def test_a_long_run_puts_no_more_marks_on_the_lanes_than_are_recorded(monkeypatch) -> None:
    pipeline = live_pipeline("wan2.2")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        mark, marks = held.device.mark, list[object]()
        monkeypatch.setattr(held.device, "mark", lambda *lane: (marks.append(lane), mark(*lane))[1])
        generate(held, request_for("wan2.2"))
        without, made = len(marks), Recording(held)
        with made:
            monkeypatch.setattr(recording_module, "_MOST_MARKS", 0)
            marks.clear()
            generate(held, request_for("wan2.2"))
            assert len(marks) == without
        assert not made.complete
