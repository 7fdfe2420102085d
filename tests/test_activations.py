"""Activations in runs on the emulated device: counted to the byte as the dry run foretells, and part of the budget."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import roost
from dealing import SLOW_UNLESS_TYPICAL, slow
from dry_runs import real_pipeline, tiny_options, tiny_trace, tiny_workload
from live_pipelines import STRATEGIES, bare_digest, held_by, live_pipeline, own_pipeline, request_for
from out_of_memory import failing_device
from plans import GIB, plan_for
from roost.errors import OutOfMemory
from roost.plan import PlanDocument
from roost.probes.dry_run import DryRunOptions
from roost.probes.dry_run.entry_calls import made_up_arguments
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline


@contextlib.contextmanager
def counting(name: str, plan: PlanDocument) -> Iterator[tuple[Held, EmulatedDevice]]:
    """Family ``name`` held on a device that counts activations, as ``roost run --device emulated`` opens it."""
    with (
        EmulatedDevice(plan.budget.budget_bytes, count_activations=True) as device,
        hold(live_pipeline(name), plan, device) as held,
    ):
        yield held, device


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", ["flux", "wan2.2", "sdxl", *slow("sd3", "ltx")])
def test_every_call_takes_what_its_trace_says_to_the_byte(name: str) -> None:
    pipeline, taken = real_pipeline(name), []
    with (
        EmulatedDevice(GIB, count_activations=True) as device,
        hold(pipeline, plan_for(pipeline, "resident"), device) as held,
    ):

        @contextlib.contextmanager
        def noting() -> Iterator[None]:
            device.reset_peak()
            before = device.used_bytes
            with device.counting_activations():
                yield
            taken.append(device.peak_bytes - before)

        held.runtime.around_calls = noting
        pipeline(**made_up_arguments(pipeline, tiny_workload(name), tiny_options(name)))
    assert taken == [use.activation_bytes.peak_bytes for use in tiny_trace(name).ordered_uses()]


# The second budget is short: something has to leave for the encoder's activations.
@pytest.mark.dealt(2)
@pytest.mark.parametrize(
    ("name", "vram"), [("flux", "13.5MiB"), ("wan2.2", "1GiB"), *slow(("flux", "1GiB"), ("wan2.2", "15MiB"))]
)
def test_measured_peaks_are_the_predicted_ones(name: str, vram: str) -> None:
    """Within 5 %, not to the byte: alignment and what earlier stages left come on top."""
    size: dict[str, Any] = {"size": "64x64", "steps": 4} | ({"frames": 9} if name == "wan2.2" else {})
    pipeline = own_pipeline(name)
    with roost.attach(pipeline, vram=vram, ram="8GiB", headroom="0GiB", **size) as held:
        plan = held.plan
        options = DryRunOptions(guidance_argument=tiny_options(name).guidance_argument)
        pipeline(**made_up_arguments(pipeline, plan.workload, options))
        measured = {each.component: each.peak_bytes for each in held.stages}
        assert held.changes == []
    assert plan.predicted is not None
    predicted = {each.component: each.peak_bytes for each in plan.predicted.stages}
    assert measured == pytest.approx(predicted, rel=0.05)
    assert max(measured.values()) == pytest.approx(plan.predicted.peak_bytes.mid, rel=0.01)
    assert max(measured.values()) <= plan.budget.budget_bytes
    assert any(each.strategy != "resident" for each in plan.components.values()) == (vram != "1GiB")


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", ["resident", "layerwise-offload, half resident"])
@pytest.mark.parametrize("name", ["flux", "wan2.2"])
def test_activations_that_do_not_fit_cost_weights_and_no_bits(name: str, strategy: str) -> None:
    with counting(name, plan_for(live_pipeline(name), STRATEGIES[strategy])) as (held, _device):
        short = max(each.peak_bytes for each in generate(held, request_for(name)).stages) - 64 * 1024
        assert max(each.stage_bytes for each in held.runtime.components.values()) < short
    with counting(name, plan_for(live_pipeline(name), STRATEGIES[strategy], budget_bytes=short)) as (held, _device):
        generation = generate(held, request_for(name))
        assert generation.digest == bare_digest(name)
        assert max(each.peak_bytes for each in generation.stages) <= short
        assert any("because memory ran out" in each for each in held.changes)


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
def test_the_engines_own_memory_is_no_activation(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts when a pipeline's call ends is what its code still holds, whatever the strategy; then nothing."""
    assert counted_at_ends(strategy, monkeypatch) == counted_at_ends("resident", monkeypatch)


def counted_at_ends(strategy: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = []
    with counting("wan2.2", plan_for(live_pipeline("wan2.2"), STRATEGIES[strategy])) as (held, device):
        forget = device.forget_activations

        def noting() -> None:
            weights = sum(each.device_bytes for each in held.runtime.components.values())
            counted.append(device.used_bytes - weights)
            forget()

        monkeypatch.setattr(device, "forget_activations", noting)
        for _ in range(2):
            generate(held, request_for("wan2.2"))
    assert counted[-1] == 0
    return counted


def test_what_a_call_returned_counts_no_more() -> None:
    with counting("flux", plan_for(live_pipeline("flux"), "resident")) as (held, device):
        weights = device.used_bytes
        results = [
            live_pipeline("flux")(**request_for("flux").more, prompt="a fox", output_type="pt") for _ in range(2)
        ]
        assert device.used_bytes == weights
        assert len(results) == 2
        assert held.stages


def test_a_device_for_tests_of_weights_alone_counts_none() -> None:
    with held_by(live_pipeline("flux"), plan_for(live_pipeline("flux"), "resident")) as held:
        weights = held.device.used_bytes
        assert {each.peak_bytes for each in generate(held, request_for("flux")).stages} == {weights}


@pytest.mark.dealt(4)
@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
def test_any_operation_may_run_out_of_memory(strategy: str, request: pytest.FixtureRequest) -> None:
    """Weights and activations alike: the bits are those of a run that did not, or the run ends in one line."""
    ended, charges = run_failing_at(0, strategy)
    assert ended == "exact"
    assert charges > 1000
    stride = 20 if request.config.getoption("--runslow") else 331
    ends = [run_failing_at(failing, strategy)[0] for failing in range(3, charges, stride)]
    assert set(ends) <= {"exact", "out of memory"}
    assert ends.count("exact") >= len(ends) / 2


def run_failing_at(failing: int, strategy: str) -> tuple[str, int]:
    """How a generation ends whose allocation ``failing`` is refused, and how many allocations there were."""
    plan = plan_for(live_pipeline("flux"), STRATEGIES[strategy])
    with failing_device(GIB, failing, count_activations=True) as device:
        try:
            with hold(live_pipeline("flux"), plan, device) as held:
                exact = generate(held, request_for("flux")).digest == bare_digest("flux")
                ended = "exact" if exact else "WRONG"
        except OutOfMemory as error:
            ended = "out of memory" if "\n" not in str(error) else "several lines"
        assert device.used_bytes == 0
        return ended, device._arena.charges


def test_compiled_blocks_stay_compiled_while_activations_count() -> None:
    torch._dynamo.reset()
    pipeline, graphs = toy_pipeline(), []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        right = pipeline.transformer(state())
        for block in pipeline.transformer.blocks:
            block.compile(backend=backend, fullgraph=True)
        plan = plan_for(pipeline, STRATEGIES["layerwise-offload, half resident"])
        with EmulatedDevice(GIB, count_activations=True) as device, hold(pipeline, plan, device):
            for _ in range(3):
                assert torch.equal(pipeline.transformer(state()), right)
    assert len(graphs) == 1


def test_activations_count_while_something_holds_them() -> None:
    with EmulatedDevice(64 * 1024, count_activations=True) as device, device.counting_activations():
        given = torch.ones(1000)
        assert device.used_bytes == 4096
        view = given.view(10, 100)
        del given
        assert device.used_bytes == 4096
        made = view @ view.T
        assert device.used_bytes == 4096 + 512
        del view
        assert device.used_bytes == 512
        assert made.shape == (10, 10)
    del made
    assert (device.used_bytes, device.peak_bytes) == (0, 4096 + 512)


def test_activations_count_only_where_it_was_asked_for() -> None:
    with EmulatedDevice(0) as device, device.counting_activations():
        assert torch.ones(3).sum() == 3
        assert device.peak_bytes == 0


def test_activations_beyond_the_budget_run_out_of_memory_and_leave_nothing() -> None:
    with EmulatedDevice(8192, count_activations=True) as device:
        buffer = device.allocate(4096)
        device.wait("copy", device.record("compute"))
        device.copy(buffer, torch.zeros(4096, dtype=torch.uint8))
        device.wait("compute", device.record("copy"))
        weight = buffer.view(torch.float32)
        with device.counting_activations():
            assert weight.sum() == 0
            with pytest.raises(torch.OutOfMemoryError, match="emulated"):
                weight.repeat(2)
        assert device.used_bytes == 4096
