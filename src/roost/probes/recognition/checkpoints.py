"""What a safetensors file holds that is no part of a diffusers directory, from the names of its tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

ContentKind = Literal["lora", "embedding", "checkpoint", "denoiser", "vae", "text-encoder", "controlnet", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """``title`` completes "it is …". ``class_name`` is diffusers' class that reads such a file, where there is one.

    ``sign`` is the tensor that told, and ``family`` whose it is, where one tensor did.
    """

    kind: ContentKind
    title: str
    class_name: str | None = None
    sign: str | None = None
    family: str | None = None


@dataclass(frozen=True, slots=True)
class _Family:
    """A family by a tensor that only its files have; ``pipeline`` reads whole checkpoints, where there are such."""

    sign: str
    title: str
    denoiser: str
    pipeline: str | None = None


_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
_WHOLE = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "text_encoder.")
# In this order: of two that match, the first is the more special.
_FAMILIES = (
    _Family("distilled_guidance_layer.in_proj.bias", "Chroma", "ChromaTransformer2DModel"),
    _Family("single_stream_modulation.lin.weight", "FLUX.2", "Flux2Transformer2DModel"),
    _Family("double_blocks.0.img_attn.norm.key_norm.scale", "FLUX.1", "FluxTransformer2DModel", "FluxPipeline"),
    _Family(
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias",
        "HunyuanVideo",
        "HunyuanVideoTransformer3DModel",
    ),
    _Family(
        "joint_blocks.0.context_block.adaLN_modulation.1.bias",
        "Stable Diffusion 3",
        "SD3Transformer2DModel",
        "StableDiffusion3Pipeline",
    ),
    _Family(
        "av_ca_a2v_gate_adaln_single.emb.timestep_embedder.linear_1.weight",
        "LTX-2",
        "LTX2VideoTransformer3DModel",
    ),
    _Family("patchify_proj.weight", "LTX-Video", "LTXVideoTransformer3DModel", "LTXPipeline"),
    _Family("motion_encoder.dec.direction.weight", "Wan Animate", "WanAnimateTransformer3DModel"),
    _Family("vace_blocks.0.after_proj.bias", "Wan VACE", "WanVACETransformer3DModel"),
    _Family("head.modulation", "Wan", "WanTransformer3DModel"),
    _Family("layers.0.adaLN_modulation.0.weight", "Z-Image", "ZImageTransformer2DModel"),
    _Family("cap_embedder.0.weight", "Lumina 2", "Lumina2Transformer2DModel"),
    _Family("double_layers.0.attn.w2q.weight", "AuraFlow", "AuraFlowTransformer2DModel"),
    _Family("blocks.0.attn.qkv_x.weight", "Mochi", "MochiTransformer3DModel"),
    _Family("blocks.0.cross_attn.q_linear.weight", "Sana", "SanaTransformer2DModel"),
    _Family("double_stream_blocks.0.block.adaLN_modulation.1.bias", "HiDream", "HiDreamImageTransformer2DModel"),
    _Family("net.x_embedder.proj.1.weight", "Cosmos", "CosmosTransformer3DModel"),
)
_UNET = "input_blocks.0.0.weight"
_XL_SIGNS = (
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
    "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias",
)
_LORA_PARTS = ("lora_A", "lora_B", "lora_down", "lora_up", "lokr_w", "hada_w", "lora_unet_", "lora_te")
_EMBEDDINGS = ("emb_params", "string_to_param", "clip_l", "clip_g", "t5xxl")
_VAES = ("decoder.middle.0.residual.0.gamma", "decoder.mid.block_1.conv1.weight")
_VAE_IN_DIFFUSERS = ("decoder.mid_block.", "encoder.down_blocks.", "decoder.up_blocks.")
_CONTROL = ("control_model.", "controlnet_", "input_hint_block.", "zero_convs.")
_ENCODERS = ("text_model.encoder.", "encoder.block.0.", "model.layers.0.self_attn.", "transformer.text_model.")
_IN_DIFFUSERS = ("transformer_blocks.", "down_blocks.", "single_transformer_blocks.", "up_blocks.", "blocks.0.attn1.")


def content_of(names: Collection[str]) -> Content | None:
    """What a file with tensors of these names is; None when nothing tells."""
    if not names:
        return None
    if any(part in name for name in names for part in _LORA_PARTS):
        return Content(kind="lora", title="a LoRA, which changes a model and is none by itself")
    if all(name.split(".")[0] in _EMBEDDINGS for name in names):
        return Content(kind="embedding", title="a textual inversion, an embedding of a few words")
    return _checkpoint(names) or _part(names)


def _checkpoint(names: Collection[str]) -> Content | None:
    """A denoiser in its authors' names, alone or with the other models that it needs."""
    whole = any(name.startswith(_WHOLE) for name in names)
    for family in _FAMILIES:
        if any(prefix + family.sign in names for prefix in _PREFIXES):
            found = _of_family(family.title, family.pipeline if whole else family.denoiser, whole=whole)
            return replace(found, sign=family.sign, family=family.title)
    if any(prefix + _UNET in names for prefix in _PREFIXES):
        is_xl = any(sign in names for sign in _XL_SIGNS)
        title = "Stable Diffusion XL" if is_xl else "Stable Diffusion"
        pipeline = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
        return _of_family(title, pipeline if whole else "UNet2DConditionModel", whole=whole)
    if any(name.startswith(_PREFIXES[:2]) for name in names):
        return Content(kind="checkpoint", title="a single-file checkpoint of a family that Roost doesn't recognise")
    return None


def _of_family(title: str, class_name: str | None, *, whole: bool) -> Content:
    if whole:
        return Content(kind="checkpoint", title=f"a single-file {title} checkpoint", class_name=class_name)
    title = f"the denoiser of {title} in one file, under its authors' names"
    return Content(kind="denoiser", title=title, class_name=class_name)


def _part(names: Collection[str]) -> Content | None:
    """One model of a pipeline."""
    if any(name.startswith(_CONTROL) for name in names):
        return Content(kind="controlnet", title="a ControlNet in one file", class_name="ControlNetModel")
    if any(sign in names for sign in _VAES):
        return Content(kind="vae", title="a VAE in one file, under its authors' names")
    if _begins(names, _VAE_IN_DIFFUSERS):
        return Content(kind="component", title="a VAE's weights in diffusers' naming")
    if _begins(names, _ENCODERS):
        return Content(kind="text-encoder", title="a text encoder's weights")
    if _begins(names, _IN_DIFFUSERS):
        return Content(kind="component", title="one component's weights in diffusers' naming")
    return None


def _begins(names: Iterable[str], starts: tuple[str, ...]) -> bool:
    return any(name.startswith(starts) for name in names)
