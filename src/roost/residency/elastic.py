"""Out of memory inside a call: give up some of what stays on the device, and run the same call again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from roost.residency.memory_errors import Shortage
from roost.residency.rerun_state import RerunState
from roost.residency.transfers import Transfers

_log = logging.getLogger(__name__)

T = TypeVar("T")


def run_elastically(
    attempt: Callable[[], T],
    state: RerunState,
    step_down: Callable[[], str | None],
    transfers: Transfers,
    shortage: Shortage,
) -> T:
    """The result of ``attempt``, which is tried again after each ``step_down`` while memory runs out.

    Raises OutOfMemory when nothing is left to give up, and when ``state`` can't be put back exactly. What was given up
    is added to the changes of ``transfers``.
    """
    while True:
        try:
            return attempt()
        except torch.OutOfMemoryError as error:
            shortage.note(error)
        # Outside the except block: an error in flight keeps the failed attempt's tensors alive.
        transfers.device.synchronize()
        refusal = state.refusal()
        if refusal is not None:
            raise shortage.error(f"the call can't be run again with less, because {refusal}")
        said = step_down()
        if said is None:
            raise shortage.error("nothing is left to give up")
        transfers.changes.append(f"{said}, because memory ran out in {shortage.where}")
        _log.warning("%s", transfers.changes[-1])
        transfers.device.trim()
        state.restore()
