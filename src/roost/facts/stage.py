"""The stages of a generation: which component does what part of it, and what people call that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from roost.facts.model import Kind

# ``beside`` is what a component of no group (a ControlNet) does in each step, next to the denoiser.
Phase = Literal["text_encode", "image_encode", "denoise", "beside", "check", "decode"]

DENOISING: frozenset[Phase] = frozenset({"denoise", "beside"})
# In the order of use, where a VAE decodes.
PHASES: Mapping[Kind, Phase] = {
    "text_encoder": "text_encode",
    "image_encoder": "image_encode",
    "dit": "denoise",
    "other": "beside",
    "vae": "decode",
}
_TEXTS: dict[Phase, str] = {
    "text_encode": "text encode",
    "image_encode": "image encode",
    "denoise": "denoise",
    "beside": "denoise",
    "check": "check",
    "decode": "decode",
}
_ENCODE_IN_RUNS = "encode image"
_EXPERTS_IN_RUNS = {"transformer": "denoise (high noise)", "transformer_2": "denoise (low noise)"}


@dataclass(frozen=True, slots=True)
class StageKey:
    """A stage: the uses of one component for one purpose. A VAE may have two, one for each direction."""

    component: str
    phase: Phase


class _OfStage(Protocol):
    """A record of a stage; ``phase`` is None of one that an older run called by its component's name."""

    @property
    def component(self) -> str: ...
    @property
    def phase(self) -> Phase | None: ...


def is_same_stage(one: _OfStage, other: _OfStage) -> bool:
    """A component has one stage, a VAE one for each direction; older records call more than one phase ``denoise``."""
    encodes = (one.phase == "image_encode") == (other.phase == "image_encode")
    return one.component == other.component and encodes


def stage_of(component: str, kind: Kind, method: str) -> StageKey:
    """The stage that a call of ``method`` on the component belongs to."""
    if component == "safety_checker":
        return StageKey(component, "check")
    encodes = kind == "vae" and "encode" in method
    return StageKey(component, "image_encode" if encodes else PHASES[kind])


def stage_text(phase: Phase, *components: str, kinds: Mapping[str, Kind] | None = None, named: bool = True) -> str:
    """What people call a stage: ``denoise (transformer)``; ``denoise`` where it isn't ``named`` after its component.

    ``kinds`` of a run's components give what runs call it: ``denoise (high noise)`` of experts.
    """
    names = f" ({', '.join(components)})" if named else ""
    if kinds is None:
        return _TEXTS[phase] + names
    (component,) = components
    if component in _EXPERTS_IN_RUNS and all(kinds.get(each) == "dit" for each in _EXPERTS_IN_RUNS):
        return _EXPERTS_IN_RUNS[component]
    if phase in ("beside", "check"):
        return component + names
    return (_ENCODE_IN_RUNS if phase == "image_encode" and kinds[component] == "vae" else _TEXTS[phase]) + names
