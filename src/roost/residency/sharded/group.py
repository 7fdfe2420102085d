"""The process group of one run: its ranks, what they tell each other, and who says why it failed."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch documents it, and lists it nowhere
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from roost.errors import RoostError, SaidElsewhere
from roost.facts.machine import DeviceKind, Ranks

_BACKENDS: dict[DeviceKind, tuple[str, str]] = {"cuda": ("nccl", "cuda"), "emulated": ("gloo", "cpu")}
# Ranks wait for each other at most so long: the slowest may load from a disk that all of them share.
_PATIENCE = timedelta(hours=2)
_LOOK_AGAIN_S = 0.02


class RankGroup:
    """This process among the ranks of its run; all of them make one. Ranks share texts through a store."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        try:
            store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world, timeout=_PATIENCE))
        except (RuntimeError, ValueError, OSError) as error:
            raise RoostError(
                f"the ranks of this run don't find each other: {_line(error)}; start torchrun anew."
            ) from None
        self._store = PrefixStore("roost", store)
        self._shared = 0
        self.mesh: DeviceMesh | None = None

    def connect(self, device_kind: DeviceKind) -> DeviceMesh:
        """The mesh of all ranks' devices: NCCL between GPUs, gloo between emulated ones."""
        backend, device = _BACKENDS[device_kind]
        try:
            distributed.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=self.ranks.rank,
                world_size=self.ranks.world,
                timeout=_PATIENCE,
                device_id=torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else None,
            )
        except RuntimeError as error:
            raise RoostError(f"{backend} can't connect the ranks of this run: {_line(error)}.") from None
        self.mesh = DeviceMesh.from_group(distributed.group.WORLD, device)  # type: ignore[arg-type]
        return self.mesh

    def share(self, value: Any) -> Any:
        """Rank 0's ``value``, of plain JSON, on every rank. All call it; SaidElsewhere where rank 0 has failed."""
        self._shared += 1
        key = f"shared/{self._shared}"
        if self.ranks.rank == 0:
            self._store.set(key, json.dumps(value))
        self._await(key)
        return json.loads(self._store.get(key))

    def agree(self, point: str) -> None:
        """Waits until every rank has come to ``point``; SaidElsewhere where one has failed before."""
        self._store.set(f"{point}/{self.ranks.rank}", "")
        for rank in range(self.ranks.world):
            self._await(f"{point}/{rank}")

    def fail(self, exit_code: int) -> int | None:
        """Notes that this rank fails; the exit code of the one that failed before, or None for the first."""
        if self._store.add("failures", 1) == 1:
            self._store.set("exit_code", str(exit_code))
            return None
        self._store.wait(["exit_code"])
        return int(self._store.get("exit_code"))

    def close(self) -> None:
        """Leaves the process group."""
        if self.mesh is not None:
            self.mesh = None
            distributed.destroy_process_group()

    def _await(self, key: str) -> None:
        """Waits for a rank to set ``key``; SaidElsewhere where one fails meanwhile."""
        while not self._store.check([key]):
            if self._store.check(["exit_code"]):
                raise SaidElsewhere(int(self._store.get("exit_code")))
            time.sleep(_LOOK_AGAIN_S)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
