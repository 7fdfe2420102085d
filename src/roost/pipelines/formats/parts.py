"""The components inside one file: which of its names belong to which, by their prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Before a denoiser's own names in a file that holds nothing else. ``model.`` is last: it begins the first, too.
_DENOISER = ("model.diffusion_model.", "diffusion_model.", "model.")
_VAE = ("first_stage_model.", "vae.")
_CLIP = (
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
)
OPEN_CLIP = ("conditioner.embedders.1.model.", "conditioner.embedders.0.model.", "cond_stage_model.model.")
_ENCODERS = "text_encoders."
# Of two CLIPs in a file, the first text encoder's.
_FIRST_CLIP = ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l.")
_WITHIN_ENCODER = ".transformer."
# What an all-in-one file calls the encoders of a class, by the beginning of what stands after ``text_encoders.``.
_CALLED = {
    "T5EncoderModel": ("t5xxl", "t5"),
    "UMT5EncoderModel": ("umt5xxl", "umt5"),
    "Qwen2_5_VLForConditionalGeneration": ("qwen25", "qwen_25", "qwen2"),
    "Qwen3Model": ("qwen3",),
    "Qwen3ForCausalLM": ("qwen3",),
    "LlamaModel": ("llama",),
    "LlamaForCausalLM": ("llama",),
    "Gemma2Model": ("gemma2", "gemma"),
    "Gemma3ForConditionalGeneration": ("gemma3", "gemma"),
}
# Names that stand beside all components, and say how they are stored.
ROOT_MARKERS = ("scaled_fp8",)


@dataclass(frozen=True, slots=True)
class Part:
    """Names of a file that may be one component: each without its prefix -> as the file has it."""

    prefix: str
    names: Mapping[str, str]


def prefixes_of(names: Iterable[str]) -> tuple[str, ...]:
    """The prefixes of components that a file's names begin with; empty for one component without any."""
    found: dict[str, None] = {}
    for name in names:
        prefix = _prefix_of(name)
        if prefix is not None:
            found[prefix] = None
    return tuple(found)


def split_by_prefix(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names of each component of an all-in-one file, by their prefix; under "" those of none."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_prefix_of(name) or "", []).append(name)
    return {prefix: tuple(each) for prefix, each in found.items()}


def parts_for(names: Iterable[str], library: str | None, class_name: str, component: str) -> list[Part]:
    """What in the file may be the component of that class and name, the likeliest first.

    In a file of one component the prefix that all its names share is taken off. A file of several has a part for each
    of its prefixes that the class may stand under, and none where there is no such prefix.
    """
    everything = tuple(names)
    bare = [name for name in everything if name not in ROOT_MARKERS]
    split = split_by_prefix(bare)
    prefixes = [prefix for prefix in split if prefix]
    wanted = [prefix for prefix in prefixes if _may_be(prefix, library, class_name)]
    if wanted:
        wanted.sort(key=lambda prefix: prefix.startswith(_FIRST_CLIP) == (component == "text_encoder_2"))
        return [_part(prefix, everything) for prefix in wanted]
    if len(prefixes) > 1 or (prefixes and not split.get("")):
        return []
    if library != "transformers":
        shared = [prefix for prefix in _DENOISER if all(name.startswith(prefix) for name in bare)]
        if shared and bare:
            return [_part(shared[0], everything)]
    return [Part("", {name: name for name in everything})]


def _part(prefix: str, names: Iterable[str]) -> Part:
    """The prefix's names, and with them the marker that stands before all components or within this one."""
    found = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return Part(prefix, found | {name: name for name in names if name in ROOT_MARKERS and name not in found})


def _prefix_of(name: str) -> str | None:
    for prefix in (*_DENOISER[:2], *_VAE, *_CLIP, *OPEN_CLIP):
        if name.startswith(prefix):
            return prefix
    if name.startswith(_ENCODERS) and _WITHIN_ENCODER in name:
        return name[: name.index(_WITHIN_ENCODER) + len(_WITHIN_ENCODER)]
    return None


def _may_be(prefix: str, library: str | None, class_name: str) -> bool:
    if class_name.startswith("CLIPText"):
        return prefix in _CLIP or prefix in OPEN_CLIP
    if class_name.startswith("Autoencoder"):
        return prefix in _VAE
    if library == "transformers":
        called = prefix.removeprefix(_ENCODERS)
        return prefix.startswith(_ENCODERS) and called.startswith(_CALLED.get(class_name, ()))
    return prefix in _DENOISER
