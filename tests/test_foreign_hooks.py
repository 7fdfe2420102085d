"""What else moves or converts weights is refused by its name, before the attach and at the next call after it."""

import copy
from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting

from live_pipelines import bare_digest, held_by, live_pipeline, own_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.errors import RoostError, UsageError
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline

CPU = torch.device("cpu")


def group_offloading(model: torch.nn.Module) -> None:
    apply_group_offloading(model, CPU, offload_type="leaf_level")


def group_offloading_by_block(model: torch.nn.Module) -> None:
    apply_group_offloading(model, CPU, offload_type="block_level", num_blocks_per_group=1)


def sequential_offload(model: torch.nn.Module) -> None:
    accelerate.cpu_offload(model, CPU)


def model_offload(model: torch.nn.Module) -> None:
    accelerate.cpu_offload_with_hook(model, CPU)


def mmgp(model: torch.nn.Module) -> None:
    model._mm_manager = object()


OFFLOADERS: dict[str, tuple[Callable[[torch.nn.Module], None], str]] = {
    "group offloading of leaves": (group_offloading, "diffusers' group offloading"),
    "group offloading of blocks": (group_offloading_by_block, "diffusers' group offloading"),
    "sequential offload": (sequential_offload, "accelerate's device map or sequential CPU offload"),
    "model offload": (model_offload, "diffusers' model CPU offload"),
    "mmgp": (mmgp, "mmgp's offload"),
}


@pytest.mark.parametrize("what", OFFLOADERS)
def test_another_offloader_is_refused_by_name_before_and_after_the_attach(what: str) -> None:
    put, name = OFFLOADERS[what]
    pipeline = own_pipeline("flux")
    put(pipeline.transformer)
    with (
        EmulatedDevice(2**30) as device,
        pytest.raises(UsageError, match=f"transformer are already moved by {name}"),
    ):
        hold(pipeline, plan_for(pipeline, LAYERWISE), device)
    pipeline = own_pipeline("flux")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        generate(held, request_for("flux"))
        put(pipeline.transformer)
        with pytest.raises(RoostError, match=f"transformer has met {name} while a Roost plan holds it; detach"):
            generate(held, request_for("flux"))


def test_casting_that_is_switched_on_while_a_plan_holds_is_refused() -> None:
    pipeline = own_pipeline("flux")
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        generate(held, request_for("flux"))
        apply_layerwise_casting(pipeline.transformer, torch.float8_e4m3fn, torch.float32)
        with pytest.raises(RoostError, match="transformer has met diffusers' layerwise casting"):
            generate(held, request_for("flux"))


def test_a_component_that_is_replaced_while_held_is_refused_and_goes_on_when_it_is_back() -> None:
    pipeline = copy.copy(live_pipeline("flux"))
    own, other = pipeline.vae, own_pipeline("flux").vae
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        pipeline.vae = other
        with pytest.raises(RoostError, match=r"^pipeline.vae was replaced while a Roost plan holds"):
            generate(held, request_for("flux"))
        pipeline.vae = own
        assert generate(held, request_for("flux")).digest == bare_digest("flux")


class Odd:
    """What some library hangs on its hooks; each part leads to another."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return {"next": Odd()}


def test_what_hangs_on_an_unknown_hook_is_not_followed() -> None:
    from diffusers.hooks import HookRegistry, ModelHook

    class Strange(ModelHook):
        def __init__(self) -> None:
            super().__init__()
            self.held = Odd()

    pipeline = toy_pipeline()
    right = toy_pipeline().transformer(state())
    HookRegistry.check_if_exists_or_initialize(pipeline.transformer.blocks[0]).register_hook(Strange(), "strange")
    with torch.no_grad(), held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        assert torch.equal(pipeline.transformer(state()), right)
