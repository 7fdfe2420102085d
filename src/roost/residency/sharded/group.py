"""The process group of one run: its ranks, what they tell each other, and who says why it failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch documents it, and lists it nowhere
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from roost.errors import RoostError, SaidElsewhere
from roost.facts.machine import DeviceKind, Ranks
from roost.option_spelling import option

_BACKENDS: dict[DeviceKind, tuple[str, str]] = {"cuda": ("nccl", "cuda"), "emulated": ("gloo", "cpu")}
# Ranks wait for each other at most so long: the slowest may load from a disk that all of them share.
_PATIENCE = timedelta(hours=2)
_LOOK_AGAIN_S = 0.02
_MOST_BYTES = 4 * 1024**2  # of one value; PyTorch's store drops whoever sends more than twice that


class RankGroup:
    """This process among the ranks of its run; all of them make one. What they tell each other goes through a store.

    Nothing here waits for a device, so that a rank whose others fail can say so and end.
    """

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
        self._sent: Counter[int] = Counter()  # by sender
        self._round, self._begun = 0, ""
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
        """Waits until every rank has come to ``point``; SaidElsewhere where one has failed before.

        After a round, raises RoostError where another has begun other calls in it than this one.
        """
        self._store.set(f"{point}/{self.ranks.rank}", "")
        for rank in range(self.ranks.world):
            self._await(f"{point}/{rank}")

    def send(self, raw: bytes) -> None:
        """Sends rank 0 some bytes, which it receives in their order."""
        key, parts = self._next_sent(self.ranks.rank), range(0, len(raw), _MOST_BYTES)
        for number, first in enumerate(parts):
            self._store.set(f"{key}/{number}", raw[first : first + _MOST_BYTES])  # type: ignore[arg-type]  # takes bytes
        self._store.set(key, str(len(parts)))

    def receive(self, rank: int) -> bytes:
        """What ``rank`` sends next. SaidElsewhere where one has failed before that came.

        Raises RoostError where another has begun other calls in this round than this one.
        """
        key = self._next_sent(rank)
        self._await(key)
        names = [f"{key}/{number}" for number in range(int(self._store.get(key)))]
        raw = b"".join(self._store.get(each) for each in names)
        for each in names:
            self._store.delete_key(each)
        return raw

    def _next_sent(self, rank: int) -> str:
        self._sent[rank] += 1
        return f"sent/{rank}/{self._sent[rank]}"

    @contextmanager
    def round(self) -> Iterator[None]:
        """What ``begin`` tells inside it must be the same on all ranks; RoostError at its end where it isn't."""
        self._round, self._begun = self._round + 1, ""
        yield
        self._compare()

    def begin(self, call: str) -> None:
        """Tells that this rank begins a ``call`` in which ranks gather each other's shards."""
        self._begun += f"{call} "
        self._store.set(f"begun/{self._round}/{self.ranks.rank}", self._begun)

    def _compare(self) -> None:
        """RoostError unless the others have begun the same calls in this round, of which this rank has ended its own.

        They had a part in each of its gathers, and tell of a call before they gather for it.
        """
        for rank in range(self.ranks.world):
            key = f"begun/{self._round}/{rank}"
            theirs = self._store.get(key).decode() if self._store.check([key]) else ""
            if theirs != self._begun:
                raise RoostError(
                    f"what rank {rank} generates uses the shards in another order or number than what rank"
                    f" {self.ranks.rank} does ({_counted(theirs)}, {_counted(self._begun)}), so they can't run"
                    f" together; give each run one {option('prompt')} and one {option('seed')}."
                )

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
        """Waits for a rank to set ``key``; SaidElsewhere where one fails meanwhile, RoostError like ``_compare``."""
        while not self._store.check([key]):
            if self._store.check(["exit_code"]):
                raise SaidElsewhere(int(self._store.get("exit_code")))
            if self._begun:
                self._compare()
            time.sleep(_LOOK_AGAIN_S)


def _counted(begun: str) -> str:
    return ", ".join(f"{name} × {count}" for name, count in Counter(begun.split()).items()) or "none"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
