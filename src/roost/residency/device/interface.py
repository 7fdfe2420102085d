"""The device as the engine sees it: memory, a compute lane and a copy lane, and events between them.

The engine enqueues in program order on two lanes. An event recorded on a lane is reached when all that was enqueued on
that lane before it is done; a lane that waits for an event does nothing enqueued later until then. A wait binds to the
latest *earlier* record. Nothing here blocks the host except ``synchronize`` and ``wait_host``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from roost.facts.machine import DeviceKind, Lane

if TYPE_CHECKING:
    from typing import Self

_NOTHING: AbstractContextManager[object] = nullcontext()


class EmulatedOutOfMemory(torch.OutOfMemoryError):
    """What an emulated device raises beyond its budget, as PyTorch does on a GPU."""

    def __init__(self, message: str, needed_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class Device(ABC):
    """An accelerator with a byte budget. ``CudaDevice`` and ``EmulatedDevice`` are the two there are."""

    kind: DeviceKind
    device: torch.device
    budget_bytes: int

    @abstractmethod
    def allocate(self, count: int) -> torch.Tensor:
        """``count`` bytes as a uint8 tensor aligned to 256; raises torch.OutOfMemoryError beyond the budget."""

    @abstractmethod
    def free(self, buffer: torch.Tensor) -> None:
        """Gives an allocation back; its memory may be reused by what is enqueued on the compute lane from now on."""

    @abstractmethod
    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        """Enqueues a byte copy between host and device; ``source`` and ``target`` must live until it is done."""

    @abstractmethod
    def record(self, lane: Lane) -> Any:
        """A new event at the lane's present end."""

    @abstractmethod
    def wait(self, lane: Lane, event: Any) -> None:
        """Makes the lane wait for the event, without blocking the host."""

    @abstractmethod
    def wait_host(self, event: Any) -> None:
        """Blocks the host until the event is reached."""

    @abstractmethod
    def synchronize(self) -> None:
        """Blocks the host until both lanes are idle."""

    @abstractmethod
    def register(self, buffer: torch.Tensor) -> bool:
        """Pins a page-aligned host buffer exactly; False when the system refuses."""

    @abstractmethod
    def unregister(self, buffer: torch.Tensor) -> None:
        """Undoes ``register``, once every copy is done: the caller may free the memory."""

    @abstractmethod
    def trim(self) -> None:
        """Returns cached free memory to the device, before a call is tried again."""

    def enter_thread(self) -> None:  # noqa: B027, only CUDA has such a thing
        """Says that the calling thread, one of the engine's own, works for this device from now on."""

    @abstractmethod
    def begin_use(self, buffer: torch.Tensor) -> None:
        """Says that kernels enqueued on the compute lane from now on read ``buffer`` (checked when emulated)."""

    @abstractmethod
    def end_use(self, buffer: torch.Tensor) -> None:
        """Says that no kernel enqueued later reads ``buffer``."""

    def begin_host_write(self, buffer: torch.Tensor) -> None:  # noqa: B027, only an emulated device looks
        """Says that the host now overwrites a registered buffer (checked and poisoned when emulated)."""

    def counting_activations(self) -> AbstractContextManager[object]:
        """Inside the context, memory of activations counts as used; real devices count it anyway."""
        return nullcontext()

    def checking_reads(self, owner: str, weights: Iterable[tuple[str, torch.Tensor]]) -> AbstractContextManager[object]:
        """Inside the context, an operation that reads ``owner``'s ``weights`` off the device is an error."""
        return _NOTHING

    def engine_work(self) -> AbstractContextManager[object]:
        """Inside the context, operations are the engine's own, and what they allocate is no activation.

        Calls into components are inside it, too: this device is the thread's current one.
        """
        return _NOTHING

    def forget_activations(self) -> None:  # noqa: B027, a real device sees them freed
        """Says that activations that are still alive leave the device with their owner."""

    @abstractmethod
    def mark(self, lane: Lane = "compute") -> Any:
        """The moment at which all that is enqueued on the lane is done, for ``seconds_between``."""

    @abstractmethod
    def reached(self, mark: Any) -> bool:
        """Whether all that was enqueued before the mark is done; asking blocks nobody."""

    @abstractmethod
    def seconds_between(self, earlier: Any, later: Any) -> float:
        """Seconds from one mark to another; both must be reached."""

    def watch_stalls(self) -> None:  # noqa: B027, an emulated device always watches
        """Starts ``stall_s`` at zero."""

    @property
    def stall_s(self) -> float | None:
        """Seconds in which the compute lane waited for copies, after ``watch_stalls``; None when nobody watched."""
        return None

    @property
    def reserved_bytes(self) -> int | None:
        """Most that the allocator held of the device since ``reset_peak``; None where there is no such thing."""
        return None

    @property
    def refusals(self) -> int:
        """How often memory ran out so far where nobody knows of it: operations may do without, and say nothing."""
        return 0

    def notice(self, error: RuntimeError) -> None:  # noqa: B027, only a device that counts refusals looks
        """Says that the engine knows of the memory that ran out."""

    @property
    @abstractmethod
    def used_bytes(self) -> int:
        """Allocated now."""

    @abstractmethod
    def take_high_bytes(self) -> int:
        """Most allocated since the call before; no other figure changes by asking."""

    @property
    @abstractmethod
    def peak_bytes(self) -> int:
        """Most allocated since ``reset_peak``, live activations included."""

    @abstractmethod
    def reset_peak(self) -> None: ...

    @property
    @abstractmethod
    def free_bytes(self) -> int:
        """What could still be allocated now: of the budget, and of what is really free on the device."""

    @abstractmethod
    def close(self) -> None:
        """Ends threads and streams, unregisters what is registered and lifts the budget."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
