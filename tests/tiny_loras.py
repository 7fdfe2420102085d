"""LoRA files for tiny pipelines, in diffusers' format, with seeded weights."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def lora_file(path: Path, pipeline: Any, targets: Mapping[str, Sequence[str]], seed: int = 1) -> Path:
    """Writes LoRAs of rank 4 for ``targets`` (names of layers by component); leaves the pipeline alone."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import get_peft_model_state_dict

    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for component, names in targets.items():
        module = copy.deepcopy(getattr(pipeline, component))
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=list(names)), module, "tiny")
        state = get_peft_model_state_dict(module, adapter_name="tiny")
        name = "transformer" if component == "transformer_2" else component
        layers[f"{name}_lora_layers"] = {
            key: torch.randn(tensor.shape, generator=generator) * 0.3 for key, tensor in state.items()
        }
    pipeline.save_lora_weights(path.parent, weight_name=path.name, **layers)
    return path
