"""What torchrun tells the processes that it starts, through their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from roost.errors import UsageError
from roost.facts.machine import Ranks


def read_ranks(environ: Mapping[str, str] = os.environ) -> Ranks | None:
    """This process among torchrun's; None where nothing started several. Raises UsageError for what is no number."""
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return None
    rank, world = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    local_rank = _number(environ, "LOCAL_RANK", rank)
    local_world = _number(environ, "LOCAL_WORLD_SIZE", world)
    if not (rank < world and local_rank < local_world <= world):
        raise UsageError(
            f"RANK={rank}, WORLD_SIZE={world}, LOCAL_RANK={local_rank} and LOCAL_WORLD_SIZE={local_world} in the"
            " environment contradict each other; start with torchrun, which sets them."
        )
    return Ranks(rank=rank, world=world, local_rank=local_rank, local_world=local_world)


def _number(environ: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = environ.get(name)
    if text is None and otherwise is not None:
        return otherwise
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"{name}={text!r} in the environment is no number; start with torchrun, which sets it.")
    return int(text)


def own_device(ranks: Ranks, environ: Mapping[str, str] = os.environ) -> str:
    """``CUDA_VISIBLE_DEVICES`` for this process alone: the one of the visible devices that has its local rank.

    Raises UsageError where fewer are visible than processes were started.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(ranks.local_rank)
    devices = [each.strip() for each in visible.split(",") if each.strip()]
    if ranks.local_rank >= len(devices):
        raise UsageError(
            f"CUDA_VISIBLE_DEVICES={visible!r} shows {len(devices)} GPUs to {ranks.local_world} processes; show as many"
            " as torchrun starts."
        )
    return devices[ranks.local_rank]
