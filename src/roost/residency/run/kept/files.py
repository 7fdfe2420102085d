"""The files beside an output: whole or not there, each saying what it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from roost.errors import RoostError
from roost.plan import write_bytes_atomically
from roost.regular_files import read_regular
from roost.residency.run.generate import tensor_digest
from roost.shell_quoting import shown_path

KeptStage = Literal["decode", "denoise"]
Say = Callable[[str], None]

SUFFIXES: Mapping[KeptStage, str] = {"decode": ".latents.safetensors", "denoise": ".step.safetensors"}
_SCHEMA = 1
_METADATA = "roost"
_MOST_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept: after ``step`` steps (None where nobody counted), the ``state`` as JSON, and its tensors."""

    stage: KeptStage
    step: int | None
    state: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor] = field(repr=False)


class NotOurs(Exception):
    """A file that this generation can't use; its text says why, after the file's name."""


class KeptFiles:
    """What one generation keeps: ``fox.png.latents.safetensors`` and ``fox.png.step.safetensors`` for ``fox.png``.

    ``key`` is of everything that its bits depend on, ``shown`` says in words which generation it is. ``say`` hears of
    what is there and can't be used; such a file is left alone until its name is needed, and moved aside then.
    """

    def __init__(self, output: Path, *, key: str, shown: str, say: Say) -> None:
        self.say = say
        self._key, self._shown = key, shown
        self._paths = {stage: output.with_name(output.name + suffix) for stage, suffix in SUFFIXES.items()}

    def path(self, stage: KeptStage) -> Path:
        return self._paths[stage]

    def read(self, stage: KeptStage) -> Kept | None:
        """What was kept for this generation; None, after a word about it, for a file that can't be used."""
        path = self._paths[stage]
        if not os.path.lexists(path):
            return None
        try:
            return _read(path, stage, self._key)
        except NotOurs as error:
            self.say(f"{shown_path(path)} {error}; it is not used.")
            return None

    def write(self, kept: Kept) -> bool:
        """Puts it on the disk before this returns; False, after a word about it, where that fails."""
        path = self._paths[kept.stage]
        try:
            self._make_way(path, kept.stage)
            write_bytes_atomically(path, _file(kept, self._key, self._shown))
        except (RoostError, OSError) as error:
            self.say(f"nothing is kept of {self._shown}: {error}")
            return False
        return True

    def has(self, stage: KeptStage) -> bool:
        """Whether there is one that belongs to this generation."""
        try:
            _header(self._paths[stage], self._key)
        except (NotOurs, OSError):
            return False
        return True

    def existing(self) -> list[Path]:
        """Those that are there and belong to this generation, what saves more first."""
        return [path for stage, path in self._paths.items() if self.has(stage)]

    def remove(self, stage: KeptStage | None = None) -> None:
        """Removes what belongs to this generation; nothing else, and nothing is raised."""
        for each in get_args(KeptStage) if stage is None else (stage,):
            if self.has(each):
                try:
                    self._paths[each].unlink(missing_ok=True)
                except OSError as error:
                    self.say(f"{shown_path(self._paths[each])} can't be removed: {error.strerror}; it is not needed.")

    def _make_way(self, path: Path, stage: KeptStage) -> None:
        if not os.path.lexists(path) or self.has(stage):
            return
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.{number}")):
            number += 1
        os.rename(path, aside)
        self.say(f"{shown_path(path)} is not of this generation, and is now {shown_path(aside)}.")


# One file: a safetensors file whose metadata say what it is.


def _file(kept: Kept, key: str, shown: str) -> bytes:
    state = json.dumps(kept.state)
    facts = {
        "schema": _SCHEMA,
        "key": key,
        "of": shown,
        "stage": kept.stage,
        "step": kept.step,
        "state": state,
        "sha256": _checksum(state, kept.tensors),
    }
    raw: bytes = save(dict(kept.tensors), metadata={_METADATA: json.dumps(facts)})
    return raw


def _read(path: Path, stage: KeptStage, key: str) -> Kept:
    try:
        facts = _header(path, key)
        tensors = load(read_regular(path, path.stat().st_size))
        if facts["stage"] != stage or facts["sha256"] != _checksum(facts["state"], tensors):
            raise NotOurs("is damaged")
        step = facts["step"]
        state = json.loads(facts["state"])
        return Kept(stage=stage, step=None if step is None else int(step), state=state, tensors=tensors)
    except OSError as error:
        raise NotOurs(f"can't be read ({error.strerror})") from None
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NotOurs("is damaged") from None


def _header(path: Path, key: str) -> Mapping[str, Any]:
    """What the file says of itself. Raises NotOurs unless it has this key, OSError where it can't be read."""
    try:
        size = int.from_bytes(read_regular(path, 8), "little")
        header = json.loads(read_regular(path, min(8 + size, path.stat().st_size))[8:])
        metadata = header.get("__metadata__", {})
        facts = json.loads(metadata[_METADATA]) if _METADATA in metadata else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NotOurs("is damaged") from None
    if not isinstance(facts, dict) or facts.get("schema") != _SCHEMA:
        raise NotOurs("was not kept by this version of Roost")
    if facts.get("key") != key:
        raise NotOurs(f"belongs to another generation ({str(facts.get('of'))[:120]!r})")
    return facts


def _checksum(state: str, tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        found.update(f"|{name}|{tensor_digest(tensors[name])}".encode())
    return found.hexdigest()


def shown_generation(prompt: str, seed: int) -> str:
    """For people: which generation a file is of."""
    short = prompt if len(prompt) <= _MOST_SHOWN else f"{prompt[: _MOST_SHOWN - 1]}…"
    return f"seed {seed}, {short}" if short else f"seed {seed}"
