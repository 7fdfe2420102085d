"""One component's masters in its host's common memory, as one process has them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from roost.residency.weights.host_masters import Layout, SharedMaster
from roost.residency.weights.shared.image import Image
from roost.residency.weights.shared.memory_file import MemoryFile
from roost.residency.weights.shared.rendezvous import Rendezvous
from roost.residency.weights.units import Unit


class SharedComponent:
    """Taken from a process that has it already, or made here and announced to the others.

    Who keeps no masters, because the component is resident, only takes. What is made here lies on the NUMA ``nodes``
    by turns. ``trouble`` says, in words, why masters are this process's own.
    """

    def __init__(self, name: str, rendezvous: Rendezvous, *, keeps: bool, nodes: Sequence[int] = ()) -> None:
        self.trouble: str | None = None
        self._name, self._rendezvous, self._keeps = name, rendezvous, keeps
        self._nodes = nodes
        self._memory: MemoryFile | None = None
        self._image: Image | None = None  # of what another process made
        self._starts: dict[Unit, int] = {}  # of what this one makes
        self._settled = False

    @contextmanager
    def met(self) -> Iterator[SharedComponent]:
        """Joins the holders, when whoever makes it now is done; if there are none, nobody else makes it meanwhile.

        Raises OSError where the folder can't be used.
        """
        with ExitStack() as alone:
            alone.enter_context(self._rendezvous.alone())
            self._join()
            if self.joined or not self._keeps:
                alone.close()
            try:
                yield self
            except BaseException:
                self.close()
                raise

    @property
    def joined(self) -> bool:
        """Whether another process made it."""
        return self._image is not None

    def fill(self, shell: torch.nn.Module) -> bool:
        """Gives the module, built without weights, those of the others; False where theirs is built otherwise."""
        if self._image is None or self._memory is None:
            return False
        return self._image.fill(shell, self._memory.private)

    def replace_in(self, module: torch.nn.Module) -> None:
        """Makes the loaded module read the others' memory where that has the same bytes."""
        if self._image is not None and self._memory is not None:
            self._image.replace_in(module, self._memory.private)

    def adopt(self, unit: Unit) -> bool:
        """Gives the unit its master, if its objects read the others' memory just as it would lay them out."""
        if self._memory is None or self._settled or not unit.bytes:
            return False
        start = self._start_of(unit)
        if start is None:
            self.trouble = "that of another process has other weights, or has them elsewhere"
            return False
        unit.move_to(_master(unit.layout, self._memory, start))
        return True

    def build(self, units: Sequence[Unit]) -> Mapping[Unit, SharedMaster]:
        """Masters for ``units``, to be filled, in new common memory; none where the others have some, or it fails."""
        if self.joined or self._settled or not self._keeps or not any(unit.bytes for unit in units):
            return {}
        starts, end = {}, 0
        for unit in units:
            starts[unit] = end
            end += _whole_pages(unit.layout)
        try:
            self._memory = MemoryFile.of(self._name, end, self._nodes)
        except OSError as error:
            self.trouble = f"there is no common memory ({error.strerror})"
            return {}
        self._starts = starts
        return {unit: _master(unit.layout, self._memory, start) for unit, start in starts.items()}

    def announce(self, module: torch.nn.Module) -> None:
        """What was built is filled, and from now on others find it. No more is taken or built."""
        self._settled = True
        if self._memory is None or not self._starts:
            return
        try:
            self._memory.seal(Image.of(module, self._starts).to_json())
            self._rendezvous.announce(self._memory.descriptor)
        except OSError as error:
            self.trouble = f"other processes can't be told of it ({error.strerror})"

    def close(self) -> None:
        """Nobody finds it here any more; the memory stays as long as somebody's tensors read it."""
        self._rendezvous.withdraw()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _join(self) -> None:
        descriptor = self._rendezvous.find()
        if descriptor is None:
            return
        memory = MemoryFile(descriptor)
        try:
            self._image = Image.from_json(memory.read_text())
        except (ValueError, KeyError, TypeError):  # nothing that Roost announced
            memory.close()
            return
        self._memory = memory
        self._rendezvous.announce(descriptor)  # in case the others end

    def _start_of(self, unit: Unit) -> int | None:
        """Where in the memory the unit's objects lie, if they do so together."""
        assert self._memory is not None, "only what is mapped is asked for"
        base = self._memory.private.data_ptr()
        placed = zip(unit.entries, unit.layout.spans, strict=True)
        starts = {entry.address - base - span.offset for entry, span in placed if span.extent_bytes}
        start = starts.pop() if len(starts) == 1 else -1
        fits = start >= 0 and start % mmap.PAGESIZE == 0 and start + unit.bytes <= self._memory.private.nbytes
        return start if fits else None


def _master(layout: Layout, memory: MemoryFile, start: int) -> SharedMaster:
    size = _whole_pages(layout)
    return SharedMaster(layout, _apart(memory.common, start, size), _apart(memory.private, start, size))


def _apart(memory: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """A part of it with a storage of its own: devices know by that what is pinned."""
    with torch.inference_mode(False):
        return torch.frombuffer(memory.numpy().data, dtype=torch.uint8, count=size, offset=start)


def _whole_pages(layout: Layout) -> int:
    return max(1, -(-layout.bytes // mmap.PAGESIZE)) * mmap.PAGESIZE
