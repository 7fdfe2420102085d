"""The processes that torchrun starts for one run: which this is, and how they come to one result or one message."""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Self

from roost.errors import OutOfMemory, RoostError, SaidElsewhere
from roost.facts.machine import DeviceKind
from roost.probes.machine.ranks import own_device, read_ranks

if TYPE_CHECKING:
    from roost.residency.sharded.group import RankGroup

_INTERRUPTED = 130


class Team:
    """The ranks of one command; a context manager. Of their errors it lets one through: that of the first to fail.

    Others end with SaidElsewhere and its exit code. Without torchrun it is a process alone, and does nothing.
    """

    def __init__(self) -> None:
        self.ranks = read_ranks()
        self.group: RankGroup | None = None

    @property
    def speaks(self) -> bool:
        """Whether this process shows and writes what the run makes."""
        return self.ranks is None or self.ranks.rank == 0

    def join(self, device_kind: DeviceKind) -> None:
        """Finds the other ranks, and takes the GPU that has this one's number on its host."""
        if self.ranks is None:
            return
        if device_kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = own_device(self.ranks)
        from roost.residency.sharded.group import RankGroup  # imported here: it brings torch

        self.group = RankGroup(self.ranks)

    def agree(self, point: str) -> None:
        """Waits for every rank to come to ``point``."""
        if self.group is not None:
            self.group.agree(point)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.group is not None:
            self.group.close()
        if error is None or self.ranks is None or isinstance(error, SaidElsewhere):
            return
        code = error.exit_code if isinstance(error, RoostError) else 1 if isinstance(error, Exception) else _INTERRUPTED
        earlier = self._earlier(code)
        if earlier is not None:
            raise SaidElsewhere(earlier) from error
        if self.group is not None and not isinstance(error, OutOfMemory) and _is_of_connection(error):
            raise RoostError(
                f"rank {self.ranks.rank}: another process of this run is gone; torchrun's report says which, and the"
                " same command goes on."
            ) from error

    def _earlier(self, code: int) -> int | None:
        """The exit code of whoever failed before; None where this process is to say why."""
        assert self.ranks is not None, "one of several"
        if self.group is None:  # all of them meet the same: one speaks for each host
            return code if self.ranks.local_rank else None
        try:
            return self.group.fail(code)
        except RuntimeError:  # torchrun has ended, and its store with it
            return None if self.ranks.rank == 0 else code


def _is_of_connection(error: BaseException | None) -> bool:
    """Whether it, or what led to it, came out of an exchange between ranks."""
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if frames and str(frames[-1].f_globals.get("__name__", "")).startswith("torch.distributed"):
            return True
        error = error.__cause__ or error.__context__
    return False
