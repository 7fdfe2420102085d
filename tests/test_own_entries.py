"""Components whose pipelines call methods of their own: every strategy gives the bits of the bare pipeline."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

import roost
from roost.errors import RoostError
from roost.pipelines.entries import entry_methods, own_methods
from tiny_models import FAMILIES

PLACEMENTS = (
    "resident",
    "snapshot-offload",
    "component-offload",
    "layerwise-offload,resident_blocks=0",
    "layerwise-offload,resident_blocks=2,prefetch=2",
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))


def _logged(function: Any) -> Any:
    @functools.wraps(function)
    def logged(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return logged


class Encoder(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 32, layers: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.scale, self.shift = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.tiles = 1

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encode_ids(ids)

    def encode_ids(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for block in self.blocks[:-1]:
            x = block(x) + x
        return x

    @_logged
    def post_process_latents(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift + self.blocks[-1].linear.weight.sum()

    def _read_by_name(self, x: torch.Tensor) -> torch.Tensor:
        stack = getattr(self, "blocks")  # noqa: B009
        return torch.cat([x, stack[1].norm.weight.data[None].expand(*x.shape)], -1).view(-1, x.shape[-1])

    def by_another(self, x: torch.Tensor) -> torch.Tensor:
        return self._read_by_name(x) * self.tiles

    def scale_up(self) -> None:
        self.scale.mul_(2)

    def set_tiles(self, tiles: int) -> None:
        self.tiles = tiles

    def halves(self) -> Iterator[Any]:
        yield from self.blocks


class OwnPipeline(DiffusionPipeline):
    """``peeks`` looks where no dry run can."""

    peeks = False

    def __init__(self, text_encoder: nn.Module, transformer: nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(text_encoder=text_encoder, transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | None = None,
        num_inference_steps: int = 2,
        height: int = 64,
        width: int = 64,
        generator: torch.Generator | None = None,
        output_type: str = "latent",
    ) -> torch.Tensor:
        ids = torch.arange(8).to(self._execution_device)
        encoder = self.text_encoder
        embedded = encoder.encode_ids(ids)
        if self.peeks:
            assert embedded.data_ptr()
        x = torch.randn(8, 32, generator=generator).to(embedded.device)
        for _ in range(num_inference_steps):
            x = self.transformer.post_process_latents(self.transformer(ids)) + x * 0.1
        x = self.transformer.by_another(x)[: len(x)] + getattr(encoder, "by_another")(x)[: len(x)]  # noqa: B009
        return encoder.post_process_latents(x + embedded).cpu()


def made(*, peeks: bool = False) -> OwnPipeline:
    torch.manual_seed(1)
    pipeline = OwnPipeline(Encoder(), Encoder(), DDIMScheduler())
    pipeline.peeks = peeks
    return pipeline


def call(pipeline: OwnPipeline) -> torch.Tensor:
    return pipeline("a fox", generator=torch.Generator().manual_seed(3))


def held(pipeline: OwnPipeline, placement: str) -> Any:
    sets = (f"transformer={placement}", f"text_encoder={placement}")
    return roost.attach(pipeline, vram="64MiB", headroom="0", ram="4GiB", size="64x64", steps=2, set=sets)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("peeks", [False, True])
def test_methods_of_its_own_give_the_bits_of_the_bare_pipeline(placement: str, peeks: bool) -> None:
    pipeline = made(peeks=peeks)
    right = call(pipeline)
    with held(pipeline, placement) as holding:
        assert holding.plan.fits
        assert holding.plan.budget.activations_known is not peeks
        assert all(each.decided_by.startswith("flag:") for each in holding.plan.components.values())
        assert any("no dry run" in each for each in holding.plan.warnings) is peeks
        assert all(torch.equal(call(pipeline), right) for _ in range(3))
    assert torch.equal(call(pipeline), right)


def test_a_dry_run_counts_methods_of_its_own() -> None:
    with held(made(), "component-offload") as holding:
        assert holding.plan.trace is not None
        used = {(each.component, each.method) for each in holding.plan.trace.uses}
        assert ("text_encoder", "encode_ids") in used
        assert ("transformer", "post_process_latents") in used


def test_a_method_of_its_own_that_changes_weights_is_refused_where_that_would_be_lost() -> None:
    for placement in ("resident", "snapshot-offload"):
        pipeline = made()
        with torch.no_grad(), held(pipeline, placement):
            if placement == "resident":
                pipeline.transformer.scale_up()
            else:
                with pytest.raises(RoostError, match=r"transformer changes weights of its own while it runs .*detach"):
                    pipeline.transformer.scale_up()


def test_only_what_reaches_weights_is_an_entry() -> None:
    module = Encoder()
    entries = {"encode_ids", "post_process_latents", "_read_by_name", "by_another", "scale_up"}
    assert set(own_methods(module)) == entries
    assert set(entry_methods(module)) == {"forward", *entries}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_classes_of_the_libraries_have_the_usual_entries_only(name: str) -> None:
    modules = [each for each in FAMILIES[name].make().components.values() if isinstance(each, nn.Module)]
    assert all(own_methods(each) == () for each in modules)
