"""A pipeline of toy components whose calls a test steers: which blocks run, in which order, how often."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

WIDTH = 8


class ToyBlock(torch.nn.Module):
    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.register_buffer("shift", torch.randn(WIDTH))
        self.partner: list[torch.nn.Module] = []  # in a list, so that it is no submodule

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        state = torch.tanh(self.linear(state)) + self.shift
        for other in self.partner:
            state = state + other(state)
        return state


class ToyModel(torch.nn.Module):
    """Runs the blocks that it is told to, and refuses to go on at ``fails_at``."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(WIDTH, WIDTH)
        self.blocks = torch.nn.ModuleList(ToyBlock() for _ in range(blocks))

    def forward(
        self, state: torch.Tensor, order: Sequence[int] | None = None, error: BaseException | None = None
    ) -> torch.Tensor:
        state = self.embed(state)
        for place, index in enumerate(range(len(self.blocks)) if order is None else order):
            if error is not None and place == 2:
                raise error
            state = self.blocks[index](state)
        return state


def toy_pipeline(blocks: int = 6, seed: int = 0) -> Any:
    """A transformer and a VAE of that many blocks, with seeded weights, in inference mode."""
    torch.manual_seed(seed)
    models = {"transformer": ToyModel(blocks), "vae": ToyModel(blocks)}
    for model in models.values():
        model.eval().requires_grad_(False)
    return SimpleNamespace(components=models, **models)


def state(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed))
