"""Random worlds in which components take more than their trace tells, by up to what the plan's interval allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from roost.api.machine import emulated_gpu
from roost.facts.machine import HostFacts, Machine
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.plan.figures import Kappa
from roost.planner.by_search import plan_by_search
from roost.planner.cost.costs import CostModel
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.hold.live_inventory import read_live_inventory
from roost.residency.run.kept.files import KeptFiles
from roost.trace import VaeVariant
from roost.units import KiB, MiB
from traces import rates, trace, use
from worlds import question

STEPS = 2
WIDTH = 64
# What a part's own small tensors take: of what its trace tells, the rest is one tensor.
_SMALL_BYTES = 64 * KiB
_TILES = 8


class Part(torch.nn.Module):
    """Blocks of 16 KiB, and after them activations: of ``takes`` bytes, whatever was traced."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(blocks))
        self.takes = 0

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            state = torch.tanh(block(state))
        return self._worked(state, self.takes)

    def _worked(self, state: torch.Tensor, size: int) -> torch.Tensor:
        scratch = torch.empty(max(0, size - _SMALL_BYTES), dtype=torch.uint8)
        return state + scratch[:1].mul(0).sum()


class Encoder(Part):
    """A text encoder's class of its own: factors are by class."""


class Vae(Part):
    """Decodes whole, or in tiles that take an eighth and give other bits."""

    use_tiling = False

    def enable_tiling(self) -> None:
        self.use_tiling = True

    def disable_tiling(self) -> None:
        self.use_tiling = False

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if not self.use_tiling:
            return self.forward(latents)
        return self._worked(latents.tanh(), self.takes // _TILES)


class ToyPipeline:
    """Encodes a text, denoises, and decodes what came of it."""

    def __init__(self, transformer: Part, text_encoder: Encoder, vae: Vae) -> None:
        self.transformer, self.text_encoder, self.vae = transformer, text_encoder, vae
        self.steps_made = 0

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.transformer, "text_encoder": self.text_encoder, "vae": self.vae}

    @torch.no_grad()
    def __call__(
        self, prompt: str, generator: Any = None, output_type: str = "pt", return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        state = torch.randn(1, WIDTH, generator=generator)
        text = self.text_encoder(torch.ones(1, WIDTH))
        for _ in range(STEPS):
            state = self.transformer(state + text)
            self.steps_made += 1
        return (self.vae.decode(state),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortWorld:
    """A pipeline and its plan; on its device each part takes its own factor times what was traced."""

    pipeline: ToyPipeline
    plan: PlanDocument
    request: GenerationRequest

    def held(self, budget_bytes: int | None = None) -> Held:
        budget = self.plan.budget.budget_bytes if budget_bytes is None else budget_bytes
        device = EmulatedDevice(budget, count_activations=True, poison=False, check=False)
        try:
            held = hold(self.pipeline, self.plan, device)
        except BaseException:
            device.close()
            raise
        held.then(device.close)
        return held

    def files(self, folder: Path) -> KeptFiles:
        return KeptFiles(folder / "out.png", key="mine", shown="seed 0", say=lambda text: None)


def short_world(seed: int) -> ShortWorld | None:
    """None where nothing fits."""
    chance = Random(seed)
    torch.manual_seed(seed)
    made = ToyPipeline(
        Part(chance.randint(1, 24)).eval(), Encoder(chance.randint(1, 12)).eval(), Vae(chance.randint(1, 6)).eval()
    )
    traced = {name: chance.randint(1, 16) * MiB // 4 for name in made.components}
    high = {name: chance.uniform(1.0, 1.6) for name in made.components}
    for name, part in made.components.items():
        part.requires_grad_(False)
        part.takes = int(traced[name] * chance.uniform(1.0, high[name]))
    budget_bytes = int(max(traced.values()) * chance.uniform(0.5, 2.0))
    plan = _planned(made, traced, high, budget_bytes, forbid=chance.random() < 0.5)
    return ShortWorld(pipeline=made, plan=plan, request=GenerationRequest(prompt="a fox")) if plan.fits else None


def _planned(
    made: ToyPipeline, traced: dict[str, int], high: dict[str, float], budget_bytes: int, *, forbid: bool
) -> PlanDocument:
    found = read_live_inventory(made, lambda *_: None)
    parts = {each.name: each for each in found.components}
    encode, denoise = (use(parts[name], 10**9, traced[name]) for name in ("text_encoder", "transformer"))
    decode = use(parts["vae"], 10**9, traced["vae"], "decode")
    calls = trace((encode, 1), (denoise, STEPS), (decode, 1), steps=STEPS)
    tiled = use(parts["vae"], 2 * 10**9, traced["vae"] // _TILES, "decode")
    kappas = {
        parts[name].class_name: Kappa(low=1.0, mid=1.0, high=each, source="planted") for name, each in high.items()
    }
    host = HostFacts(available_bytes=2**30, pinnable_bytes=0, source="made up")
    machine = Machine(gpu=emulated_gpu(budget_bytes), host=host, headroom_bytes=0)
    return plan_by_search(
        SearchQuestion(
            question=replace(question(found, machine), workload=calls.workload),
            trace=replace(calls, variants=(VaeVariant(use=2, setting="tiled", trace=tiled),)),
            model=CostModel(rates=rates(), backend="emulated", kappas=kappas),
            aim=Aim(forbid=frozenset({"tiling"} if forbid else ())),
            seek_remedies=False,
        )
    )
