"""Rounds of ranks: who makes which generation, what rank 0 saves of the others', and when all make the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("diffusers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from plans import plan_for
from roost.api.measurements.run_records import GenerationRecord
from roost.api.models.inspect import inspect_model
from roost.api.requests.request import PlannedCall, PlannedGeneration
from roost.api.runs.elsewhere.outputs import save_done
from roost.api.runs.elsewhere.rounds import Rounds, why_together
from roost.api.runs.kept import Books
from roost.api.runs.made import Made
from roost.api.runs.ready import ReadyPlan
from roost.errors import RoostError, SaidElsewhere
from roost.facts.machine import Ranks
from roost.facts.step_cache import StepCache
from roost.fleet.tasks import Done, Part
from roost.plan import PlanDocument
from roost.plan.revision import revised
from roost.residency.engine.stages import StageRecord
from roost.residency.sharded import group as groups
from roost.residency.sharded.group import RankGroup
from test_loader import read_pipeline
from tiny_models import build

WORLD = 3


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> ReadyPlan:
    folder = build("wan2.2", tmp_path_factory.mktemp("rounds") / "wan")
    sharded = {name: {"strategy": "fsdp"} for name in ("transformer", "transformer_2")}
    plan = plan_for(read_pipeline(folder, torch_dtype=torch.bfloat16), components=sharded)
    inventory = inspect_model(str(folder))
    return ReadyPlan(
        plan=plan, model_dir=folder, inventory=inventory, device_kind="emulated", budget_bytes=0, changes=()
    )


def of_rank(ready: ReadyPlan, rank: int, world: int, **fields: Any) -> ReadyPlan:
    """The plan as one rank has it, whose group is only asked which that is."""

    class Alone:
        ranks = Ranks(rank=rank, world=world, local_rank=rank, local_world=world)

    return replaced(ready, group=cast(RankGroup, Alone()), **fields)


def replaced(ready: ReadyPlan, plan: PlanDocument | None = None, **fields: Any) -> ReadyPlan:
    return replace(ready, plan=plan or ready.plan, **fields)


def calls(count: int, folder: Path | None = None) -> list[PlannedCall]:
    return [
        (PlannedGeneration(prompt=str(each), number=each, seed=0, output=folder and folder / f"{each}.png"),)
        for each in range(count)
    ]


# Who makes which.


@given(count=st.integers(0, 30), world=st.integers(1, 8))
def test_every_call_is_some_rank_s_own_once_and_all_ranks_make_as_many(wan: ReadyPlan, count: int, world: int) -> None:
    wanted = calls(count)
    ranks = [Rounds(of_rank(wan, rank, world), wanted).own for rank in range(world)]
    assert {len(each) for each in ranks} == {-(-count // world)}
    by_round = list(zip(*ranks, strict=True))
    assert [part.place for parts in by_round for part in parts if part.is_own] == list(range(count))
    for parts in by_round:
        assert all(part.wanted == wanted[part.place] for part in parts)
        assert {part.place for part in parts if not part.is_own} <= {count - 1}
        theirs = {rank: part.wanted if part.is_own else None for rank, part in enumerate(parts) if rank}
        assert [part.others for part in parts] == [theirs, *({} for _ in parts[1:])]


def test_ranks_that_must_go_together_make_all_and_rank_0_saves_its_own(wan: ReadyPlan) -> None:
    cached = revised(wan.plan, cache=StepCache(name="first-block", threshold=0.1))
    for rank in range(2):
        rounds = Rounds(of_rank(wan, rank, 2, plan=cached), calls(3))
        assert not rounds.apart
        assert [part.place for part in rounds.own] == [0, 1, 2]
        assert [part.is_own for part in rounds.own] == [rank == 0] * 3
        assert [part.others for part in rounds.own] == [{} if rank else {1: None}] * 3


def test_what_may_call_shards_in_other_numbers_goes_together(wan: ReadyPlan) -> None:
    assert why_together(wan) is None
    encoder = revised(wan.plan.components["text_encoder"], strategy="fsdp")
    plan = revised(wan.plan, components={**wan.plan.components, "text_encoder": encoder})
    assert "text_encoder is sharded" in str(why_together(replaced(wan, plan=plan)))
    by_values = revised(wan.plan.model, pipeline="LLaDA2Pipeline")
    plan = renamed(revised(wan.plan, model=by_values), "transformer", "model")
    assert "may call its denoiser" in str(why_together(replaced(wan, plan=plan)))


def renamed(plan: PlanDocument, old: str, new: str) -> PlanDocument:
    components = {new if name == old else name: each for name, each in plan.components.items()}
    return revised(plan, components=components, load_order=[new if each == old else each for each in plan.load_order])


# What ranks tell each other.


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> list[RankGroup]:
    """All ranks of a run, in one process."""
    store = HashStore()
    monkeypatch.setattr(groups, "rendezvous", lambda *_, **__: iter([(store, 0, 0)]))
    return [RankGroup(Ranks(rank=rank, world=WORLD, local_rank=rank, local_world=WORLD)) for rank in range(WORLD)]


def at_once(*work: Callable[[], None]) -> list[BaseException | None]:
    """What each of several threads ends with."""
    found: list[BaseException | None] = [None] * len(work)

    def run(index: int) -> None:
        try:
            work[index]()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(work))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert not any(each.is_alive() for each in threads)
    return found


def test_bytes_of_any_size_reach_rank_0_in_their_order(ranks: list[RankGroup]) -> None:
    large = bytes(range(256)) * 4 * 1024 * 9  # nine MiB
    for raw in (large, b"", b"\0\n"):
        ranks[1].send(raw)
    ranks[2].send(b"other")
    assert [ranks[0].receive(rank) for rank in (2, 1, 1, 1)] == [b"other", large, b"", b"\0\n"]


def enter(groups: list[RankGroup]) -> list[AbstractContextManager[None]]:
    rounds = [each.round() for each in groups]
    for each in rounds:
        each.__enter__()
    return rounds


def test_ranks_that_call_the_same_shards_go_on(ranks: list[RankGroup]) -> None:
    for _ in range(2):
        rounds = enter(ranks)
        for name in ("transformer", "transformer_2"):
            for group in ranks:
                group.begin(name)
        for each in rounds:
            each.__exit__(None, None, None)
    assert at_once(*(lambda group=group: group.agree("made") for group in ranks)) == [None] * WORLD


@pytest.mark.parametrize("others", [("a",), ("b", "a"), ("a", "b", "b")])
def test_ranks_that_call_other_shards_end_instead_of_exchanging_them(
    ranks: list[RankGroup], others: tuple[str, ...]
) -> None:
    first, *_ = enter(ranks)
    for group, names in zip(ranks, (("a", "b"), others, ("a", "b")), strict=True):
        for each in names:
            group.begin(each)
    with pytest.raises(RoostError, match="what rank 1 generates uses the shards in another order or number than"):
        first.__exit__(None, None, None)


def test_who_waits_hears_of_calls_that_come_too_many(ranks: list[RankGroup]) -> None:
    first, *_ = enter(ranks)
    for group in ranks:
        group.begin("transformer")
    first.__exit__(None, None, None)
    ranks[1].begin("transformer")  # and waits for gathers that nobody makes
    (error,) = at_once(lambda: ranks[0].receive(1) and None)
    assert isinstance(error, RoostError)
    assert "transformer × 2, transformer × 1" in str(error)


# What rank 0 has of them.


def done(digest: str) -> Done:
    stage = StageRecord(name="decode", component="vae", phase="decode", seconds=1.0, peak_bytes=7)
    return Done(
        parts=[Part(digest=digest, has_nan=True, files=[("2.png", digest.encode())])],
        seconds=3.0,
        latent_digest="latents",
        stages=[stage],
        nan_components=["vae"],
        resumed=None,
    )


def test_outputs_that_arrived_are_saved_though_another_rank_failed(
    wan: ReadyPlan, ranks: list[RankGroup], tmp_path: Path
) -> None:
    wanted = calls(3, tmp_path)
    part = Rounds(replaced(wan, group=ranks[0]), wanted).own[0]
    ranks[2].send(done("third").pack())
    ranks[1].fail(5)
    noted: list[str] = []

    class Noting:
        there: tuple[()] = ()

        class kept:
            finished = staticmethod(lambda _: None)

        note = staticmethod(lambda each, record: noted.append(each.prompt))

    received = part.received()
    (record,) = save_done(cast(Books, Noting), *next(received)).values()
    with pytest.raises(SaidElsewhere) as ended:
        next(received)
    assert ended.value.exit_code == 5
    assert noted == ["2"]
    path = tmp_path / "2.png"
    assert path.read_bytes() == b"third"
    assert record == GenerationRecord(
        prompt="2",
        seed=0,
        output=[str(path)],
        digest="third",
        latent_digest="latents",
        seconds=3.0,
        stages=tuple(done("third").stages),
        peak_bytes=7,
        skipped=False,
        has_nan=True,
        nan_components=("vae",),
    )


def test_what_memory_did_not_allow_on_another_rank_is_told_with_its_outputs(
    wan: ReadyPlan, ranks: list[RankGroup]
) -> None:
    made = [Made(changes=["all"]) for _ in ranks]
    made[2].changes.append("the vae ran tiled")
    made[2].demotions["vae"] = {"tiling": True}
    rounds = [Rounds(replaced(wan, group=group), calls(3)) for group in ranks]
    closing = [(lambda each=each, own=own: each.close(own)) for each, own in zip(rounds, made, strict=True)]
    assert at_once(*closing) == [None] * WORLD
    assert made[0].changes == ["all", "rank 2: the vae ran tiled"]
    assert made[0].tiled == ["vae"]
