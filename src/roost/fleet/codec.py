"""Values as bytes and back, bit by bit: tensors as safetensors, all else as JSON in their metadata; never pickled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from roost.errors import RoostError
from roost.pipelines.described_values import Otherwise, described, rebuilt
from roost.residency.run.kept.values import KeptTensors

_METADATA = "roost"
_LENGTH = 8  # bytes of a safetensors header's length
# What bytes that nobody packed make of safetensors, JSON and tensors.
_BROKEN = (
    *(SafetensorError, ValueError, KeyError, TypeError, AttributeError),
    *(RuntimeError, RecursionError, OverflowError),
)


def packed(value: Any, otherwise: Otherwise | None = None) -> bytes:
    """``value`` with all its tensors, of any dtypes and wherever they are; generators as their state.

    What can't be sent is described as what ``otherwise`` gives in its place. Raises Unkeepable without that.
    """
    tensors, numbers = KeptTensors(torch.device("cpu")), count()
    text = json.dumps(described(value, lambda tensor, _: tensors.put(tensor, str(next(numbers))), otherwise=otherwise))
    raw: bytes = save(tensors.tensors, metadata={_METADATA: text})
    return raw


def unpacked(raw: bytes, device: torch.device, generators: Iterator[torch.Generator] | None = None) -> Any:
    """What was packed, each tensor lying as it lay, those that were on a device on ``device``.

    A generator is the next one of ``generators``, put into the state that was packed. Raises RoostError for bytes that
    nobody packed.
    """
    try:
        length = int.from_bytes(raw[:_LENGTH], "little")
        text = json.loads(raw[_LENGTH : _LENGTH + length])["__metadata__"][_METADATA]
        return rebuilt(json.loads(text), KeptTensors(device, load(raw)).get, generators)
    except _BROKEN as error:
        why = " ".join(str(error).split())[:200]
        raise RoostError(f"what another worker sent can't be read ({type(error).__name__}: {why}).") from error
