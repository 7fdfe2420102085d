"""Names and shapes of a component's published tensors, from its real class built without memory."""

from typing import Any

import diffusers
import torch
import transformers

from published.repository import Component

Shapes = dict[str, tuple[int, ...]]

# Published files keep the names of the library version that wrote them: (module prefix, file prefix), first match.
_FILE_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "CLIPTextModel": (("text_model.", "text_model."), ("", "text_model.")),
    "Qwen2_5_VLForConditionalGeneration": (("model.language_model.", "model."), ("model.visual.", "visual.")),
}
# A copy of `shared.weight` under its second name, never stored.
_TIED = {"T5EncoderModel": "encoder.embed_tokens.weight", "UMT5EncoderModel": "encoder.embed_tokens.weight"}


def build_on_meta(component: Component) -> Any:
    """The component's module on the meta device: real names, shapes and configuration, no storage."""
    with torch.device("meta"):
        if component.library == "diffusers":
            return getattr(diffusers, component.class_name).from_config(dict(component.config))
        model_class = getattr(transformers, component.class_name)
        return model_class(model_class.config_class(**component.config))


def published_shapes(component: Component, module: Any) -> Shapes:
    """Shape of every tensor the published files of this component hold, by its name there."""
    tied = _TIED.get(component.class_name)
    state = module.state_dict()
    return {
        _published_name(component.class_name, name): tuple(tensor.shape)
        for name, tensor in state.items()
        if name != tied
    }


def _published_name(class_name: str, name: str) -> str:
    for module_prefix, file_prefix in _FILE_PREFIXES.get(class_name, ()):
        if name.startswith(module_prefix):
            return file_prefix + name[len(module_prefix) :]
    return name
