"""What streaming costs once it runs: copies to the byte, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine_cases import Case, digest_of, held_on, plan_of, with_pinned
from live_pipelines import bare_digest, live_pipeline, weights_bytes
from plans import LAYERWISE, plan_for
from roost.blocks import resident_indices
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.hold.attach import Held, hold

STEPS = 5
REGISTERED = [f"transformer_blocks.{i}" for i in range(3)] + [f"single_transformer_blocks.{i}" for i in range(4)]
COUNTED = sorted(REGISTERED)  # the order in which resident blocks are counted
FLUX = {name: weights_bytes(live_pipeline("flux").transformer, f"{name}.") for name in REGISTERED}
CASES = [
    Case(share=share, prefetch=prefetch, policy=policy, pinned=True)
    for share, prefetch, policy in [
        (0, 1, "strided"), (0, 2, "strided"), (1, 1, "strided"), (0.5, 1, "strided"), (0.5, 2, "leading"),
        (0.5, 1, "leading"), (1.0, 1, "strided"),
    ]
]  # fmt: skip


@contextmanager
def after_each_pass(module: Any, note: Any) -> Iterator[list[Any]]:
    """What ``note`` gave at the end of each pass over the blocks of FLUX's transformer."""
    noted: list[Any] = []
    handle = module.norm_out.register_forward_hook(lambda *_: noted.append(note()))
    yield noted
    handle.remove()


def noted_arrivals(held: Held, name: str, note: Callable[[HeldComponent], Any]) -> list[Any]:
    """What ``note`` gave whenever the component was about to be acquired."""
    component = held.runtime.components[name]
    acquire, noted = component.acquire, []

    def noting() -> None:
        noted.append(note(component))
        acquire()

    component.acquire = noting  # type: ignore[method-assign]
    return noted


@pytest.mark.parametrize("case", CASES, ids=str)
def test_copies_of_a_stage_are_trunk_residents_first_slots_and_every_streamed_block_a_pass(case: Case) -> None:
    pipeline = live_pipeline("flux")
    kept = case.share if isinstance(case.share, int) else int(case.share * 7)
    staying = {COUNTED[index] for index in resident_indices([7], kept, case.policy)}
    streamed = [name for name in REGISTERED if name not in staying]
    slots = min(case.prefetch + 1, len(streamed))
    a_pass = sum(FLUX[name] for name in streamed) if len(streamed) > slots else 0
    ahead = sum(FLUX[name] for name in streamed[:slots])
    trunk = weights_bytes(pipeline.transformer) - sum(FLUX.values())
    arrival = trunk + sum(FLUX[name] for name in staying) + ahead
    plan = plan_of(pipeline, case)
    with (
        held_on("flux", plan) as (held, _device),
        after_each_pass(pipeline.transformer, lambda: held.transfers.uploaded_bytes) as uploaded,
    ):
        before = noted_arrivals(held, "transformer", lambda _: held.transfers.uploaded_bytes)
        digest_of(held, "flux", num_inference_steps=STEPS)
    assert [each - before[0] for each in uploaded] == [arrival + a_pass * (done + 1) for done in range(STEPS)]
    assert held.transfers.downloaded_bytes == 0


def test_nothing_is_waited_for_or_copied_back_from_the_arrival_on_and_nothing_allocated_after_it() -> None:
    pipeline = live_pipeline("flux")
    plan = with_pinned(plan_for(pipeline, {**LAYERWISE, "resident_blocks": 2}))
    with held_on("flux", plan) as (held, device):
        activity, waits = device.activity, list[int]()  # by thread: the staging one waits for its own buffers
        wait_host = device.wait_host

        def noting(event: Any) -> None:
            waits.append(threading.get_ident())
            wait_host(event)

        device.wait_host = noting  # type: ignore[method-assign]

        def counts() -> tuple[int, ...]:
            waited = waits.count(threading.get_ident())
            return activity.allocations, waited, activity.copied_bytes("d2h"), activity.unpinned_copies

        arrivals = noted_arrivals(held, "transformer", lambda _: counts())
        with after_each_pass(pipeline.transformer, counts) as noted:
            for _ in range(2):
                digest_of(held, "flux", num_inference_steps=STEPS)
        for before, generation in zip(arrivals, (noted[:STEPS], noted[STEPS:]), strict=True):
            assert len(set(generation[1:])) == 1
            assert generation[0][1:] == before[1:]
        assert activity.copied_bytes("d2h") == 0


@pytest.mark.parametrize("name", ["sdxl", "sd3", "qwen-image", "hunyuanvideo"])
def test_once_learnt_no_block_is_unforeseen(name: str) -> None:
    with held_on(name, plan_for(live_pipeline(name), LAYERWISE)) as (held, _device):
        digests = [digest_of(held, name) for _ in range(2)]
        learnt = {each: component.misses for each, component in held.runtime.components.items()}
        digests.append(digest_of(held, name))
        assert {each: component.misses for each, component in held.runtime.components.items()} == learnt
    assert digests == [bare_digest(name)] * 3


def test_what_fits_stays_between_generations_and_is_not_copied_again() -> None:
    with held_on("sd3", plan_for(live_pipeline("sd3"), "snapshot-offload")) as (held, _device):
        digest_of(held, "sd3")
        digest_of(held, "sd3")
        copied = held.transfers.uploaded_bytes
        assert digest_of(held, "sd3") == bare_digest("sd3")
        assert held.transfers.uploaded_bytes == copied


def test_the_next_component_comes_ahead_while_the_copy_lane_is_idle() -> None:
    pipeline = live_pipeline("wan2.2")
    experts = weights_bytes(pipeline.transformer) + weights_bytes(pipeline.transformer_2)
    # Room for both experts, and not for the encoder and the VAE beside them.
    plan = plan_for(pipeline, "snapshot-offload", budget_bytes=max(experts, weights_bytes(pipeline.vae)))
    with held_on("wan2.2", plan) as (held, _device):
        arrived = noted_arrivals(held, "transformer_2", lambda component: component.device_bytes)
        digests = [digest_of(held, "wan2.2", num_inference_steps=4) for _ in range(3)]
    assert arrived[0] == 0
    assert arrived[2] > 0
    assert len(set(digests)) == 1


def test_free_memory_is_asked_for_once_a_call_where_no_more_can_come_ahead() -> None:
    asked = []

    class AskedDevice(EmulatedDevice):
        @property
        def free_bytes(self) -> int:
            asked.append(1)
            return super().free_bytes

    pipeline = live_pipeline("sd3")
    weights = sum(weights_bytes(each) for each in (pipeline.transformer, pipeline.vae))
    plan = plan_for(pipeline, "snapshot-offload", budget_bytes=weights)
    with AskedDevice(weights) as device, hold(pipeline, plan, device) as held:
        for _ in range(3):
            asked.clear()
            digest_of(held, "sd3", num_inference_steps=8)
        stages = len(held.stages)
        units = sum(len(each.units) for each in held.runtime.components.values())
    assert len(asked) <= 2 * stages + 8 + units
