"""Names and shapes of a component's published tensors, from its real class built without memory."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
import transformers

from tensor_trees import Tensors

# Published files keep the names of the library version that wrote them: (module prefix, file prefix), first match.
_LOOKING = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
_FILE_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "CLIPTextModel": (("text_model.", "text_model."), ("", "text_model.")),
    "CLIPVisionModel": (("vision_model.", "vision_model."), ("", "vision_model.")),
    "Gemma3ForConditionalGeneration": _LOOKING,
    "Mistral3ForConditionalGeneration": _LOOKING,
    "Qwen2_5_VLForConditionalGeneration": (("model.language_model.", "model."), ("model.visual.", "visual.")),
    "Qwen3Model": (("", "model."),),
    "StableDiffusionSafetyChecker": (("vision_model.", "vision_model.vision_model."),),
}
# diffusers before 0.17 called the VAE's attention otherwise: in its files (module's part, file's part).
_LEGACY_ATTENTION = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))
# Copies of another tensor under a second name, which are never stored. T5's config calls them untied, Gemma's nothing.
_TIED = {
    "Gemma3ForConditionalGeneration": "lm_head.weight",
    "T5EncoderModel": "encoder.embed_tokens.weight",
    "UMT5EncoderModel": "encoder.embed_tokens.weight",
}
_TIED_HEAD = "lm_head.weight"  # where the config ties it to the embedding


def published_tensors(library: str, class_name: str, config: Mapping[str, Any]) -> Tensors:
    """Every tensor that a published file of this class and config holds, by its name there, in the state's order."""
    tied = _TIED.get(class_name, _TIED_HEAD if config.get("tie_word_embeddings") else None)
    state = _build_on_meta(library, class_name, config).state_dict()
    legacy = class_name == "AutoencoderKL" and _version(config) < (0, 17)
    renames = _LEGACY_ATTENTION if legacy else ()
    return [
        (_published_name(class_name, name, renames), list(tensor.shape))
        for name, tensor in state.items()
        if name != tied
    ]


def _version(config: Mapping[str, Any]) -> tuple[int, int]:
    """The diffusers that wrote the config."""
    major, minor = config["_diffusers_version"].split(".")[:2]
    return int(major), int(minor)


def _build_on_meta(library: str, class_name: str, config: Mapping[str, Any]) -> Any:
    """The module on the meta device: real names and shapes, no storage."""
    model_class = getattr(_module(library), class_name)
    with torch.device("meta"):
        if "_class_name" in config:  # which diffusers writes
            return model_class.from_config(dict(config))
        return model_class(model_class.config_class(**config))


def _module(library: str) -> Any:
    """A library, or the folder of a pipeline in diffusers, which has classes of its own."""
    known = {"diffusers": diffusers, "transformers": transformers}
    return known.get(library) or importlib.import_module(f"diffusers.pipelines.{library}")


def _published_name(class_name: str, name: str, renames: Sequence[tuple[str, str]]) -> str:
    for in_module, in_file in renames:
        name = name.replace(in_module, in_file)
    for module_prefix, file_prefix in _FILE_PREFIXES.get(class_name, ()):
        if name.startswith(module_prefix):
            return file_prefix + name[len(module_prefix) :]
    return name
