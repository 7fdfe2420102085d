"""What a lost worker, a failing request and an interrupted run cost: what is finished stays, and bits are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from fleet_cases import FLEET_CASES, fleet_plan, model_of
from roost.api.fleets.run import FleetRun, run_fleet
from roost.api.fleets.server import PipelineServer
from roost.api.runs.ready import check_model
from roost.errors import OutOfMemory, RoostError
from roost.fleet.plans import whole_plan
from roost.fleet.pool import PoolEvent, Replied, Serving, failure, tagged
from roost.fleet.tasks import Onward
from roost.plan import PlanDocument
from running_fleets import World, made

SEEDS = (1, 2, 3)
LATENTS = "fleet-seed2.png.latents.safetensors"


@pytest.fixture(scope="module")
def plan() -> PlanDocument:
    return fleet_plan(model_of("flux"), FLEET_CASES["flux"], "three")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What one process makes."""
    return made(World(tmp_path_factory.mktemp("whole"), "flux").alone(seeds=SEEDS))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, "flux")


def killed_once(where: str, seed: int = 2, times: int = 1) -> Callable[[str, int], bool]:
    """Loses that worker in so many visits of the request with that seed."""
    left = [times]

    def loses(worker: str, of: int) -> bool:
        if (worker, of) != (where, seed) or not left[0]:
            return False
        left[0] -= 1
        return True

    return loses


@pytest.mark.parametrize("worker", ["encoder-1", "denoiser-1", "decoder-1"])
def test_a_request_goes_on_where_its_worker_was_lost(worker, world, plan, whole) -> None:
    world.loses = killed_once(worker)
    record = world.fleet("three", plan, seeds=SEEDS)
    assert made(record) == whole
    assert world.notes == [f"{worker} is started again: it was killed"]
    assert {each.name: each.restarts for each in record.workers} == {
        each: int(each == worker) for each in ("encoder-1", "denoiser-1", "decoder-1")
    }
    assert len(world.visits) == 3 * 3 + 1
    assert world.visits.count(worker) == 3 + 1
    assert world.files == ["fleet-seed1.png", "fleet-seed2.png", "fleet-seed3.png", "fleet.journal.jsonl"]


@pytest.mark.parametrize("worker", ["denoiser-1", "decoder-1"])
def test_a_request_whose_worker_is_lost_three_times_fails_alone_and_the_next_run_makes_it(
    worker, world, plan, whole
) -> None:
    world.loses = killed_once(worker, times=3)
    with pytest.raises(RoostError, match=r"^its worker was lost 3 times, the last time since it was killed$"):
        world.fleet("three", plan, seeds=SEEDS)
    assert world.notes[-1].startswith("seed 2, a fox failed: its worker was lost 3 times")
    kept = [LATENTS] if worker == "decoder-1" else []
    assert world.files == ["fleet-seed1.png", *kept, "fleet-seed3.png", "fleet.journal.jsonl"]
    record = world.fleet("three", plan, seeds=SEEDS)
    assert made(record) == whole
    assert [each.skipped for each in record.generations] == [True, False, True]
    assert world.files == ["fleet-seed1.png", "fleet-seed2.png", "fleet-seed3.png", "fleet.journal.jsonl"]
    assert (world.visits.count("denoiser-1"), len(world.visits)) == ((0, 2) if kept else (1, 3))
    resumed = record.generations[1].resumed_from
    assert (resumed is not None) == bool(kept)
    if resumed is not None:
        assert (resumed.output, resumed.stage, resumed.step) == (str(world.folder / "fleet-seed2.png"), "decode", 2)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("spoil", [_flip, pytest.param(_cut, marks=pytest.mark.slow)])
def test_damaged_latents_are_one_line_and_a_new_start(spoil, world, plan, whole) -> None:
    world.loses = killed_once("decoder-1", times=3)
    with pytest.raises(RoostError):
        world.fleet("three", plan, seeds=SEEDS)
    spoil(world.folder / LATENTS)
    world.notes.clear()
    record = world.fleet("three", plan, seeds=SEEDS)
    assert made(record) == whole
    assert world.notes == [f"'{world.folder / LATENTS}' is damaged; it is not used."]
    assert record.generations[1].resumed_from is None
    assert world.visits == ["encoder-1", "denoiser-1", "decoder-1"]


@pytest.mark.slow
def test_latents_of_a_fleet_are_gone_on_from_by_one_process(world, plan, whole) -> None:
    world.loses = killed_once("decoder-1", times=3)
    with pytest.raises(RoostError):
        world.fleet("three", plan, seeds=(2,))
    record = world.alone("fleet", seeds=(2,))
    assert made(record) == whole[1:2]
    assert record.resumed_from is not None


@pytest.mark.slow
def test_no_resume_makes_what_is_left_anew(world, plan, whole) -> None:
    world.loses = killed_once("decoder-1", times=3)
    with pytest.raises(RoostError):
        world.fleet("three", plan, seeds=SEEDS)
    record = world.fleet("three", plan, seeds=SEEDS, resume=False)
    assert made(record) == whole
    assert record.generations[1].resumed_from is None
    assert world.visits == ["encoder-1", "denoiser-1", "decoder-1"]


def test_a_second_run_makes_nothing_and_starts_no_worker(world, plan, whole) -> None:
    world.fleet("three", plan, seeds=SEEDS)
    started = len(world.pools)
    record = world.fleet("three", plan, seeds=SEEDS)
    assert made(record) == whole
    assert all(each.skipped for each in record.generations)
    assert len(world.pools) == started


def test_what_fails_by_itself_is_told_and_not_tried_again(world, plan, monkeypatch) -> None:
    encode = FluxPipeline.encode_prompt

    def refuses(self: object, *args: object, **kwargs: object) -> object:
        if kwargs["prompt"] == "a goose":
            raise ValueError("no geese")
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(FluxPipeline, "encode_prompt", refuses)
    with pytest.raises(RoostError, match=r"FluxPipeline refuses the call: no geese; change that option\."):
        world.fleet("three", plan, prompts=("a fox", "a goose", "an owl"), listed=True)
    assert world.visits.count("encoder-1") == 3
    assert world.notes == [
        "seed 0, a goose failed: FluxPipeline refuses the call: no geese; change that option.",
    ]
    assert world.files == ["fleet-0001.png", "fleet-0003.png", "fleet.journal.jsonl"]


def test_memory_that_runs_out_is_a_loss_and_the_request_is_tried_again(world, plan, whole, monkeypatch) -> None:
    forward, failed = FluxTransformer2DModel.forward, []

    def short_once(self: object, *args: object, **kwargs: object) -> object:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("emulated")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(FluxTransformer2DModel, "forward", short_once)
    record = world.fleet("three", plan, seeds=SEEDS)
    assert made(record) == whole


@pytest.mark.parametrize("answer", [0, 1])
def test_a_worker_lost_as_it_answers_another_is_started_again_and_the_other_is_not(answer, tmp_path) -> None:
    world = World(tmp_path, "LTX2Pipeline")
    wanted = {"seeds": (1, 2), "steps": 1}
    whole = made(world.alone(**wanted))
    world.lose_called = {answer: "it was killed"}
    record = world.fleet("two", **wanted)
    assert made(record) == whole
    assert world.notes == ["encoder-decoder-1 is started again: it was killed"]
    assert {each.name: each.restarts for each in record.workers} == {"encoder-decoder-1": 1, "denoiser-1": 0}


def test_memory_that_runs_out_in_an_answer_is_its_workers_loss(tmp_path, monkeypatch) -> None:
    world = World(tmp_path, "LTX2Pipeline")
    whole = made(world.alone(steps=1))
    answer, failed = PipelineServer.answer, []

    def short_once(self: PipelineServer, component: str, question: bytes) -> bytes:
        if not failed:
            failed.append(component)
            return failure(OutOfMemory("no memory is left."))
        return answer(self, component, question)

    monkeypatch.setattr(PipelineServer, "answer", short_once)
    assert made(world.fleet("two", steps=1)) == whole
    assert world.notes == ["encoder-decoder-1 is started again: no memory is left."]


def test_nothing_of_a_request_is_left_with_the_workers(world, plan) -> None:
    world.loses = killed_once("decoder-1", times=3)
    with pytest.raises(RoostError):
        world.fleet("three", plan, seeds=SEEDS)
    kept = [each.name for each in (world.folder / "workers").iterdir() if each.suffix == ".safetensors"]
    assert kept == []


# A pipeline that would never end.


class Circling:
    """A pool that always sends the request on to the same component, with nothing new."""

    def __init__(self, names: Sequence[str]) -> None:
        self.started: list[str] = []
        self._events: list[PoolEvent] = [Serving(worker=each) for each in names]

    def start(self, worker: str, task: bytes) -> None:
        self.started.append(worker)
        onward = Onward(
            component="text_encoder",
            decodes=False,
            through=False,
            answers=(),
            latents=b"",
            stages=(),
            nan_components=(),
        )
        self._events.append(Replied(worker=worker, reply=tagged("onward", onward.pack())))

    def restart(self, worker: str) -> None:
        raise AssertionError("nobody was lost")

    def wait(self) -> Sequence[PoolEvent]:
        assert len(self.started) < 20, "it goes in circles"
        events, self._events = self._events, []
        return events

    def reports(self) -> dict[str, str]:
        return {}


def test_a_request_that_goes_in_circles_fails_and_says_for_what(plan, tmp_path) -> None:
    pool = Circling([each.name for each in plan.workers])
    run = FleetRun(
        document=plan,
        ready=check_model(whole_plan(plan)),
        request=FLEET_CASES["flux"].request(tmp_path, "fleet"),
        on_note=lambda _: None,
    )
    with pytest.raises(RoostError, match=r"needs text_encoder again on encoder-1, with nothing new; plan without"):
        run_fleet(run, lambda: pool)
    assert pool.started == ["encoder-1"] * 2


# Whoever loads only what it needs.


def test_a_worker_uses_no_weights_but_those_of_its_own_components(tmp_path) -> None:
    """Each one's directory has zeros in place of the others' weights, with the same headers."""
    world = World(tmp_path, "flux")
    whole = made(world.alone())
    plan = world.planned("three")
    for worker in plan.workers:
        model = _others_emptied(world.model, tmp_path / worker.name / "model", set(worker.components))
        world.models[worker.name] = model
    record = world.fleet("three", plan)
    assert made(record) == whole
    for worker, found in zip(plan.workers, record.workers, strict=True):
        weights = {name.partition("/")[0] for name in found.files_read if name.endswith(".safetensors")}
        assert weights == set(worker.components)


def _others_emptied(model: Path, copy: Path, kept: set[str]) -> Path:
    for path in (each for each in model.rglob("*") if each.is_file()):
        target = copy / path.relative_to(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        raw = path.read_bytes()
        if path.suffix == ".safetensors" and path.parent.name not in kept:
            end = 8 + int.from_bytes(raw[:8], "little")
            with target.open("wb") as file:
                file.write(raw[:end])
                file.truncate(len(raw))
        else:
            target.write_bytes(raw)
    return copy
