"""For which known model a LoRA is, by the modules that it changes and their sizes, in any of the usual spellings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from roost.facts.layouts import KnownLayout
from roost.probes.recognition.known import KnownLayouts, Shapes

_PARTS = (
    r"lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|alpha|diff_b|diff|dora_scale|lora_mid|"
    r"hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_blocks|lora_linear_layer\.(down|up)|lora_magnitude_vector"
)
_PART = re.compile(rf"^(.+?)\.({_PARTS})(\.default)?(\.weight|\.bias)?$")
_PREFIX = re.compile(
    r"^(base_model\.model\.)?(model\.diffusion_model\.|diffusion_model\.|transformer\.|unet\.|lora_unet_|lora_transformer_|"
    r"lycoris_|text_encoder(_\d)?\.|lora_te\d?_)?"
)
_OF_ENCODER = re.compile(r"^(base_model\.model\.)?(text_encoder|lora_te)")
_BLOCK = re.compile(r"[^.]*\.\d+\.")
_DOWN, _UP = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down"), ("lora_B", "lora_up", "lora.up")
_LEAST = 0.5
_NEAR = 0.95  # of the best one's share


@dataclass(frozen=True, slots=True)
class LoraMatch:
    """``fitting`` of ``of`` changed modules are the layout's, by name and size, and so many blocks it has."""

    known: KnownLayout
    fitting: int
    of: int
    blocks: int

    @property
    def rank(self) -> tuple[int, int]:
        """The higher, the likelier: most LoRAs change every block, so of two layouts with them all, the shorter."""
        return self.fitting, -self.blocks

    def why(self) -> str:
        return f"{self.fitting} of the {self.of} modules that it changes agree in name and size"


@dataclass(slots=True)
class _Change:
    """Columns and rows of the weight that is changed, where the file's tensors tell."""

    columns: int | None = None
    rows: int | None = None


def lora_matches(shapes: Shapes, layouts: KnownLayouts) -> list[LoraMatch]:
    """The layouts that the LoRA's modules belong to, best first."""
    changes = _changes(shapes)
    if not changes:
        return []
    found = [_match(changes, known) for known in layouts.all]
    most = max(each.fitting for each in found)
    near = [each for each in found if each.fitting >= _NEAR * most]
    return sorted(near, key=lambda each: each.rank, reverse=True) if most >= _LEAST * len(changes) else []


def _changes(shapes: Shapes) -> dict[str, _Change]:
    """By the module's name with underscores for dots, as some files spell all of them; text encoders' are left out."""
    found: dict[str, _Change] = {}
    for name, shape in shapes.items():
        match = _PART.match(name)
        if match is None or _OF_ENCODER.match(name):
            continue
        change = found.setdefault(_flat(_PREFIX.sub("", match[1])), _Change())
        if match[2] in _DOWN and len(shape) >= 2:
            change.columns = shape[1]
        elif match[2] in _UP and shape:
            change.rows = shape[0]
    return found


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _match(changes: Mapping[str, _Change], known: KnownLayout) -> LoraMatch:
    end = ".weight"
    weights = {_flat(name[: -len(end)]): shape for name, shape in known.tensors.items() if name.endswith(end)}
    fitting = sum(_fits(change, weights[name]) for name, change in changes.items() if name in weights)
    blocks = {found[0] for found in map(_BLOCK.match, known.tensors) if found is not None}
    return LoraMatch(known, fitting, len(changes), len(blocks))


def _fits(change: _Change, shape: tuple[int, ...]) -> bool:
    if len(shape) < 2:
        return change.columns is None
    return change.columns in (None, shape[1]) and change.rows in (None, shape[0])
