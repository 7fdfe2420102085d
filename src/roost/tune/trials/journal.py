"""The journal of a bench: a JSON line for each trial, on the disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from roost.errors import RoostError, UsageError
from roost.facts.machine import GpuFacts
from roost.option_spelling import option
from roost.profiles.lock import locked
from roost.shell_quoting import shown_path
from roost.user_folders import user_folder

_FINISHED = "finished"


def journal_key(facts: Mapping[str, object]) -> str:
    """One hash for all that must be equal before measurements may be mixed: model, workload, machine, versions."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def journal_path(key: str) -> Path:
    """Where the journal of that key lies: in the user's state directory."""
    return user_folder("state") / "bench" / f"{key[:16]}.jsonl"


@contextmanager
def only_bench(gpu: GpuFacts) -> Iterator[None]:
    """Keeps other benches off the device meanwhile; RoostError when one is there and doesn't end soon."""
    folder = user_folder("state") / "bench"
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / f"{gpu.uuid or gpu.device_kind}.lock"))
        except OSError as error:
            raise UsageError(
                f"the folder {shown_path(folder)} can't be written: {error.strerror}; set XDG_STATE_HOME to"
                " another place."
            ) from None
        except RoostError:
            raise RoostError(
                f"another bench runs on {gpu.name}, and two would falsify each other's figures; wait for its end."
            ) from None
        yield


class Journal:
    """The lines of one key. An unfinished journal is taken up where it ended; a finished one makes way for a new one.

    A torn last line is ignored, and so is every line that isn't this key's, or of a trial on a model cut short, which
    earlier versions ran.
    """

    def __init__(self, path: Path, key: str, *, fresh: bool = False) -> None:
        self.path = path
        self._key = key
        lines = [] if fresh else _read(path, key)
        finished = any(line.get(_FINISHED) for line in lines)
        self._lines = [] if finished else lines
        if (fresh or finished) and path.exists():
            path.replace(path.with_suffix(".previous.jsonl"))  # measured once, so never simply deleted
        self._torn = _ends_torn(path)

    @property
    def trials(self) -> int:
        """How many trials are in it."""
        return len(self._lines)

    def find(self, **facts: object) -> Mapping[str, object] | None:
        """The newest line with these values."""
        lines = reversed(self._lines)
        return next((line for line in lines if all(line.get(name) == facts[name] for name in facts)), None)

    def add(self, line: Mapping[str, object]) -> None:
        """Appends a trial's line; it is on the disk when this returns. UsageError when it can't be written."""
        self._append({**line, "key": self._key})
        self._lines.append(dict(line))

    def finish(self) -> None:
        """Says that the bench came to its end."""
        self._append({_FINISHED: True, "key": self._key})

    def _append(self, line: Mapping[str, object]) -> None:
        text = json.dumps(line, allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{text}\n" if self._torn else f"{text}\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UsageError(
                f"the journal {str(self.path)!r} can't be written: {error.strerror}; set XDG_STATE_HOME to another"
                " place."
            ) from None
        self._torn = False


def _read(path: Path, key: str) -> list[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RoostError(
            f"the journal {shown_path(path)} can't be read: {error.strerror}; start anew with {option('fresh', True)}."
        ) from None
    lines = []
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        if isinstance(document, dict) and document.get("key") == key and document.get("heat") is None:
            lines.append(document)
    return lines


def _ends_torn(path: Path) -> bool:
    """Whether the file's last line has no end."""
    try:
        with path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) != b"\n"
    except OSError:  # none, or an empty one
        return False
