"""Names and kinds of components, and the order they load in. Source: placement rules, names and kinds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from roost.facts.model import Component, Kind
from roost.facts.request import GROUPS, Group

_BASE_NAMES: dict[Kind, str] = {
    "dit": (
        "transformer video_dit audio_dit delight_transformer hy3dshape_model paint_transformer"
        " unconditional_transformer unet prior"
    ),
    "text_encoder": "vision_language_encoder",
    "image_encoder": "image_encoder hy3dshape_conditioner",
    "vae": (
        "vae video_vae audio_vae vocoder spatial_upsampler latent_upscaler condition_image_encoder delight_vae"
        " diffusion_decoder hy3dshape_vae paint_vae sound_tokenizer movq vqvae"
    ),
}
_KIND_BY_BASE_NAME = {name: kind for kind, names in _BASE_NAMES.items() for name in names.split()}

_KIND_BY_CLASS: tuple[tuple[str | None, re.Pattern[str], Kind], ...] = (
    ("transformers", re.compile(r"CLIPVision|Siglip|Dinov2"), "image_encoder"),
    (
        "transformers",
        re.compile(
            r"T5|UMT5|MT5|ByT5|CLIPText|Qwen|Llama|Llava|Gemma|Mistral|Ministral|ChatGLM|Glm|Bert|Phi|SmolLM"
            r"|GPT2|Clap|Roberta|XLMRoberta|Vits"
        ),
        "text_encoder",
    ),
    ("transformers", re.compile(r""), "other"),
    (None, re.compile(r"ChatGLM"), "text_encoder"),
    (None, re.compile(r"(Asymmetric)?Autoencoder|(Paella)?VQModel|.*Vocoder|.*LatentUpsampler"), "vae"),
    (None, re.compile(r".*Transformer.*Model$|(StableCascade)?UNet|.*Prior"), "dit"),
)


def base_name(name: str) -> str:
    """The name without one trailing ``_<digits>``."""
    return re.sub(r"_\d+$", "", name.lower(), flags=re.ASCII)


def suffix(name: str) -> int | None:
    """The trailing number that ``base_name`` strips."""
    match = re.search(r"_(\d+)$", name, flags=re.ASCII)
    return int(match[1]) if match else None


def kind_of(component: Component) -> Kind:
    """By base name first, then by class name."""
    base = base_name(component.name)
    if base in _KIND_BY_BASE_NAME:
        return _KIND_BY_BASE_NAME[base]
    if base.startswith("text_encoder") or base.endswith("text_encoder"):
        return "text_encoder"
    for library, pattern, kind in _KIND_BY_CLASS:
        if library in (None, component.library) and pattern.match(component.class_name):
            return kind
    return "other"


def group_of(component: Component) -> Group | None:
    """The group that selects the component: its kind, or None for ``other``."""
    kind = kind_of(component)
    return None if kind == "other" else kind


def members(components: Iterable[Component]) -> dict[Group, tuple[Component, ...]]:
    """Every group's components, in ``model_index.json`` order; a group without members is there too."""
    listed = sorted(components, key=lambda each: each.position)
    return {group: tuple(each for each in listed if kind_of(each) == group) for group in GROUPS}


# In which order components load: heaviest first, so that the largest load meets the emptiest memory.


_RISK_RANK: dict[Kind, int] = {"dit": 0, "text_encoder": 1, "image_encoder": 2, "vae": 3, "other": 10}


def load_order(components: Iterable[Component]) -> tuple[str, ...]:
    """Names by load-dtype bytes, then risk rank, then numeric suffix (largest first), then index position."""

    def key(component: Component) -> tuple[int, int, int, int]:
        rank = _RISK_RANK[kind_of(component)]
        return -component.load_bytes, rank, -(suffix(component.name) or 0), component.position

    return tuple(component.name for component in sorted(components, key=key))
