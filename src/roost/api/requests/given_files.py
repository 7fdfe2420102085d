"""Files as typed: LoRAs (``[COMPONENT=]PATH[:scale]``), lists of prompts, and the hash of what a file holds."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from roost.api.requests.option_sets import LoraOptions
from roost.errors import InvalidFile, PlanMismatch, UsageError
from roost.facts.loras import LoraFile
from roost.option_spelling import option
from roost.plan import PlanDocument
from roost.plan.loras import lora_files
from roost.probes.files.headers import read_header
from roost.probes.files.safe_files import open_regular
from roost.shell_quoting import shown_path
from roost.units import format_bytes

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
# What a tensor of a low-rank adapter has in its name, in every layout.
_LORA_WORDS = ("lora", "lokr", "loha", "hada", "dora")
_SCALED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.DOTALL)


def lora_texts(options: LoraOptions) -> tuple[str, ...]:
    """What was typed of LoRAs; one text stands for a list of it."""
    return (options.lora,) if isinstance(options.lora, str) else tuple(options.lora)


def read_loras(texts: Iterable[str], components: Collection[str], fuse: bool | None = None) -> tuple[LoraFile, ...]:
    """Each text's file, scale and component; raises UsageError or InvalidFile for what is no LoRA for these."""
    files = tuple(replace(_read(text, components), fuse=fuse) for text in texts)
    if files:
        _check_peft()
    return files


def planned_loras(plan: PlanDocument, fuse: bool | None = None) -> tuple[LoraFile, ...]:
    """The LoRAs that the plan is made with, which must still be the same files (PlanMismatch).

    ``fuse`` has them in another way than planned.
    """
    if plan.loras:
        _check_peft()
    for each in plan.loras:
        if sha256_of(Path(each.path)) != each.sha256:
            raise PlanMismatch(
                f"the plan is made with the LoRA {shown_path(each.path)}, which has changed; plan again."
            )
    return tuple(each if fuse is None else replace(each, fuse=fuse) for each in lora_files(plan.loras))


def check_fuse(loras: Collection[object], fuse: bool | None) -> None:
    """Raises UsageError for a way to have LoRAs where there are none."""
    if fuse is not None and not loras:
        raise UsageError(
            f"{option('fuse', fuse)} says how LoRAs are had, and there is none; give {option('lora')}, too."
        )


def _check_peft() -> None:
    if find_spec("peft") is None:
        raise UsageError(f"{option('lora')} needs the package peft; install it with: pip install 'roost[lora]'")


def _read(text: str, components: Collection[str]) -> LoraFile:
    component, path, scale = _parsed(text)
    if component is not None and component not in components:
        known = ", ".join(components)
        raise UsageError(f"--lora {shown_path(text)}: the model has no component {component!r}; it has {known}.")
    if not math.isfinite(scale):
        raise UsageError(f"--lora {shown_path(text)}: the scale must be a number like 0.8.")
    if Path(path).suffix != ".safetensors":  # the very letters: diffusers would take others for a pickle
        raise UsageError(f"--lora {shown_path(path)} is not a .safetensors file; Roost opens no other kind of weights.")
    names = (name.lower() for sizes in read_header(path).sizes.values() for name in sizes)
    if not any(word in name for name in names for word in _LORA_WORDS):
        raise InvalidFile(f"--lora {shown_path(path)} holds no LoRA: no tensor of it is named as those of one are.")
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
