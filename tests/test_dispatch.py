"""The dispatcher alone: who gets what in which order, how many are on their way, and what becomes of losses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import RoostError
from roost.fleet.dispatch import MOST_LOSSES, Arrived, Event, Failed, Lost, Up, WorkerRole
from scripted_dispatch import Run, ScriptedExecutor

ROLES = (("encoder",), ("denoiser-1", "denoiser-2"), ("decoder",))


def test_requests_begin_and_end_in_their_order_where_all_take_alike() -> None:
    run = Run(ROLES).go(20)
    assert run.done == list(range(20))
    assert all(run.at(stage) == list(range(20)) for stage in range(3))
    served = run.dispatcher.served
    assert (served["encoder"], served["denoiser-1"] + served["denoiser-2"], served["decoder"]) == (20, 20, 20)
    assert run.notes == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 25))
def test_as_many_requests_are_on_their_way_as_there_are_workers(sizes, requests) -> None:
    stages = [[f"{stage}-{number}" for number in range(size)] for stage, size in enumerate(sizes)]
    run = Run(stages).go(requests)
    assert run.most_on_their_way == min(sum(sizes), requests)
    assert sorted(run.done) == list(range(requests))


def test_the_oldest_goes_first_where_several_wait() -> None:
    run = Run((("encoder",), ("denoiser",)))
    run.executor.held_back = {"denoiser"}
    run.go(8)
    assert run.at(1) == list(range(8))


def test_a_slow_request_holds_up_nobody_who_needs_another_worker() -> None:
    run = Run(ROLES)
    run.executor.held_back = {"denoiser-1"}
    run.go(12)
    slow = next(number for worker, number in run.executor.begun if worker == "denoiser-1")
    assert run.done == [*(each for each in range(12) if each != slow), slow]
    assert [worker for worker, _ in run.executor.begun].count("denoiser-1") == 1


def test_a_failing_request_is_told_once_and_not_tried_again() -> None:
    run = Run(ROLES)
    run.trouble["denoiser-1", 2] = run.trouble["denoiser-2", 2] = Failed(worker="denoiser-1", why=RoostError("no."))
    run.trouble["denoiser-2", 2] = Failed(worker="denoiser-2", why=RoostError("no."))
    run.go(6)
    assert run.failed == {2: "no."}
    assert run.done == [0, 1, 3, 4, 5]
    assert run.at(1).count(2) == 1
    assert run.executor.restarted == []


@pytest.mark.parametrize("worker", ["encoder", "denoiser-1", "decoder"])
def test_a_lost_worker_is_started_again_and_its_request_goes_on_where_it_was(worker) -> None:
    run = Run(ROLES)
    run.trouble[worker, 0] = Lost(worker=worker, why="it was killed")
    run.go(4)
    assert sorted(run.done) == [0, 1, 2, 3]
    assert run.executor.restarted == [worker]
    assert run.notes == [f"{worker} is started again: it was killed"]
    stage = next(index for index, names in enumerate(ROLES) if worker in names)
    assert [run.at(each).count(0) for each in range(3)] == [2 if each == stage else 1 for each in range(3)]


def test_a_request_goes_on_at_another_worker_that_is_free_meanwhile() -> None:
    run = Run((("denoiser-1", "denoiser-2"),))
    run.trouble["denoiser-1", 0] = Lost(worker="denoiser-1", why="it hangs")
    run.executor.dead = {"denoiser-1"}
    run.go(2)
    assert sorted(run.done) == [0, 1]
    assert [worker for worker, number in run.executor.begun if number == 0] == ["denoiser-1", "denoiser-2"]


def test_a_request_is_tried_again_twice_and_then_fails_alone() -> None:
    run = Run((("card-1", "card-2"),))
    run.deadly = {0}
    run.go(9)
    assert run.failed == {0: "its worker was lost 3 times, the last time since out of memory"}
    assert run.at(0).count(0) == MOST_LOSSES + 1
    assert sorted(run.done) == list(range(1, 9))


def test_a_worker_that_is_lost_at_each_start_is_given_up_after_three() -> None:
    run = Run((("card-1", "card-2"),))
    run.trouble["card-1", 0] = Lost(worker="card-1", why="it was killed")
    run.executor.dead = {"card-1"}
    run.go(5)
    assert sorted(run.done) == [0, 1, 2, 3, 4]
    assert run.executor.restarted == ["card-1", "card-1"]
    assert run.notes[-1] == "card-1 is given up: it was killed at its start"
    assert run.dispatcher.restarts == {"card-1": 2, "card-2": 0}


def test_a_worker_that_served_in_between_is_started_as_often_again() -> None:
    run = Run((("card",),))
    for number in range(5):
        run.trouble["card", number] = Lost(worker="card", why="it was killed")
    run.go(6)
    assert sorted(run.done) == list(range(6))
    assert run.dispatcher.restarts == {"card": 5}


GIVEN_UP = (
    "denoiser was lost 3 times in a row, and no other worker does its work: it was killed at its start;"
    " what is finished is saved, and the same command goes on."
)


def test_a_worker_that_is_given_up_and_alone_does_its_work_ends_the_run_at_once() -> None:
    run = Run((("encoder",), ("denoiser",)))
    run.trouble["denoiser", 1] = Lost(worker="denoiser", why="it was killed")
    run.executor.dead = {"denoiser"}
    with pytest.raises(RoostError) as ended:
        run.go(40)
    assert str(ended.value) == GIVEN_UP
    assert (run.done, run.failed) == ([0], {})
    assert run.at(0) == [0, 1, 2]
    assert run.executor.restarted == ["denoiser", "denoiser"]


def test_a_worker_that_never_starts_ends_the_run_with_its_reason() -> None:
    with pytest.raises(RoostError) as ended:
        Run((("encoder",), ("denoiser",)), dead=("denoiser",)).go(4)
    assert str(ended.value) == GIVEN_UP


def test_the_last_of_several_that_are_given_up_ends_the_run() -> None:
    run = Run((("encoder",), ("denoiser-1", "denoiser-2")), dead=("denoiser-1", "denoiser-2"))
    with pytest.raises(RoostError, match=r"^denoiser-2 was lost 3 times in a row"):
        run.go(4)
    assert run.notes[-1] == "denoiser-1 is given up: it was killed at its start"


def test_a_worker_that_never_starts_is_given_up_where_another_does_its_work() -> None:
    run = Run((("card-1", "card-2"),), dead=("card-1",)).go(4)
    assert run.done == [0, 1, 2, 3]
    assert run.notes[-1] == "card-1 is given up: it was killed at its start"


def test_losses_of_a_worker_that_has_nothing_to_do_cost_no_request() -> None:
    run = Run((("card-1", "card-2"),))

    def ends(worker: str, request: int, task: bytes) -> Event:
        if worker == "card-1" and request == 0:
            run.executor._events.append(Lost(worker="card-1", why="it was killed"))
        return Arrived(worker=worker, next=None)

    run.executor._ends = ends
    run.go(1)
    assert (run.done, run.failed) == ([0], {})


CALLS = (("encoder-decoder",), ("denoiser-1", "denoiser-2"))


def calling() -> Run:
    run = Run(CALLS)
    run.calls = {1: (("encoder-decoder",),)}
    return run


def test_a_visit_that_a_lost_worker_interrupts_is_made_again_and_its_own_worker_stays() -> None:
    run = calling()
    run.lose_called("encoder-decoder", "denoiser-1", 0)
    run.go(6)
    assert sorted(run.done) == list(range(6))
    assert run.executor.restarted == ["encoder-decoder"]
    assert run.notes == ["encoder-decoder is started again: it was killed"]
    assert run.at(1).count(0) == 2
    assert sum(run.dispatcher.served.values()) == 12


def test_a_request_that_interrupts_visits_three_times_fails_alone() -> None:
    run = calling()
    ends = run.ends

    def interrupted(worker: str, request: int, task: bytes) -> Event:
        if request == 1 and worker.startswith("denoiser"):
            run.lose_called("encoder-decoder", worker, 1)
        return ends(worker, request, task)

    run.executor._ends = interrupted
    run.executor.held_back = {"denoiser-1", "denoiser-2"}
    run.go(4)
    assert run.failed == {1: "its worker was lost 3 times, the last time since it was killed"}
    assert sorted(run.done) == [0, 2, 3]
    assert run.dispatcher.restarts == {"encoder-decoder": 3, "denoiser-1": 0, "denoiser-2": 0}


def test_a_request_waits_until_all_that_it_calls_are_up() -> None:
    run = Run((("denoiser",), ("encoder-decoder",)))
    run.calls = {0: (("encoder-decoder",),)}
    begun = []
    run.executor.on_event = lambda event: begun.append((type(event), len(run.executor.begun)))
    run.go(2)
    assert begun[:3] == [(Up, 0), (Up, 0), (Arrived, 1)]


def test_of_several_that_it_may_call_the_first_that_is_not_given_up_serves() -> None:
    run = Run((("denoiser",),))
    run.names += ["spare-1", "spare-2"]
    run.calls = {0: (("spare-1", "spare-2"),)}
    run.executor = ScriptedExecutor(run.names, run.ends, dead=["spare-1"])
    run.dispatcher.executor = run.executor
    run.dispatcher.workers = [
        WorkerRole(name=each, components=frozenset({each.split("-")[0]}), decodes=True, denoises=True)
        for each in run.names
    ]
    run.go(3)
    assert run.done == [0, 1, 2]
    assert run.notes[-1] == "spare-1 is given up: it was killed at its start"


TROUBLES = st.dictionaries(st.tuples(st.sampled_from(range(4)), st.integers(0, 11)), st.booleans(), max_size=25)


@settings(max_examples=150, deadline=None)
@given(TROUBLES, st.sets(st.sampled_from(range(4))))
def test_whatever_is_lost_or_fails_each_request_ends_once_and_none_that_had_no_trouble_fails(troubles, slow) -> None:
    run = Run(ROLES)
    for (place, number), lost in troubles.items():
        worker = run.names[place]
        event: Event = Lost(worker=worker, why="x") if lost else Failed(worker=worker, why=RoostError("no."))
        run.trouble[worker, number] = event
    run.executor.held_back = {run.names[each] for each in slow}
    run.go(12)
    assert sorted([*run.done, *run.failed]) == list(range(12))
    troubled = {number for _, number in troubles}
    assert set(run.failed) <= troubled
    for number, why in run.failed.items():
        places = [place for place, each in troubles if each == number]
        losses = sum(troubles[place, number] for place in places)
        assert why == "no." or losses > MOST_LOSSES
    assert all(one <= other for one, other in pairwise(run.at(0)) if {one, other}.isdisjoint(troubled))
