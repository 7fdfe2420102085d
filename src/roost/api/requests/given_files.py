"""Files as typed: LoRAs (``[COMPONENT=]PATH[:scale]``), lists of prompts, and the hash of what a file holds."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from roost.errors import InvalidFile, UsageError
from roost.plan import PlanDocument
from roost.probes.files.headers import read_header
from roost.probes.files.safe_files import open_regular
from roost.residency.run.lora_files import LoraFile
from roost.shell_quoting import shown_path
from roost.units import format_bytes

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


# A file of prompts: one a line.


MAX_PROMPTS_BYTES = 16 * 1024**2


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """The prompts of a UTF-8 file, one a line; blank lines and lines that start with # don't count.

    Raises InvalidFile for a file that can't be read, isn't UTF-8, is larger than 16 MiB or holds no prompt.
    """
    with open_regular(str(path), str(path)) as file:
        if file.bytes > MAX_PROMPTS_BYTES:
            raise InvalidFile(
                f"{shown_path(path)} has {format_bytes(file.bytes)}, too much for prompts; give one a line."
            )
        raw = file.read_at(0, file.bytes)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidFile(f"{shown_path(path)} is not UTF-8 in line {line}; save it as UTF-8.") from None
    lines = (line.strip() for line in text.split("\n"))
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise InvalidFile(f"{shown_path(path)} holds no prompt; write one a line, without # before it.")
    return prompts


# The SHA-256 of a regular file's content.


_CHUNK_BYTES = 16 * 1024**2


def sha256_of(path: Path) -> str:
    """Hex digits; raises InvalidFile for what is no regular file or can't be read."""
    digest = hashlib.sha256()
    with open_regular(str(path), str(path)) as file:
        for offset in range(0, file.bytes, _CHUNK_BYTES):
            digest.update(file.read_at(offset, min(_CHUNK_BYTES, file.bytes - offset)))
    return digest.hexdigest()
