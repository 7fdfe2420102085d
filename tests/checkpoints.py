"""Tiny models as people have large ones: all components in one file under their authors' names, and known by a name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

import original_layouts
import stored_weights
from roost.facts.layouts import KnownLayout
from roost.facts.model import PublishedModel, WeightsFile
from roost.profiles.published import stand_in_tokenizers
from single_file_worlds import LAYOUTS, State, unet_layout

_DENOISER, _VAE, _UPS = "model.diffusion_model.", "first_stage_model.", 4
# By model: where its text encoders lie, and how they are named there.
_ENCODERS = {
    "sd1.5": {"text_encoder": "cond_stage_model.transformer."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
    "sd3.5-medium": {
        "text_encoder": "text_encoders.clip_l.transformer.",
        "text_encoder_2": "text_encoders.clip_g.transformer.",
        "text_encoder_3": "text_encoders.t5xxl.transformer.",
    },
}


def write_checkpoint(path: Path, model: str, directory: Path) -> KnownLayout:
    """The components of the tiny ``model`` in ``directory`` in one file; and what its denoiser is recognised by."""
    pipeline: Any = DiffusionPipeline.from_pretrained(directory)
    name, denoiser = _denoiser(model, pipeline)
    state = dict(denoiser) | _prefixed(_VAE, original_layouts.vae(pipeline.vae.state_dict(), _UPS))
    for encoder, prefix in _ENCODERS[model].items():
        module = getattr(pipeline, encoder)
        names = open_clip(module.state_dict(), 3) if prefix.endswith(".model.") else _encoder(module)
        state |= _prefixed(prefix, names)
    stored_weights.write_safetensors(path, state)
    return KnownLayout(
        layout="original",
        class_name=type(getattr(pipeline, name)).__name__,
        components=((model, name),),
        tensors={each.removeprefix(_DENOISER): tuple(tensor.shape) for each, tensor in denoiser.items()},
    )


def _denoiser(model: str, pipeline: Any) -> tuple[str, State]:
    if model.startswith("sd3"):
        return "transformer", _prefixed(_DENOISER, LAYOUTS["sd3"](pipeline.transformer))
    return "unet", unet_layout(pipeline.unet)


def _encoder(module: Any) -> State:
    state = dict(module.state_dict())
    return state if type(module).__name__.startswith("T5") else flat_clip(state)


def _prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> State:
    return {prefix + name: each for name, each in state.items()}


def flat_clip(state: State) -> State:
    """CLIP's names in transformers 4."""
    return {name if name.startswith("text_") else f"text_model.{name}": each for name, each in state.items()}


def open_clip(state: State, layers: int) -> State:
    """CLIP's text model as OpenCLIP names and joins it."""
    made = {
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.ones(()),
    }
    for kind in ("weight", "bias"):
        made[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for index in range(layers):
            old, new = f"text_model.encoder.layers.{index}.", f"transformer.resblocks.{index}."
            joined = torch.cat([state[f"{old}self_attn.{each}_proj.{kind}"] for each in "qkv"])
            made[f"{new}attn.in_proj_{kind}"] = joined
            pairs = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
            for theirs, ours in (pairs | {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}).items():
                made[f"{new}{ours}.{kind}"] = state[f"{old}{theirs}.{kind}"]
    return made


def published_of(model: Path, name: str) -> PublishedModel:
    """The tiny model in that directory as one known by ``name``: configs and headers, and stand-ins of tokenizers."""
    documents, weights = {}, {}
    for path in sorted(model.rglob("*")):
        inside = str(path.relative_to(model))
        if path.suffix == ".safetensors":
            length = int.from_bytes(path.read_bytes()[:8], "little")
            header = path.read_bytes()[8 : 8 + length]
            weights[inside] = WeightsFile(header=header, payload_bytes=path.stat().st_size - 8 - length)
        elif path.suffix == ".json" and not inside.startswith("tokenizer"):
            documents[inside] = path.read_bytes()
    tokenizers = stand_in_tokenizers(json.loads(documents["model_index.json"]))
    return PublishedModel(name=name, source="someone/tiny", documents=documents, tokenizers=tokenizers, weights=weights)
