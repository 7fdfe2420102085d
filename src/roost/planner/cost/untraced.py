"""What stands in for a trace when a model has no dry run: the usual stages, with work and bytes guessed from sizes.

The guessed bytes of activations say how much room a plan leaves where it can; they refuse nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from roost.blocks import block_names
from roost.facts.model import Component
from roost.facts.rates import RateKey
from roost.facts.request import Workload
from roost.plan.figures import Kappa
from roost.planner.cost.costs import CostModel
from roost.planner.rules.names import base_name, kind_of
from roost.trace import OP_CLASSES, ActivationBytes, BlockTrace, OpClass, OpClassTotals, Totals, Trace, UseTrace

_MAX_SOURCE = 200  # characters that a plan keeps of it

# Guesses from Wan and FLUX: a token of 16 × 16 pixels (and four frames), and a pixel of a decoded picture or chunk.
_DIT_BYTES_PER_TOKEN = 120_000
_VAE_BYTES_PER_PIXEL = 3_000
_VAE_FLOPS_PER_PIXEL = 5_000_000
_ENCODER_BYTES = 256 * 1024**2
_ENCODER_TOKENS = 512
_FRAMES_PER_LATENT = 4
_GUESS = Kappa(low=0.5, mid=1.25, high=2.5, source="no trace: guessed from the workload")
_GUESS_SPREAD = 4.0


def untraced(components: Sequence[Component], workload: Workload, reason: str) -> Trace:
    """A trace of weights alone: encoders, denoising steps, decode. Its source says why it is not a real one."""
    encoders = [each for each in components if kind_of(each) in ("text_encoder", "image_encoder")]
    denoisers = [each for each in components if kind_of(each) in ("dit", "other")]
    decoders = [each for each in components if kind_of(each) == "vae"]
    ordered = [*encoders, *denoisers, *decoders]
    passes = 2 if workload.guidance is not None and workload.guidance > 1 else 1
    index_of = {each.name: index for index, each in enumerate(ordered)}
    return Trace(
        uses=tuple(_use(each, workload) for each in ordered),
        sequence=(
            *((index_of[each.name], passes) for each in encoders),
            *_denoising([index_of[each.name] for each in denoisers], denoisers, workload.steps_run * passes),
            *((index_of[each.name], 1) for each in decoders),
        ),
        variants=(),
        workload=workload,
        source=_shortened(f"weights only: {reason.rstrip('.')}"),
        seconds=0.0,
        versions={},
        no_dry_run=reason.rstrip("."),
    )


def _shortened(source: str) -> str:
    return source if len(source) <= _MAX_SOURCE else f"{source[: _MAX_SOURCE - 1]}…"


def _denoising(indices: list[int], denoisers: list[Component], calls: int) -> Iterable[tuple[int, int]]:
    """Experts (of one base name) share the calls, one after another; others are called together in every pass."""
    if len(indices) > 1 and len({base_name(each.name) for each in denoisers}) == 1:
        shares = [calls // len(indices)] * (len(indices) - 1)
        return list(zip(indices, [*shares, calls - sum(shares)], strict=True))
    if len(indices) == 1:
        return [(indices[0], calls)]
    return [(index, 1) for _ in range(calls) for index in indices]


def _use(component: Component, workload: Workload) -> UseTrace:
    names = block_names(component.units)
    sizes = [size for unit in component.units for size in unit.block_bytes]
    kind = kind_of(component)
    return UseTrace(
        component=component.name,
        method="decode" if kind == "vae" else "forward",
        signature="unknown",
        totals=_work(component, workload, component.load_bytes),
        activation_bytes=ActivationBytes(before_blocks=0, in_blocks=_activations(component, workload), after_blocks=0),
        input_bytes=0,
        output_bytes=0,
        compute_dtype=component.load_dtype,
        blocks=tuple(
            BlockTrace(name=name, calls=1, totals=_work(component, workload, size), activation_bytes=0)
            for name, size in zip(names, sizes, strict=True)
        ),
    )


def _activations(component: Component, workload: Workload) -> int:
    pixels = workload.width * workload.height * workload.batch
    if kind_of(component) == "vae":
        width = 2 if component.load_dtype == "float32" else 1
        return pixels * _VAE_BYTES_PER_PIXEL * width * (_FRAMES_PER_LATENT if workload.frames else 1)
    if kind_of(component) in ("text_encoder", "image_encoder"):
        return _ENCODER_BYTES
    return _tokens(component, workload) * _DIT_BYTES_PER_TOKEN


def _tokens(component: Component, workload: Workload) -> int:
    if kind_of(component) in ("text_encoder", "image_encoder"):
        return _ENCODER_TOKENS
    latents = math.ceil((workload.frames or 1) / _FRAMES_PER_LATENT)
    return workload.width * workload.height * workload.batch // 256 * latents


def _work(component: Component, workload: Workload, size: int) -> Totals:
    """Work of the part of a component that holds ``size`` bytes: each weight once a token; a VAE by its pixels."""
    if kind_of(component) == "vae":
        pixels = workload.width * workload.height * workload.batch * (workload.frames or 1)
        flops = pixels * _VAE_FLOPS_PER_PIXEL * size // max(1, component.load_bytes)
        return _totals("conv", flops, size)
    bytes_per_weight = 4 if component.load_dtype == "float32" else 2
    return _totals("matmul", 2 * size // bytes_per_weight * _tokens(component, workload), size)


def _totals(op_class: OpClass, flops: int, size: int) -> Totals:
    return {**dict.fromkeys(OP_CLASSES, OpClassTotals()), op_class: OpClassTotals(flops=flops, bytes=size)}


def guessing(model: CostModel, components: Iterable[Component]) -> CostModel:
    """The cost model with intervals as wide as a guess needs."""
    guessed = (RateKey.MATMUL, RateKey.CONV, RateKey.SINGLE_MATMUL, RateKey.SINGLE_CONV)
    wide = {key: replace(model.rates[key], spread=_GUESS_SPREAD) for key in guessed}
    return replace(
        model,
        rates=model.rates.changed(wide),
        kappas={each.class_name: _GUESS for each in components},
    )
