"""Where the processes of one host find each other's memory: a folder with a lock and a note of each holder.

Locks go with their process, and notes of dead ones are ignored, so that it doesn't matter who dies when.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.residency.weights.shared.memory_file import Identity, identity_of

if sys.platform == "linux":  # where alone it is used
    import fcntl


class Rendezvous:
    """All that concerns one component, by the ``stem`` of its files' names. The processes see each other's numbers."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._lock = folder / f"{stem}.lock"
        self._withdrawal: weakref.finalize[[Path, Rendezvous], Rendezvous] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process is in here; the last one to leave takes the lock's file along."""
        descriptor = self._locked(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._unlock(descriptor)

    def find(self) -> int | None:
        """A descriptor of the memory that a living process holds."""
        for note in self._notes():
            with contextlib.suppress(PermissionError):
                found = _held_by(note)
                if found is not None:
                    return found
                note.unlink(missing_ok=True)
        return None

    def announce(self, descriptor: int) -> None:
        """Lets others find what this process holds, until ``withdraw`` or its end."""
        note = self._folder / f"{self._stem}.{os.getpid()}.{descriptor}.held"
        note.write_text(" ".join(map(str, identity_of(descriptor))), encoding="ascii")
        self._withdrawal = weakref.finalize(self, _withdraw, note, Rendezvous(self._folder, self._stem))

    def withdraw(self) -> None:
        """Takes the announcement back, if there is one; who has the memory by then keeps it."""
        if self._withdrawal is not None:
            self._withdrawal()

    def tidy(self) -> None:
        """Removes the lock's file where nobody is in here and nobody holds anything."""
        with contextlib.suppress(OSError):
            self._unlock(self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB))

    def _locked(self, how: int) -> int:
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, how)
                if os.path.samestat(os.stat(self._lock), os.fstat(descriptor)):
                    return descriptor
            except FileNotFoundError:
                pass  # whoever had the lock took its file along
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _unlock(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            if not self._notes():
                self._lock.unlink()
        os.close(descriptor)

    def _notes(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._stem}.*.held"))


def _withdraw(note: Path, place: Rendezvous) -> None:
    note.unlink(missing_ok=True)
    place.tidy()


def _held_by(note: Path) -> int | None:
    """A descriptor of what the note's process holds; None where it is dead, or that number is another file's now."""
    try:
        pid, number = map(int, note.name.split(".")[-3:-1])
        noted: Identity = tuple(map(int, note.read_text(encoding="ascii").split()))  # type: ignore[assignment]
        place = f"/proc/{pid}/fd/{number}"
        if identity_of(place) != noted:
            return None
        descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    if identity_of(descriptor) == noted:
        return descriptor
    os.close(descriptor)
    return None
