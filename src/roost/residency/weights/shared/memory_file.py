"""Host memory without a name in any folder, which several processes map: the system frees it with the last of them."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Sequence

import torch

if sys.platform == "linux":  # where alone it is used
    import fcntl

    # MAP_NORESERVE, which Python 3.11 has no name for: what is private is to be copied by the page, if at all.
    _PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL  # a mapping beyond its file's end is fatal

_LENGTH_BYTES = 8
# The number of mbind, for which Python and libc have no function, by processor, and its policy MPOL_INTERLEAVE.
_MBIND, _INTERLEAVE = {"x86_64": 237, "aarch64": 235}, 3

Identity = tuple[int, int, int]


class MemoryFile:
    """Linux's memory file, mapped twice.

    ``common`` are the pages that all processes have; writes to ``private`` stay in this process, in copies of the
    pages that they touch. Only ``common`` may be pinned: the driver writes to what it pins, as far as the system knows,
    and each page of a private mapping would be copied. Who maps it keeps the memory, also when it is closed. Raises
    OSError where the system has no such file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        try:
            size = os.fstat(descriptor).st_size
            self.common = _mapped(descriptor, size, mmap.MAP_SHARED)
            self.private = _mapped(descriptor, size, _PRIVATE)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def of(cls, name: str, size: int, nodes: Sequence[int] = ()) -> MemoryFile:
        """A new one, of whole pages spread over these NUMA ``nodes``, for this process to fill and then to ``seal``."""
        descriptor = os.memfd_create(f"roost {name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        memory = cls(descriptor)
        _interleave(memory.common, nodes)
        return memory

    def seal(self, text: str) -> None:
        """Fixes its size, with ``text`` behind what is mapped."""
        written = text.encode()
        written += len(written).to_bytes(_LENGTH_BYTES, "little")
        end = self.common.nbytes
        while written:
            count = os.pwrite(self.descriptor, written, end)
            written, end = written[count:], end + count
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)

    def read_text(self) -> str:
        """What it was sealed with. Raises ValueError for a file that isn't whole."""
        if fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("it isn't sealed")
        end = self.common.nbytes - _LENGTH_BYTES
        length = int.from_bytes(bytes(self.common[end:].tolist()), "little")
        return bytes(self.common[end - length : end].numpy().data).decode()

    def close(self) -> None:
        os.close(self.descriptor)


def identity_of(place: int | str) -> Identity:
    """What tells the file of a descriptor, or at a path, from another that has taken its number."""
    status = os.stat(place)
    return status.st_dev, status.st_ino, status.st_size


def _interleave(memory: torch.Tensor, nodes: Sequence[int]) -> None:
    """Has pages that nobody has written yet lie on these NUMA nodes by turns, whoever writes them.

    Where the system refuses, they lie where they are written first: slower, and as good.
    """
    call = _MBIND.get(platform.machine())
    if call is None or len(nodes) < 2:
        return
    word_bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    words = [0] * (max(nodes) // word_bits + 1)
    for node in nodes:
        words[node // word_bits] |= 1 << node % word_bits
    mask = (ctypes.c_ulong * len(words))(*words)
    mask_bits = ctypes.c_ulong(word_bits * len(words) + 1)  # of which the system reads one less
    place = (ctypes.c_void_p(memory.data_ptr()), ctypes.c_ulong(memory.nbytes))
    ctypes.CDLL(None).syscall(ctypes.c_long(call), *place, ctypes.c_int(_INTERLEAVE), mask, mask_bits, ctypes.c_uint(0))


def _mapped(descriptor: int, size: int, flags: int) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.frombuffer(mmap.mmap(descriptor, size, flags=flags), dtype=torch.uint8)
