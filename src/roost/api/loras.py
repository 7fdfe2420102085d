"""LoRAs as typed, ``[COMPONENT=]PATH[:scale]``, checked as far as their files tell."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from roost.api.file_hashes import sha256_of
from roost.errors import UsageError
from roost.plan import PlanDocument
from roost.probes.headers import read_header
from roost.residency.lora_files import LoraFile
from roost.shell import shown_path

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
_SCALED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.DOTALL)


def read_loras(texts: Iterable[str], plan: PlanDocument) -> tuple[LoraFile, ...]:
    """Each text's file, scale and component; raises UsageError or InvalidFile for what is no LoRA for this plan."""
    files = tuple(_read(text, plan) for text in texts)
    if files and find_spec("peft") is None:
        raise UsageError("--lora needs the package peft; install it with: pip install 'roost[lora]'")
    return files


def _read(text: str, plan: PlanDocument) -> LoraFile:
    component, path, scale = _parsed(text)
    if component is not None and component not in plan.components:
        known = ", ".join(plan.components)
        raise UsageError(f"--lora {shown_path(text)}: the plan has no component {component!r}; it has {known}.")
    if not math.isfinite(scale):
        raise UsageError(f"--lora {shown_path(text)}: the scale must be a number like 0.8.")
    if Path(path).suffix != ".safetensors":  # the very letters: diffusers would take others for a pickle
        raise UsageError(f"--lora {shown_path(path)} is not a .safetensors file; Roost opens no other kind of weights.")
    read_header(path)
    return LoraFile(path=Path(path), scale=scale, component=component, sha256=sha256_of(Path(path)))


def _parsed(text: str) -> tuple[str | None, str, float]:
    """Component, path and scale. A file of the very name goes first: paths may hold ``=`` and ``:``."""
    if os.path.isfile(text):
        return None, text, 1.0
    named = _NAMED.fullmatch(text)
    component, rest = (named[1], named[2]) if named else (None, text)
    scaled = None if os.path.isfile(rest) else _SCALED.fullmatch(rest)
    return (component, scaled[1], float(scaled[2])) if scaled else (component, rest, 1.0)
