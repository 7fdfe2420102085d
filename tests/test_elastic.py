"""Out of memory in a call: the run ends with the same bits on less memory, or cleanly with the reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dealing import SLOW_UNLESS_TYPICAL
from live_pipelines import STRATEGIES, bare_digest, held_by, live_pipeline, request_for, state_of
from out_of_memory import cuda_error, failing_device, failing_forwards
from plans import LAYERWISE, plan_for
from roost.api.plans.update import update_plan
from roost.errors import DeviceLost, OutOfMemory
from roost.plan import plan_to_yaml, read_plan
from roost.plan.schema import Masters
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline

HALF = {**LAYERWISE, "resident_blocks": 3}


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def outcome(name: str, strategy: Any, failing: int) -> tuple[str, int]:
    """How a generation ends whose allocation ``failing`` is refused, and how many allocations there were."""
    pipeline = live_pipeline(name)
    plan = plan_for(pipeline, strategy)
    device = failing_device(plan.budget.budget_bytes, failing)
    with device:
        try:
            with hold(pipeline, plan, device) as held:
                digest = generate(held, request_for(name)).digest
                ended = "exact" if digest == bare_digest(name) else "WRONG"
                assert held.changes or device._arena.charges < failing
        except OutOfMemory as error:
            ended = "out of memory" if "\n" not in str(error) else "several lines"
        assert device.used_bytes == 0
    return ended, device._arena.charges


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
@pytest.mark.parametrize(("name", "stride"), [("flux", 4), pytest.param("wan2.2", 7, marks=pytest.mark.slow)])
def test_an_allocation_that_fails_leaves_the_bits_or_the_baseline(
    name: str, stride: int, strategy: str, request: pytest.FixtureRequest
) -> None:
    assert bare_digest(name)
    before = state_of(live_pipeline(name))
    failing, charges, ends = 1, 1, []
    while failing <= charges:
        ended, charges = outcome(name, STRATEGIES[strategy], failing)
        ends.append(ended)
        failing += 1 if request.config.getoption("--runslow") else stride
        assert state_of(live_pipeline(name)) == before
    assert set(ends) <= {"exact", "out of memory"}
    if "resident" in strategy:
        assert ends.count("exact") > len(ends) / 2


@pytest.mark.parametrize("failing", [(3,), (1, 9), (5, 6, 7)])
@pytest.mark.parametrize("name", ["flux", "wan2.2"])
def test_activations_that_do_not_fit_cost_resident_blocks_and_no_bits(name: str, failing: tuple[int, ...]) -> None:
    pipeline = live_pipeline(name)
    plan = plan_for(pipeline, STRATEGIES["layerwise-offload, half resident"])
    attentions = [part for key, part in pipeline.transformer.named_modules() if key.endswith("to_k")]
    with held_by(pipeline, plan) as held:
        with failing_forwards(attentions, *failing):
            assert generate(held, request_for(name)).digest == bare_digest(name)
        assert len(held.changes) == len(failing)
        assert all("because memory ran out in denoise" in each for each in held.changes)
        assert any(each.startswith("transformer: ") for each in held.changes) or len(failing) == 1


class Dropping(torch.nn.Module):
    """Drops at random by the default generator and by one that it is given, and notes its calls in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(8, 8)) for _ in range(4))
        for block in self.blocks:
            block.register_module("inner", torch.nn.Sequential(torch.nn.Linear(8, 8)))

    def forward(self, states: Any, generator: Any = None, notes: Any = None, edit: bool = False) -> torch.Tensor:
        states = states["state"] if isinstance(states, dict) else states
        if edit:
            states.add_(1)
        for block in self.blocks:
            states = torch.nn.functional.dropout(block(states), 0.3, training=True)
            if generator is not None:
                states = states + torch.rand(8, generator=generator)
            if notes is not None:
                notes.append(float(states.sum()))
        return states


def dropping() -> Any:
    torch.manual_seed(0)
    transformer = Dropping().eval().requires_grad_(False)
    return SimpleNamespace(components={"transformer": transformer}, transformer=transformer)


def test_random_state_generators_and_lists_are_as_before_when_the_call_runs_again() -> None:
    pipeline, ends = dropping(), []
    for failing in ([], [1], [3], [2, 5]):
        torch.manual_seed(5)
        generator, notes = torch.Generator().manual_seed(1), [0.0]
        plan = plan_for(pipeline, {**LAYERWISE, "resident_blocks": 3})
        with held_by(pipeline, plan) as held, failing_forwards(pipeline.transformer.blocks, *failing):
            result = pipeline.transformer({"state": state()}, generator, notes)
            assert len(held.changes) == len(failing)
        ends.append((result.tolist(), notes, torch.rand(1).item(), torch.rand(1, generator=generator).item()))
    assert len(ends[0][1]) == 5
    assert ends[1:] == ends[:1] * 3


def test_an_input_edited_in_place_is_refused() -> None:
    pipeline = dropping()
    with (
        held_by(pipeline, plan_for(pipeline, HALF)),
        failing_forwards(pipeline.transformer.blocks, 2),
        pytest.raises(OutOfMemory, match=r"^denoise.*argument 0\['state'\] was edited in place"),
    ):
        pipeline.transformer({"state": state()}, edit=True)


def test_an_input_of_inference_mode_is_refused() -> None:
    pipeline = dropping()
    with (
        torch.inference_mode(),
        held_by(pipeline, plan_for(pipeline, HALF)),
        failing_forwards(pipeline.transformer.blocks, 2),
        pytest.raises(OutOfMemory, match="inference mode"),
    ):
        pipeline.transformer(state() + 0)


def test_a_cache_of_the_caller_is_refused() -> None:
    from transformers import DynamicCache

    pipeline = dropping()
    with (
        held_by(pipeline, plan_for(pipeline, HALF)),
        failing_forwards(pipeline.transformer.blocks, 1),
        pytest.raises(OutOfMemory, match="argument 'generator' is a DynamicCache, which the call may change"),
    ):
        pipeline.transformer(state(), generator=DynamicCache())


def cached(kind: str) -> Any:
    from diffusers import hooks

    return {
        "first block": lambda: hooks.FirstBlockCacheConfig(threshold=0.2),
        "pyramid": lambda: hooks.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            spatial_attention_block_identifiers=("transformer_blocks",),
            current_timestep_callback=lambda: 500,
        ),
        "taylor": lambda: hooks.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1),
        "mag": lambda: hooks.MagCacheConfig(mag_ratios=torch.ones(6), num_inference_steps=6, threshold=0.2),
    }[kind]()


@pytest.mark.dealt(2)
@pytest.mark.parametrize("kind", ["first block", "pyramid", "taylor", "mag"])
def test_cache_hooks_begin_the_second_run_with_the_state_of_the_first(kind: str) -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline, STRATEGIES["layerwise-offload, half resident"])
    parts = [pipeline.transformer.proj_out, *pipeline.transformer.single_transformer_blocks]
    request = request_for("flux", num_inference_steps=6)
    digests = []
    for failing in ([], [1], [3, 4], [12], [20, 21]):
        pipeline.transformer.enable_cache(cached(kind))
        try:
            with held_by(pipeline, plan) as held, failing_forwards(parts, *failing) as count:
                digests.append(generate(held, request).digest)
                assert len(held.changes) == sum(each <= count[0] for each in failing)
        finally:
            pipeline.transformer.disable_cache()
    assert len(set(digests)) == 1


def test_another_component_that_was_to_stay_leaves_last() -> None:
    pipeline = toy_pipeline()
    right = pipeline.vae(pipeline.transformer(state()))
    plan = plan_for(pipeline, LAYERWISE, components={"vae": {"strategy": "resident"}})
    before = state_of(pipeline)
    with held_by(pipeline, plan) as held:
        with failing_forwards(pipeline.transformer.blocks, 2, 4):
            latents = pipeline.transformer(state())
        assert [each.partition(", ")[0] for each in held.changes] == [
            "transformer: 1 slots instead of 2",
            "vae: on the device during its stages only",
        ]
        for _ in range(2):
            assert torch.equal(pipeline.vae(latents), right)
        assert held.runtime.components["vae"].plan.strategy == "snapshot-offload"
    assert held.device.used_bytes == 0
    assert state_of(pipeline) == before


def test_a_call_that_can_not_run_again_names_streaming_as_the_remedy() -> None:
    pipeline = dropping()
    with (
        held_by(pipeline, plan_for(pipeline, "snapshot-offload")),
        failing_forwards(pipeline.transformer.blocks, 2),
        pytest.raises(OutOfMemory, match=r"edited in place by the call; plan again with set='transformer=layerwise"),
    ):
        pipeline.transformer({"state": state()}, edit=True)


@pytest.mark.parametrize("strategy", ["snapshot-offload", {**LAYERWISE, "hold": True}, LAYERWISE], ids=str)
def test_with_nothing_left_the_error_names_stage_need_budget_and_remedy(strategy: Any) -> None:
    pipeline = toy_pipeline()
    remedy = r"ask for a smaller size, fewer frames or a smaller batch, or give more with vram=\.$"
    with held_by(pipeline, plan_for(pipeline, strategy)) as held:
        with (
            failing_forwards(pipeline.transformer.blocks, *range(1, 99)),
            pytest.raises(OutOfMemory, match=rf"^denoise \(transformer\): .*needs 20.00 MiB .*budget.*{remedy}"),
        ):
            pipeline.transformer(state())
        assert torch.equal(pipeline.transformer(state()), pipeline.transformer(state()))
    assert held.device.used_bytes == 0


def test_what_was_given_up_is_written_back_into_the_plan_which_then_runs_as_it_says(tmp_path: Path) -> None:
    pipeline, path = toy_pipeline(), tmp_path / "plan.yaml"
    plan = plan_for(pipeline, HALF, components={"vae": {"strategy": "resident"}})
    path.write_text(plan_to_yaml(plan))
    with held_by(pipeline, plan) as held:
        right = pipeline.vae(pipeline.transformer(state()))
        assert held.demotions == {}
        with failing_forwards(pipeline.transformer.blocks, 1, 2, 3, 4):
            pipeline.transformer(state())
        smaller = {"resident_blocks": 0, "slots": 1}
        assert held.demotions == {"transformer": smaller, "vae": {"strategy": "snapshot-offload"}}
        update_plan(path, held.demotions)
    updated = read_plan(path)
    transformer = updated.components["transformer"]
    masters = Masters(pinned=0, pageable=6, mapped=0)
    assert (transformer.resident_blocks, transformer.slots, transformer.master) == (0, 1, masters)
    assert transformer.decided_by == updated.components["vae"].decided_by == "run:out-of-memory"
    with held_by(pipeline, updated) as held:
        assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)
        assert (held.changes, held.demotions) == ([], {})


@pytest.mark.parametrize(
    "error",
    [
        cuda_error(2, "out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
    ids=["CUDA", "cuBLAS", "cuDNN"],
)
def test_memory_that_runs_out_outside_of_the_allocator_is_given_up_for_alike(error: RuntimeError) -> None:
    pipeline = live_pipeline("flux")
    with held_by(pipeline, plan_for(pipeline, HALF)) as held:
        with failing_forwards([pipeline.transformer.transformer_blocks[1]], 1, error=error):
            assert generate(held, request_for("flux")).digest == bare_digest("flux")
        assert "2 resident blocks instead of 3, because memory ran out in denoise" in held.changes[0]


def test_a_device_that_is_lost_ends_the_run_in_one_line_and_nothing_is_tried_again() -> None:
    pipeline = live_pipeline("flux")
    lost = cuda_error(700, "an illegal memory access was encountered")
    with (
        failing_forwards([pipeline.transformer.transformer_blocks[1]], 1, error=lost) as forwards,
        pytest.raises(DeviceLost) as raised,
        held_by(pipeline, plan_for(pipeline, HALF)) as held,
    ):
        generate(held, request_for("flux"))
    assert str(raised.value) == (
        "denoise (transformer): the GPU failed (CUDA error: an illegal memory access was encountered), and this process"
        " can't use it any more, so nothing is tried again; start anew, with CUDA_LAUNCH_BLOCKING=1 to see which"
        " operation it was."
    )
    assert (forwards, held.changes) == ([1], [])


def test_other_errors_of_cuda_are_nobody_s_memory() -> None:
    pipeline = live_pipeline("flux")
    error = cuda_error(9, "invalid configuration argument")
    with (
        failing_forwards([pipeline.transformer.transformer_blocks[1]], 1, error=error) as forwards,
        pytest.raises(torch.AcceleratorError, match="invalid configuration"),
        held_by(pipeline, plan_for(pipeline, HALF)) as held,
    ):
        generate(held, request_for("flux"))
    assert forwards == [1]
