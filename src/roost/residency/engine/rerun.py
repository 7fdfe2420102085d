"""Out of memory inside a call: give up some of what stays on the device, and run the same call again."""

from __future__ import annotations

import enum
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy
import torch
from transformers import GenerationConfig

from roost.errors import OutOfMemory
from roost.foreign_words import told_allocation
from roost.option_spelling import option
from roost.pipelines.internals.of_diffusers import REGISTRY, hook_references
from roost.pipelines.internals.of_torch import version_of
from roost.residency.device.failures import naming_loss, ran_out
from roost.residency.device.interface import Device, EmulatedOutOfMemory
from roost.residency.weights.transfers import Transfers
from roost.units import format_bytes

_log = logging.getLogger(__name__)

T = TypeVar("T")


def run_elastically(
    attempt: Callable[[], T],
    state: RerunState,
    step_down: Callable[[], str | None],
    transfers: Transfers,
    shortage: MemoryShortage,
) -> T:
    """The result of ``attempt``, which is tried again after each ``step_down`` while memory runs out.

    Raises OutOfMemory when nothing is left to give up, and when ``state`` can't be put back exactly. What was given up
    is added to the changes of ``transfers``. A device that is lost gives DeviceLost, and nothing is tried again.
    """
    with transfers.device.engine_work(), naming_loss(shortage.where):
        return _run_elastically(attempt, state, step_down, transfers, shortage)


def _run_elastically(
    attempt: Callable[[], T],
    state: RerunState,
    step_down: Callable[[], str | None],
    transfers: Transfers,
    shortage: MemoryShortage,
) -> T:
    while True:
        refused = transfers.device.refusals
        try:
            result = attempt()
            if transfers.device.refusals > refused:
                _tell_of_makeshift(transfers, shortage.where)
            return result
        except RuntimeError as error:
            if not ran_out(error):
                raise
            transfers.device.notice(error)
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


def _tell_of_makeshift(transfers: Transfers, where: str) -> None:
    """cuDNN takes another engine where its first choice finds no workspace, keeps to it, and says nothing."""
    said = (
        f"{where}: an operation found less memory than it asked for and did without, so that bits may differ from those"
        " with more memory"
    )
    if said not in transfers.changes:
        transfers.changes.append(said)
        _log.warning("%s", said)


# What a call may change before it fails, kept so that the same call can run again and give the same bits.


# Nothing in these changes during a call; ``generate`` works on a copy of its configuration.
_UNCHANGING = (
    *(bool, int, float, complex, str, bytes, range, slice, enum.Enum, numpy.generic, type(None), type(...)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, GenerationConfig),
)
_OPAQUE = (torch.nn.Module, hook_references(), type)
_KNOWN_HOOKS = "diffusers.hooks."  # whose states are followed; what hangs on another library's hooks nobody knows
_MOST_HELD = 100_000  # objects of cache hooks
# Hooks count in small tensors, which they change in place.
_COPIED_BYTES = 1024
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


class RerunState:
    """Random state, arguments and cache hooks of one call into a component, as they were before it.

    ``parts`` are the attributes of each of the component's modules. ``refusal`` says why a second run could differ from
    the first; ``restore`` may run when it says nothing.
    """

    def __init__(self, parts: Iterable[dict[str, Any]], device: torch.device, args: Any, kwargs: Any) -> None:
        self._restorers: list[Callable[[], object]] = []
        self._tensors: list[tuple[str, torch.Tensor, int | None]] = []
        self._unknown: str | None = None
        self._seen: dict[int, object] = {}  # keeps what it saw, so that no address is used twice
        self._note_random(device)
        for index, each in enumerate(args):
            self._note_argument(f"argument {index}", each)
        for name, each in kwargs.items():
            self._note_argument(f"argument {name!r}", each)
        for registry in [part[REGISTRY] for part in parts if REGISTRY in part]:
            for name, hook in registry.hooks.items():
                self._note_held(f"the state of cache hook {name!r}", hook)

    def refusal(self) -> str | None:
        """Why the call can't run again exactly, in words."""
        if self._unknown is not None:
            return self._unknown
        for where, tensor, version in self._tensors:
            if version is None:
                return f"{where} was made in inference mode, which hides whether the call edited it"
            if version_of(tensor) != version:
                return f"{where} was edited in place by the call"
        return None

    def restore(self) -> None:
        """Puts back everything that the failed call changed."""
        for restore in self._restorers:
            restore()

    def _note_random(self, device: torch.device) -> None:
        state = torch.get_rng_state()
        self._restorers.append(lambda: torch.set_rng_state(state))
        if device.type == "cuda":
            on_device = torch.cuda.get_rng_state(device)
            self._restorers.append(lambda: torch.cuda.set_rng_state(on_device, device))

    def _note_argument(self, where: str, value: object) -> None:
        if isinstance(value, _UNCHANGING) or self._is_seen(value):
            return
        if type(value) in _PLAIN_TENSORS:
            self._note_tensor(where, value)  # type: ignore[arg-type]  # the line above says so
        elif isinstance(value, torch.Generator):
            state = value.get_state()
            self._restorers.append(lambda: value.set_state(state))
        elif type(value) in (list, dict) or isinstance(value, tuple):
            for name, each in self._note_container(value):
                self._note_argument(f"{where}[{name!r}]", each)
        elif self._unknown is None:
            self._unknown = f"{where} is a {type(value).__name__}, which the call may change and Roost can't put back"

    def _note_held(self, where: str, value: object) -> None:
        """A hook, or what hangs on it: states of any class, containers and tensors."""
        if isinstance(value, (*_UNCHANGING, *_OPAQUE)) or self._is_seen(value) or self._unknown is not None:
            return
        if len(self._seen) > _MOST_HELD:
            self._unknown = f"{where} has more than {_MOST_HELD:,} parts"
            return
        if isinstance(value, torch.Tensor):
            if value.device.type == "cpu" and value.nbytes <= _COPIED_BYTES:
                self._copy(value)
            else:
                self._note_tensor(where, value)
            return
        if isinstance(value, (list, dict, tuple, set, deque)):
            children = self._note_container(value)
        elif type(value).__module__.startswith(_KNOWN_HOOKS):
            children = self._note_container(vars(value)) if hasattr(value, "__dict__") else []
        elif callable(value):
            children = []
        else:
            self._unknown = f"{where} is a {type(value).__name__}, which the call may change and Roost can't put back"
            return
        for _, each in children:
            self._note_held(where, each)

    def _note_container(self, value: Any) -> list[tuple[object, object]]:
        """Keeps what a container holds, and returns it; the same container gets it back."""
        if isinstance(value, dict):
            kept = dict(value)
            self._restorers.append(functools.partial(_refill, value, value.update, kept))
            return list(kept.items())
        items = list(value)
        if not isinstance(value, tuple):
            add = value.update if isinstance(value, set) else value.extend
            self._restorers.append(functools.partial(_refill, value, add, items))
        return list(enumerate(items))

    def _copy(self, tensor: torch.Tensor) -> None:
        kept = tensor.clone()
        self._restorers.append(lambda: tensor.copy_(kept))

    def _note_tensor(self, where: str, tensor: torch.Tensor) -> None:
        self._tensors.append((where, tensor, None if tensor.is_inference() else version_of(tensor)))

    def _is_seen(self, value: object) -> bool:
        if id(value) in self._seen:
            return True
        self._seen[id(value)] = value
        return False


def _refill(container: Any, add: Callable[[Any], object], items: object) -> None:
    container.clear()
    add(items)


# PyTorch's out-of-memory errors as Roost's, in one line.


def _plan_again() -> str:
    return f"plan again with a smaller {option('vram')}, size or batch"


class MemoryShortage:
    """Memory that ran out: in which stage, what was asked for and what was in use.

    ``remedy`` gives a clause at the end, when all that could be given up was.
    """

    def __init__(self, where: str, device: Device, remedy: Callable[[], str] = _plan_again) -> None:
        self.where, self._device, self._remedy = where, device, remedy
        self._needed: str | None = None
        self._used_bytes = 0
        self._reserved_bytes: int | None = None

    def note(self, error: RuntimeError) -> None:
        """Remembers the figures of ``error``, and not the error, which holds the failed call's tensors."""
        if isinstance(error, EmulatedOutOfMemory):
            self._needed = format_bytes(error.needed_bytes)
        else:
            self._needed = told_allocation(error)
        self._used_bytes, self._reserved_bytes = self._device.used_bytes, self._device.reserved_bytes

    def error(self, reason: str | None = None) -> OutOfMemory:
        """The error that ends the run."""
        more = f"{self._needed} more than" if self._needed else "more than"
        held = self._reserved_bytes
        reserved = "" if held is None else f" (the allocator has held up to {format_bytes(held)} for it)"
        return OutOfMemory(
            f"{self.where}: out of memory on the {self._device.kind} device: it needs {more} the "
            f"{format_bytes(self._used_bytes)} in use now{reserved}, within a budget of "
            f"{format_bytes(self._device.budget_bytes)}"
            f"{f', and {reason}' if reason else ''}; {self._remedy()}."
        )


@contextmanager
def out_of_memory_in(where: str, device: Device) -> Iterator[None]:
    """Raises OutOfMemory that names ``where`` for memory that runs out, and DeviceLost for a device that is gone."""
    shortage, short = MemoryShortage(where, device), False
    try:
        with naming_loss(where):
            yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        shortage.note(error)
        short = True
    # Raised outside the except block: an error in flight keeps the failed call's tensors alive.
    if short:
        raise shortage.error()
