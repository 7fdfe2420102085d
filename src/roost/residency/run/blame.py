"""Whose code an error comes from: that of the libraries which run a model, or another's."""

from __future__ import annotations

import sys
import traceback

_LIBRARIES = (
    *("diffusers", "transformers", "accelerate", "torch", "tokenizers", "safetensors", "huggingface_hub"),
    *("numpy", "PIL", "einops", "ftfy", "sentencepiece", "scipy", "torchvision"),
)
# Below these Roost only passes on an operation that somebody else asked for.
_PASSED_ON = ("__torch_dispatch__", "__torch_function__")


def is_of_libraries(error: BaseException) -> bool:
    """Whether the last code before the error, above the operations that Roost watches, is a library's."""
    owner = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in _PASSED_ON:
            break
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in sys.stdlib_module_names:
            owner = package
    return owner in _LIBRARIES
