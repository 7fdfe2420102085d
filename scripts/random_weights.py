"""Seeded random weights under which an untrained pipeline still gives finite, varied output."""

from collections.abc import Mapping

import torch
from torch import nn

from roost.pipelines.build import fill_randomly


def fill_with_random_weights(components: Mapping[str, object]) -> None:
    """Overwrite every weight of a pipeline's components; equal components get different weights."""
    for seed, name in enumerate(sorted(components)):
        component = components[name]
        if isinstance(component, nn.Module):
            fill_randomly(component, torch.Generator().manual_seed(seed))
