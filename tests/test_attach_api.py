"""``roost.attach`` on pipelines that a user built: planned as they are, held, and let go as they were."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import roost
from attach_options import ROOMY, SMALL
from live_pipelines import held_by, live_pipeline, own_pipeline, state_of
from plans import LAYERWISE, plan_for
from roost.api.attach import plan_pipeline
from roost.errors import InvalidFile, NothingFits, RoostError, UsageError
from roost.plan import plan_to_yaml
from toy_pipelines import ToyModel, state, toy_pipeline


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


class OwnPipeline(DiffusionPipeline):
    """A user's pipeline, with a component that no library knows."""

    def __init__(self, transformer: torch.nn.Module, painter: torch.nn.Module) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, painter=painter)

    def __call__(self, seen: list[float]) -> torch.Tensor:
        latents = state()
        for _ in range(2):
            latents = self.transformer(latents)
            seen.append(float(latents.sum()))
        result = self.painter(latents)
        self.maybe_free_model_hooks()
        return result


@pytest.mark.parametrize("saved", [False, True])
def test_a_pipeline_with_a_component_of_the_users_own_class(saved: bool, tmp_path: Path) -> None:
    toys = toy_pipeline()
    pipeline = OwnPipeline(toys.transformer, toys.vae)
    seen: list[float] = []
    right = pipeline(seen)
    before = state_of(pipeline)
    plan: Any = "auto"
    if saved:
        plan = tmp_path / "plan.yaml"
        plan.write_text(plan_to_yaml(plan_for(pipeline, {**LAYERWISE, "resident_blocks": 2})))
    with roost.attach(pipeline, plan, vram=ROOMY) as held:
        assert held.plan.components["painter"].class_name == "ToyModel"
        assert torch.equal(pipeline(seen), right)
        assert torch.equal(pipeline(seen), right)
    assert seen == seen[:2] * 3
    assert state_of(pipeline) == before


def test_what_does_not_fit_is_refused_with_the_verdict() -> None:
    with pytest.raises(NothingFits, match=r"FluxPipeline does not fit at 1024x1024: .*attach\(size="):
        roost.attach(live_pipeline("flux"), vram="16MiB")


def test_without_cuda_and_memory_the_remedy_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match=r"CUDA|GPU|NVIDIA"):
        roost.attach(live_pipeline("flux"))


def test_without_cuda_one_notice_says_that_the_emulated_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.residency.device.choice.has_cuda", lambda: False)
    pipeline = toy_pipeline()
    with pytest.warns(
        UserWarning, match="no CUDA device here: .* emulated device, which is the CPU with [.0-9]+ GiB"
    ) as said:
        roost.attach(pipeline, vram=ROOMY, **SMALL).close()
    assert len(said) == 1
    assert said[0].filename == __file__
    asked_for = plan_for(pipeline)
    assert asked_for.machine.gpu.device_kind == "emulated"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        roost.attach(pipeline, asked_for).close()


def test_nothing_to_attach_or_detach_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int has no components"):
        roost.attach(3, vram=ROOMY)
    with pytest.raises(UsageError, match="no plan holds this"):
        roost.detach(toy_pipeline())
    with pytest.raises(InvalidFile, match="is not a file"):
        roost.attach(toy_pipeline(), tmp_path / "none.yaml", vram=ROOMY)


def borrowing() -> Any:
    """Toys whose second block keeps the first one's weight in a list and reads it there."""
    pipeline = toy_pipeline()

    class Borrower(ToyModel):
        def forward(self, state: torch.Tensor, *_: Any) -> torch.Tensor:
            return torch.tanh(super().forward(state) @ self.blocks[1].borrowed[0])

    transformer = Borrower(6).eval().requires_grad_(False)
    transformer.blocks[1].borrowed = [transformer.blocks[0].linear.weight]
    pipeline.components["transformer"] = pipeline.transformer = transformer
    return pipeline


def test_a_module_that_reads_anothers_weights_stays_resident_and_says_why() -> None:
    pipeline = borrowing()
    right = pipeline.transformer(state())
    with roost.attach(pipeline, vram=ROOMY, **SMALL) as held:
        planned = held.plan.components["transformer"]
        assert planned.strategy == "resident"
        assert "blocks.1.borrowed is a weight of another module" in planned.why
        assert torch.equal(pipeline.transformer(state()), right)


def test_a_saved_plan_that_can_not_be_honoured_names_the_set_that_mends_it() -> None:
    pipeline = borrowing()
    with pytest.raises(UsageError, match=r"can't be layerwise-offload: .*; plan it with set='transformer=resident'$"):
        held_by(pipeline, plan_for(pipeline, LAYERWISE))


class Quantised(torch.Tensor):
    """Stands for a quantiser's class of tensors."""


def test_weights_of_a_quantiser_stay_whole_and_untouched() -> None:
    pipeline = toy_pipeline()
    linear = pipeline.transformer.blocks[0].linear
    quantised = torch.nn.Parameter(linear.weight.data.as_subclass(Quantised), requires_grad=False)
    linear.weight = quantised
    right = pipeline.vae(pipeline.transformer(state()))
    with roost.attach(pipeline, vram=ROOMY, **SMALL) as held:
        planned = held.plan.components["transformer"]
        assert planned.strategy == "resident"
        assert "Quantised" in planned.why
        assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)
    assert linear.weight is quantised
    with pytest.raises(UsageError, match="set='transformer=resident'"):
        held_by(pipeline, plan_for(pipeline, "snapshot-offload"))


@pytest.fixture
def one_process() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_an_fsdp_module_is_left_alone_and_a_plan_that_would_move_it_is_refused(one_process: None) -> None:
    pipeline = toy_pipeline()
    right = pipeline.vae(pipeline.transformer(state()))
    fully_shard(pipeline.transformer, mesh=init_device_mesh("cpu", (1,)))
    with roost.attach(pipeline, vram=ROOMY, **SMALL) as held:
        assert held.plan.components["transformer"].strategy == "fsdp"
        assert "FSDP" in held.plan.components["transformer"].why
        assert torch.equal(pipeline.vae(pipeline.transformer(state())), right)
        assert "transformer" not in held.runtime.components
        assert "forward" not in vars(pipeline.transformer)
    with pytest.raises(UsageError, match=r"managed by FSDP, which can't be combined with layerwise-offload"):
        roost.attach(pipeline, plan_for(toy_pipeline(), LAYERWISE), vram=ROOMY)


def test_tiling_of_the_plan_is_on_while_it_holds_and_off_after() -> None:
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline, components={"vae": {}})
    tiled = plan.components["vae"].model_copy(update={"tiling": True})
    plan = plan.model_copy(update={"components": {**plan.components, "vae": tiled}})
    before = state_of(pipeline)
    with held_by(pipeline, plan):
        assert pipeline.vae.use_tiling
    assert not pipeline.vae.use_tiling
    assert state_of(pipeline) == before


def test_a_document_is_held_as_it_is() -> None:
    pipeline = toy_pipeline()
    plan = plan_pipeline(pipeline, ROOMY, **SMALL)
    with roost.attach(pipeline, plan, vram=ROOMY) as held:
        assert held.plan == plan


def test_attaching_twice_is_refused_and_the_first_stays() -> None:
    pipeline = toy_pipeline()
    right = pipeline.transformer(state())
    with roost.attach(pipeline, vram=ROOMY, **SMALL):
        with pytest.raises(RoostError, match="another Roost plan"):
            roost.attach(pipeline, vram=ROOMY, **SMALL)
        assert torch.equal(pipeline.transformer(state()), right)
