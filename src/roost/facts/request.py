"""What is asked of a plan: the workload, and the choices that a user typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from roost.facts.limits import Finite, Positive, Share
from roost.facts.machine import Platform

Group = Literal["dit", "text_encoder", "image_encoder", "vae"]


Strategy = Literal["resident", "component-offload", "snapshot-offload", "layerwise-offload", "fsdp"]


Mode = Literal["auto", "memory", "speed", "manual"]


Storage = Literal["float8_e4m3fn"]


Tier = Literal["pinned", "pageable", "mapped"]  # where a host copy lies: locked memory, memory, or the model's files


Role = Literal["monolithic", "encoder", "denoiser", "decoder", "encoder-decoder"]


GROUPS: tuple[Group, ...] = ("dit", "text_encoder", "image_encoder", "vae")


# How a fleet is used, the simplest first: one card alone; the whole pipeline on every card; encoder-decoders beside
# denoisers; all roles apart; the denoiser sharded.
LayoutName = Literal["single", "replicas", "shared", "roles", "fsdp"]


STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


TIERS: tuple[Tier, ...] = get_args(Tier)


ROLES: tuple[Role, ...] = get_args(Role)


LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one generation asks for. Frames is None for images."""

    width: Positive
    height: Positive
    frames: Positive | None
    steps: Positive
    batch: Positive
    guidance: Finite | None
    strength: Share | None = None  # how much an input changes, up to 1: that part of the steps runs; None where all do

    @property
    def steps_run(self) -> int:
        """How many of the steps run. Where the strength leaves a fraction, some pipelines run one more."""
        return self.steps if self.strength is None else min(int(self.steps * self.strength), self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChoice:
    """One ``--set SELECTOR=STRATEGY[,key=value…]``, as typed, or what a live module's nature leaves: ``found``."""

    option: str
    text: str  # without --set
    selector: str
    strategy: Strategy
    parameters: Mapping[str, object] = field(default_factory=dict)
    found: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user typed. None means not typed, which is never the same as typing the default."""

    mode: Mode = "auto"
    sets: tuple[SetChoice, ...] = ()
    layerwise_components: tuple[str, ...] | None = None  # normalised selectors; () for an explicit `none`
    layerwise_text: str = ""  # the same as typed
    dit_layerwise_offload: bool | None = None
    cpu_offload: Mapping[Group, bool] = field(default_factory=dict)
    prefetch: float | None = None
    fsdp: bool | None = None
    num_gpus: int = 1
    cache_dit: bool = False
    cache: str | None = None  # as typed; to the rules it is what ``cache_dit`` is
    dmd_steps: int | None = None
    platform: Platform | None = None
