"""What a held component keeps in order between its calls: the bytes it counts, and what a failure leaves behind."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from live_pipelines import held_by, state_of, weights_bytes
from out_of_memory import failing_device, failing_forwards
from plans import GIB, LAYERWISE, plan_for
from roost.facts.stage import StageKey
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.eviction import Activations, UseSequence
from roost.residency.engine.ladder import least_bytes, streaming_plan
from roost.residency.weights import host_masters
from roost.residency.weights.transfers import Transfers
from toy_pipelines import ToyModel, state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def held_on(device: EmulatedDevice, strategy: Any) -> HeldComponent:
    """A toy transformer alone, without hooks."""
    pipeline = toy_pipeline()
    plan = plan_for(pipeline, strategy).components["transformer"]
    return HeldComponent("transformer", pipeline.transformer, plan, Transfers(device))


STRATEGIES: list[Any] = ["snapshot-offload", "component-offload", LAYERWISE, {**LAYERWISE, "resident_blocks": 2}]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_component_counts_what_it_holds_and_leaves_nothing_where_it_could_not_come(strategy: Any) -> None:
    failing, charges = 0, 1
    while failing <= charges:
        with failing_device(GIB, failing) as device:
            component = held_on(device, strategy)
            assert not component.present
            if failing:
                with pytest.raises(torch.OutOfMemoryError, match="planted"):
                    component.acquire()
                assert device.used_bytes == component.device_bytes == 0
            component.acquire()
            assert device.used_bytes == component.device_bytes == component.stage_bytes > 0
            assert component.present
            charges = max(charges, device._arena.charges if not failing else 0)
            component.restore()
            assert device.used_bytes == component.device_bytes == 0
        failing += 1


def test_a_block_that_is_broken_off_outside_every_call_has_its_own_parameters_when_the_plan_is_off() -> None:
    pipeline = toy_pipeline()
    linear, before = pipeline.transformer.blocks[1].linear, state_of(pipeline)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        handle = linear.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipeline.transformer.blocks[1](state())
        handle.remove()
    assert state_of(pipeline) == before


@pytest.mark.parametrize("resident_blocks", [0, 2])
def test_host_memory_that_is_short_for_new_masters_is_the_error_and_the_next_call_is_right(
    resident_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = toy_pipeline()
    linear = pipeline.transformer.blocks[3].linear

    host_memory, asked = host_masters.host_memory, []

    def short_once(count: int) -> torch.Tensor:
        asked.append(count)
        if len(asked) == 1:
            raise MemoryError("planted")
        return host_memory(count)

    with held_by(pipeline, plan_for(pipeline, {**LAYERWISE, "resident_blocks": resident_blocks})) as held:
        pipeline.transformer(state())
        held.runtime.end_call()
        linear.weight = torch.nn.Parameter(2 * linear.weight, requires_grad=False)
        with monkeypatch.context() as patch:
            patch.setattr(host_masters, "host_memory", short_once)
            with pytest.raises(MemoryError, match="planted"):
                pipeline.transformer(state())
        made = pipeline.transformer(state())
    assert torch.equal(pipeline.transformer(state()), made)


def test_a_call_that_broke_off_teaches_no_order() -> None:
    pipeline = toy_pipeline()
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        transformer = held.runtime.components["transformer"]
        pipeline.transformer(state())
        expected = transformer.predictor.upcoming()
        with pytest.raises(ValueError, match="planted"):
            pipeline.transformer(state(), None, ValueError("planted"))
        assert transformer.predictor.upcoming() == expected
        before = transformer.misses
        pipeline.transformer(state(), [5, 3, 1])
        assert transformer.misses > before


def test_another_component_that_comes_back_in_each_attempt_is_given_up_once() -> None:
    pipeline = toy_pipeline()
    pipeline.transformer.blocks[0].partner.append(pipeline.vae)  # called within each call
    right = pipeline.transformer(state())
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        with failing_forwards(pipeline.transformer.blocks[1:2], 1, 2):
            assert torch.equal(pipeline.transformer(state()), right)
        assert [each.partition(", ")[0] for each in held.changes] == [
            "vae: no longer kept on the device between its stages",
            "transformer: 1 slots instead of 2",
        ]


def test_a_component_streams_through_one_slot_where_two_are_too_much() -> None:
    with EmulatedDevice(GIB) as device:
        component = held_on(device, "snapshot-offload")
        block_bytes = component.block_bytes[0]
        assert least_bytes(component) == component.trunk_bytes + block_bytes
        for room_bytes, slots in ((block_bytes, 1), (2 * block_bytes, 2), (3 * block_bytes, 2)):
            plan = streaming_plan(component, component.trunk_bytes + room_bytes)
            assert plan is not None
            assert (plan.slots, plan.resident_blocks) == (slots, room_bytes // block_bytes - slots)
        component.restore()


def turned(model: ToyModel) -> None:
    model.embed.weight.data = model.embed.weight.data.t()


def cut(model: ToyModel) -> None:
    shift = model.blocks[2].shift
    shift.data = shift.data[:1]


@pytest.mark.parametrize("edit", [turned, cut])
@pytest.mark.parametrize("strategy", ["resident", LAYERWISE], ids=str)
def test_weights_that_are_seen_in_another_way_stay_so(strategy: Any, edit: Callable[[ToyModel], None]) -> None:
    plain, pipeline = toy_pipeline(), toy_pipeline()
    edit(plain.transformer)
    right = plain.transformer(state())
    with held_by(pipeline, plan_for(pipeline, strategy)) as held:
        pipeline.transformer(state())
        held.runtime.end_call()
        edit(pipeline.transformer)
        for _ in range(2):
            assert torch.equal(pipeline.transformer(state()), right)
            held.runtime.end_call()
    assert torch.equal(pipeline.transformer(state()), right)


@pytest.mark.parametrize(
    ("strategy", "spare_bytes", "comes"),
    [("snapshot-offload", 2048, True), ("snapshot-offload", 0, False), ("component-offload", 2048, False)],
)
def test_the_next_component_comes_ahead_where_the_plan_lets_it_and_memory_is_left(
    strategy: str, spare_bytes: int, comes: bool
) -> None:
    pipeline = toy_pipeline()
    budget_bytes = weights_bytes(pipeline.transformer) + spare_bytes  # never both components as a whole
    with held_by(pipeline, plan_for(pipeline, strategy, budget_bytes=budget_bytes)) as held:
        vae, arrived = held.runtime.components["vae"], []
        acquire = vae.acquire

        def noting() -> None:
            arrived.append(vae.device_bytes)
            acquire()

        vae.acquire = noting  # type: ignore[method-assign]
        for _ in range(3):
            for _step in range(3):
                latents = pipeline.transformer(state())
            pipeline.vae(latents)
            held.runtime.end_call()
    assert arrived[0] == 0
    assert (arrived[-1] > 0) == comes
    assert held.changes == []


def test_a_generation_teaches_who_comes_next_and_a_stage_what_it_takes_at_most() -> None:
    components: dict[str, Any] = {
        name: SimpleNamespace(name=name, plan=SimpleNamespace(linger=name == "d")) for name in "abcd"
    }
    sequence = UseSequence(components)
    for _ in range(2):
        for name in "adcb":
            sequence.use(components[name])
        sequence.end()
    sequence.use(components["a"])
    assert sequence.next_after(components["a"], components) is components["d"]
    assert sequence.furthest(components[name] for name in "bcd") is components["b"]
    assert sequence.furthest(components[name] for name in "cd") is components["c"]
    assert sequence.furthest([]) is None
    device: Any = SimpleNamespace(used_bytes=10, peak_bytes=0)
    taken, stage = Activations(device, lambda: 0), StageKey("a", "denoise")
    assert taken.of(stage) is taken.of(None) is None
    for activation_bytes in (3, 5, 4):
        taken.begin(stage)
        device.peak_bytes = 10 + activation_bytes
        taken.end()
    assert taken.of(stage) == 5
    assert taken.of(StageKey("a", "decode")) is None
