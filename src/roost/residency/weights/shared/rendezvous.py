"""Where the processes of one host find each other's memory: a folder with a lock and a note of each holder.

The system takes a lock away from a dead process, and a dead one's notes are ignored: it doesn't matter who dies when.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.residency.weights.shared.memory_file import identity_of

if sys.platform == "linux":  # where alone it is used
    import fcntl


class Rendezvous:
    """All that concerns one component, in files whose names begin with ``stem``.

    A note has no content. Its name says of which process, which descriptor, and what file that is.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._withdrawal: weakref.finalize[..., Rendezvous] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process is in here. Raises OSError where the folder can't be used."""
        path = self._folder / f"{self._stem}.lock"
        descriptor = _locked(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # whoever waits for it makes another
            os.close(descriptor)

    def find(self) -> int | None:
        """A descriptor of the memory that a living process holds."""
        return next(_living(self._folder, self._stem), None)

    def announce(self, descriptor: int) -> None:
        """Lets others find what this process holds, until ``withdraw`` or its end."""
        words = (self._stem, os.getpid(), descriptor, *identity_of(descriptor), "held")
        note = self._folder / ".".join(map(str, words))
        note.touch(mode=0o600)
        self._withdrawal = weakref.finalize(self, _withdraw, note, self._stem)

    def withdraw(self) -> None:
        """Takes the announcement back, if there is one; who has the memory by then keeps it."""
        if self._withdrawal is not None:
            self._withdrawal()


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _living(folder: Path, stem: str) -> Iterator[int]:
    """Descriptors of what living processes hold; notes of dead ones are removed."""
    for note in sorted(folder.glob(f"{stem}.*.held")):
        with contextlib.suppress(PermissionError):  # another user's
            descriptor = _held_by(note)
            if descriptor is None:
                note.unlink(missing_ok=True)
            else:
                yield descriptor


def _withdraw(note: Path, stem: str) -> None:
    note.unlink(missing_ok=True)
    for descriptor in _living(note.parent, stem):
        os.close(descriptor)


def _held_by(note: Path) -> int | None:
    """A descriptor of what the note's process holds; None where it is dead, or that number is another file's now."""
    try:
        pid, number, *identity = map(int, note.name.split(".")[-6:-1])
        place = f"/proc/{pid}/fd/{number}"
        if identity_of(place) != tuple(identity):
            return None
        descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    if identity_of(descriptor) == tuple(identity):
        return descriptor
    os.close(descriptor)
    return None
