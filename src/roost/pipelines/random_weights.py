"""A component with random weights: real computation at a model's real size, without its files.

The values are made on the device that computes, where gigabytes take seconds, and are the same for equal seeds, sizes
and devices. They keep activations of deep stacks finite; what they paint is noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

from roost.facts import ClassFacts
from roost.pipelines.from_configs import Described, build_component


def random_component(
    name: str,
    described: Described,
    model_dir: Path,
    *,
    class_facts: Mapping[str, ClassFacts],
    device: str,
    seed: int = 0,
) -> torch.nn.Module:
    """The component in host memory, with the shapes and dtypes of a loaded one and random values made on ``device``.

    ``model_dir`` needs only the configs; ``device`` holds one weight at a time. Raises InvalidFile for a config that
    the class can't use.
    """
    module = build_component(name, described, model_dir, class_facts.get(described.class_name, ClassFacts()))
    fill_randomly(module, torch.Generator(device).manual_seed(seed ^ zlib.crc32(name.encode())))
    return module


def fill_randomly(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Overwrites every weight with values made on the generator's device.

    Matrices keep the variance of their input, scales are near one, offsets near nothing.
    """
    with torch.no_grad():
        for name, weight in module.named_parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 1
            if fan_in > 1:
                mean, deviation = 0.0, fan_in**-0.5
            else:
                mean, deviation = 1.0 if name.endswith(("weight", "gamma")) else 0.0, 0.1
            values = torch.empty(weight.shape, dtype=weight.dtype, device=generator.device)
            weight.copy_(values.normal_(mean, deviation, generator=generator))
