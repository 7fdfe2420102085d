"""What a caching allocator with room takes of a device: what small tensors leave can't hold larger ones."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from roost.planner.cost.estimate import predict
from roost.probes.dry_run.liveness import CachingAllocator
from roost.units import GiB, MiB
from traces import case_of, forecast, trace, use
from worlds import component, machine


def test_what_grows_takes_new_segments_and_what_shrinks_takes_none() -> None:
    growing, shrinking = CachingAllocator(), CachingAllocator()
    for size in (64, 128, 256):
        growing.release(growing.allocate(size * MiB))
        shrinking.release(shrinking.allocate(320 * MiB - size * MiB))
    assert (growing.taken_bytes, growing.kept_bytes) == (448 * MiB, 192 * MiB)
    assert (shrinking.taken_bytes, shrinking.kept_bytes) == (256 * MiB, 0)


def test_neighbours_that_are_free_hold_what_is_larger_than_either() -> None:
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(300 * MiB))
    parts = [allocator.allocate(100 * MiB) for _ in range(3)]
    for each in (parts[0], parts[2], parts[1]):
        allocator.release(each)
    allocator.allocate(300 * MiB)
    assert allocator.kept_bytes == 0


def test_small_and_medium_requests_have_segments_of_their_own() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1)
    assert allocator.taken_bytes == 2 * MiB
    allocator.allocate(2 * MiB)
    assert (allocator.taken_bytes, allocator.used_bytes) == (22 * MiB, 2 * MiB + 512)


def test_nothing_is_lost_in_random_orders() -> None:
    for seed in range(50):
        chance, allocator, held = Random(seed), CachingAllocator(), list[object]()
        for _ in range(300):
            if held and chance.random() < 0.5:
                allocator.release(held.pop(chance.randrange(len(held))))  # type: ignore[arg-type]
            else:
                held.append(allocator.allocate(chance.choice((100, 3000, MiB, 3 * MiB, 17 * MiB))))
            assert allocator.taken_bytes >= allocator.most_bytes >= allocator.used_bytes
        for each in held:
            allocator.release(each)  # type: ignore[arg-type]
        free = sum(size for entries in allocator._free.values() for size, *_ in entries)
        assert (allocator.used_bytes, free) == (0, allocator.taken_bytes)


def test_a_plan_says_what_is_kept_only_as_far_as_the_run_lets_it() -> None:
    parts = (component("vae", GiB),)
    seen = replace(trace((use(parts[0], 10**12, GiB, "decode"), 1)), kept_bytes=3 * GiB)
    found = []
    for free_gib in (40, 5, 3):
        made = forecast(parts, seen, free_gib=free_gib)
        made = replace(made, model=replace(made.model, backend="cuda"), machine=machine(free_gib, headroom_gib=0))
        _, placements = case_of(parts, made)
        predicted = predict(made, placements)
        assert predicted.reserved_bytes is not None
        found.append((predicted.kept_bytes, made.machine.limit_bytes - predicted.reserved_bytes.high))
    (ample, _), (some, room), (none, short) = found
    assert ample == 3 * GiB
    assert 0 < some == room < 3 * GiB
    assert none == max(0, short) < some
    emulated = forecast(parts, seen)
    assert predict(emulated, case_of(parts, emulated)[1]).kept_bytes == 0
