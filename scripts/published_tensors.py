"""Names and shapes of a component's published tensors, from its real class built without memory."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers

from tensor_trees import Tensors

# Published files keep the names of the library version that wrote them: (module prefix, file prefix), first match.
_FILE_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "CLIPTextModel": (("text_model.", "text_model."), ("", "text_model.")),
    "CLIPVisionModel": (("vision_model.", "vision_model."), ("", "vision_model.")),
    "Qwen2_5_VLForConditionalGeneration": (("model.language_model.", "model."), ("model.visual.", "visual.")),
    "Qwen3Model": (("", "model."),),
}
# A copy of `shared.weight` under its second name, never stored.
_TIED = {"T5EncoderModel": "encoder.embed_tokens.weight", "UMT5EncoderModel": "encoder.embed_tokens.weight"}


def published_tensors(library: str, class_name: str, config: Mapping[str, Any]) -> Tensors:
    """Every tensor that a published file of this class and config holds, by its name there, in the state's order."""
    tied = _TIED.get(class_name)
    state = _build_on_meta(library, class_name, config).state_dict()
    return [(_published_name(class_name, name), list(tensor.shape)) for name, tensor in state.items() if name != tied]


def _build_on_meta(library: str, class_name: str, config: Mapping[str, Any]) -> Any:
    """The module on the meta device: real names and shapes, no storage."""
    with torch.device("meta"):
        if library == "diffusers":
            return getattr(diffusers, class_name).from_config(dict(config))
        model_class = getattr(transformers, class_name)
        return model_class(model_class.config_class(**config))


def _published_name(class_name: str, name: str) -> str:
    for module_prefix, file_prefix in _FILE_PREFIXES.get(class_name, ()):
        if name.startswith(module_prefix):
            return file_prefix + name[len(module_prefix) :]
    return name
