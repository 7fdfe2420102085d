"""Temporary files and folders: whole or not there for others, and gone soon after their process, however it ends.

A process holds a lock on each of its own, which the system lets go when it dies, and lists their paths in a file of the
user's state directory. ``sweep`` removes what dead processes have listed; where that directory can't be written, the
next temporary file in the same folder sweeps that folder.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from roost.user_folders import user_folder

_NAME = re.compile(r".+\.(\d+)\.[0-9a-f]{8}\.roost-tmp(\.\w+)?", re.DOTALL)
_LIST = re.compile(r"(\d+)\.[0-9a-f]{8}")
_SHOWN_BYTES = 80  # of the name that it stands for: a file's name has 255
_MAX_LIST_BYTES = 1024**2
_OPEN = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):  # each exists on some systems only
    _OPEN |= getattr(os, _flag, 0)


@contextmanager
def temporary_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """An empty file beside ``path``, to be moved there; removed at the end if it wasn't.

    Raises OSError where there can be none.
    """
    own = _mine()
    own.sweep_once(path.parent)
    shown = os.fsdecode(os.fsencode(path.name)[:_SHOWN_BYTES])
    made = own.make(lambda: path.with_name(f".{shown}.{_token()}.roost-tmp{suffix}"), _make_file)
    try:
        yield made
    finally:
        own.drop(made)


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder in ``parent``, by default where the system wants them; removed with all that is in it.

    Raises OSError like ``tempfile``.
    """
    own, parent = _mine(), parent or Path(tempfile.gettempdir())
    made = own.make(lambda: parent / f"roost.{_token()}.roost-tmp", lambda path: path.mkdir(mode=0o700))
    try:
        yield made
    finally:
        own.drop(made)


def sweep() -> None:
    """Removes what processes that are gone have left behind. What can't be removed stays; nothing is raised."""
    with contextlib.suppress(OSError):  # no state directory: nothing was listed
        for entry in sorted(_lists_folder().iterdir()):
            _sweep_list(entry)


class _Own:
    """One process's temporary files and folders, with their locks, and the list of them on the disk."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._locks: dict[Path, int | None] = {}
        self._swept: set[Path] = set()
        self._list: tuple[Path, int] | None = None
        atexit.register(self._close)

    def make(self, name: Callable[[], Path], create: Callable[[Path], None]) -> Path:
        while True:
            path = name()
            try:
                self._note(path)  # before it is there, so that an interrupt in between leaves nothing unknown
                create(path)
                locked, self._locks[path] = _lock(path)
            except OSError:
                self.drop(path)
                raise
            if locked:
                return path
            self.drop(path)  # a sweeper was quicker than the lock

    def drop(self, path: Path) -> None:
        if os.getpid() != self.pid:  # a fork, to which none of it belongs
            return
        _remove(path)
        descriptor = self._locks.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)
        if self._list is not None and not self._locks:
            with contextlib.suppress(OSError):
                os.ftruncate(self._list[1], 0)

    def sweep_once(self, folder: Path) -> None:
        if folder in self._swept:
            return
        self._swept.add(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    _remove_if_dead(Path(entry.path))

    def _note(self, path: Path) -> None:
        if self._list is None:
            self._list = _new_list()
        self._locks[path] = None
        if self._list is not None:
            with contextlib.suppress(OSError):
                os.write(self._list[1], json.dumps(os.path.abspath(path)).encode() + b"\n")

    def _close(self) -> None:
        for path in list(self._locks):
            self.drop(path)
        if self._list is not None and os.getpid() == self.pid:
            _remove(self._list[0])


def _mine() -> _Own:
    return _of_process(os.getpid())


@cache
def _of_process(_: int) -> _Own:
    """A fork gets its own."""
    return _Own()


def _token() -> str:
    return f"{os.getpid()}.{secrets.token_hex(4)}"


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))


def _lists_folder() -> Path:
    return user_folder("state") / "temporary"


def _new_list() -> tuple[Path, int] | None:
    """A list's path and the descriptor that it is written and locked by; None where none can be kept."""
    with contextlib.suppress(OSError):
        folder = _lists_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _token()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        if _hold(descriptor, path):
            return path, descriptor
        os.close(descriptor)
    return None


def _sweep_list(path: Path) -> None:
    match = _LIST.fullmatch(path.name)
    if match is None:
        return
    with _held_if_dead(int(match[1]), path) as dead:
        if not dead:
            return
        for line in path.read_bytes()[:_MAX_LIST_BYTES].splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a torn line
                listed = json.loads(line)
                if isinstance(listed, str):
                    _remove_if_dead(Path(listed))
        _remove(path)


def _remove_if_dead(path: Path) -> None:
    match = _NAME.fullmatch(path.name)
    if match is not None:
        with _held_if_dead(int(match[1]), path) as dead:
            if dead:
                _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


if sys.platform == "win32":  # a file that is held open there can't be moved, so its process's number has to do

    def _lock(path: Path) -> tuple[bool, int | None]:
        return True, None

    def _hold(descriptor: int, path: Path) -> bool:
        return True

    @contextmanager
    def _held_if_dead(pid: int, path: Path) -> Iterator[bool]:
        import psutil  # imported here: only a leftover needs it

        yield not psutil.pid_exists(pid)

else:
    import fcntl

    def _lock(path: Path) -> tuple[bool, int | None]:
        """Locks what was just made; False if a sweeper had it before."""
        descriptor = os.open(path, _OPEN)
        return _hold(descriptor, path), descriptor

    def _hold(descriptor: int, path: Path) -> bool:
        """Waits for the lock, then tells whether the file is still there; without locks nothing is swept."""
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            return os.path.samestat(os.lstat(path), os.fstat(descriptor))
        return False

    @contextmanager
    def _held_if_dead(pid: int, path: Path) -> Iterator[bool]:
        """True, with its lock held meanwhile, for what is this user's and no process has locked."""
        try:
            descriptor = os.open(path, _OPEN)
        except (OSError, ValueError):
            yield False
            return
        try:
            yield _is_free(descriptor)
        finally:
            os.close(descriptor)

    def _is_free(descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody holds it, or there are no locks here
            return False
        return True
