"""Checkpoints in one file, as original repositories ship them: which component a tensor belongs to, by its prefix."""

from __future__ import annotations

import re

from roost.probes.files.header_entries import Sizes
from roost.probes.files.quantised import method_of
from roost.probes.files.safe_files import shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.stored import StoredComponent

# Prefix of a tensor's name -> component. What follows the prefix is the module's own name.
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("model.diffusion_model.", "transformer"),
    ("diffusion_model.", "transformer"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.", "text_encoder"),
    ("text_encoders.", "text_encoder"),
    ("text_encoder.", "text_encoder"),
)
# A file without prefixes holds one component; these names are telling.
_NAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(input_blocks|down_blocks|middle_block)\.\d"), "unet"),
    (re.compile(r"(double_blocks|single_blocks|transformer_blocks|joint_blocks|blocks|layers)\.\d"), "transformer"),
    (re.compile(r"(shared\.weight|text_model\.|encoder\.block\.)"), "text_encoder"),
    (re.compile(r"(decoder|encoder)\.(conv|up|down|mid)"), "vae"),
)
_UNET_SIGN = re.compile(r"(?:model\.)?diffusion_model\.input_blocks\.")
_REST = "other"
_UNKNOWN_CLASS = "unknown"


def read_checkpoint_files(directory: ModelDirectory) -> tuple[list[StoredComponent], list[str]]:
    """Components guessed from the safetensors files at the root, and warnings about the guess."""
    files = sorted(name for name in directory.names() if name.endswith(".safetensors"))
    components: list[StoredComponent] = []
    for file in files:
        header = directory.read_header(file)
        for name, sizes in _group(header.sizes).items():
            taken = sum(each.base_name == name for each in components)
            components.append(
                StoredComponent(
                    name=f"{name}_{taken + 1}" if taken else name,
                    library=None,
                    class_name=_UNKNOWN_CLASS,
                    position=len(components),
                    files=(file,),
                    sizes=sizes,
                    quantization=method_of(sizes, header.metadata),
                )
            )
    warnings = ["no model_index.json: components are guessed from the tensors' names"]
    if len(files) > 1:
        warnings.append(f"{len(files)} checkpoint files ({', '.join(map(shown, files[:6]))}), all of them counted")
    return components, warnings


def _group(sizes: Sizes) -> dict[str, Sizes]:
    """Sizes by component, with the component's prefix taken off the names."""
    names = [name for by_name in sizes.values() for name in by_name]
    dit = "unet" if any(_UNET_SIGN.match(name) for name in names) else "transformer"
    if not any(name.startswith(prefix) for name in names for prefix, _ in _PREFIXES):
        return {_guess_whole(names): sizes}
    groups: dict[str, dict[str, dict[str, int]]] = {}
    for dtype, by_name in sizes.items():
        for name, stored in by_name.items():
            component, own_name = _owner(name)
            component = dit if component == "transformer" else component
            groups.setdefault(component, {}).setdefault(dtype, {})[own_name] = stored
    return dict(groups)


def _owner(name: str) -> tuple[str, str]:
    for prefix, component in _PREFIXES:
        if name.startswith(prefix):
            return component, name[len(prefix) :]
    return _REST, name


def _guess_whole(names: list[str]) -> str:
    for pattern, component in _NAMES:
        if any(pattern.match(name) for name in names):
            return component
    return _REST
