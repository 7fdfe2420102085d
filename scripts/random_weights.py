"""Seeded random weights under which an untrained pipeline still gives finite, varied output."""

from collections.abc import Mapping

import torch
from torch import nn


def fill_with_random_weights(components: Mapping[str, object]) -> None:
    """Overwrite every weight of a pipeline's components; equal components get different weights."""
    for seed, name in enumerate(sorted(components)):
        component = components[name]
        if isinstance(component, nn.Module):
            _fill_module(component, torch.Generator().manual_seed(seed))


def _fill_module(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_scaled(torch.randn(parameter.shape, generator=generator), name))


def _scaled(noise: torch.Tensor, name: str) -> torch.Tensor:
    """Matrices keep their input's variance, norms stay near one, biases near zero."""
    is_vector = noise.numel() == noise.shape[0]
    if not is_vector:
        return noise / noise[0].numel() ** 0.5
    return 1 + 0.1 * noise if name.endswith(("weight", "gamma")) else 0.1 * noise
