"""One trial's process: started in a session of its own, listened to, and ended whatever it does.

The child's last two arguments are descriptors: a file with its request, and the pipe on which it answers with lines, as
``messages`` has both. For each line on its stdin it measures one generation.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from roost.plan.results import Status
from roost.probes.machine.cgroup import count_oom_kills
from roost.tune.trials.messages import Answer, Failed, Loaded, Message, Phase, Timed, decode
from roost.units import format_seconds

COMMAND = (sys.executable, "-P", "-m", "roost.tune.trials.child")
# Children work where nobody keeps models: a library that looks into the working directory finds nothing of a model's.
_NEUTRAL_FOLDER = os.path.abspath(os.sep)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
# A child beats twice a second from a thread; one stuck in foreign code that holds the interpreter's lock does not.
SILENCE_S = 60.0
_GOODBYE_S = 5.0
_REASON_CHARACTERS = 300

OnMessage = Callable[[Message], None]


class TrialEnded(Exception):
    """The child ended, or was ended, without a result: the row's status and reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a child may take for one answer, and how long it may say nothing."""

    deadline_s: float
    silence_s: float = SILENCE_S


class Child:
    """A running trial. Always close it: it is killed with everything that it started.

    Raises TrialEnded where the machine refuses to start one: no process, descriptor or room for temporary files left.
    """

    def __init__(
        self,
        request: bytes,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._oom_kills = count_oom_kills()
        self._phase = "starting"
        self._buffer = b""
        self._closed = False
        try:
            with contextlib.ExitStack() as started, contextlib.ExitStack() as handed_over:
                self._complaints = started.enter_context(tempfile.TemporaryFile())
                self._results, send = os.pipe()
                started.callback(os.close, self._results)
                handed_over.callback(os.close, send)
                written = handed_over.enter_context(_written(request))
                self._process = subprocess.Popen(
                    [*command, str(written.fileno()), str(send)],
                    stdin=subprocess.PIPE,
                    stdout=self._complaints,
                    stderr=self._complaints,
                    pass_fds=(written.fileno(), send),
                    env=dict(environment),
                    cwd=_NEUTRAL_FOLDER,
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the whole group
                )
                started.pop_all()  # closed with the child
        except OSError as error:
            raise TrialEnded("crashed", f"the trial can't be started: {error.strerror or error}") from None

    @property
    def pid(self) -> int:
        """Also the id of its session and group."""
        return self._process.pid

    def ask(self, line: str, patience: Patience, on_message: OnMessage | None = None) -> Answer:
        """Sends ``line`` and returns the answer to it; ``on_message`` sees all on the way.

        Raises TrialEnded for a child that fails, dies, falls silent or takes too long; ``on_message`` may raise too.
        """
        if line:
            self._tell(line)
        deadline_s = time.monotonic() + patience.deadline_s
        while True:
            message = self._receive(deadline_s, patience)
            if isinstance(message, Phase):
                self._phase = message.phase
            if on_message is not None:
                on_message(message)
            if isinstance(message, Failed):
                raise TrialEnded(message.status, message.reason)
            if isinstance(message, Loaded | Timed):
                return message

    def close(self) -> None:
        """Ends the child and all that it started, at once: its results are here and nothing of it is to be kept."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # also after its own end: what it started may live on
        self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        os.close(self._results)
        self._complaints.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child that is gone is noticed when it is listened to
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _receive(self, deadline_s: float, patience: Patience) -> Message:
        with selectors.DefaultSelector() as selector:
            selector.register(self._results, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TrialEnded(
                        "hung", f"not done after {format_seconds(patience.deadline_s)}, while {self._phase}"
                    )
                if not selector.select(min(left_s, patience.silence_s)):
                    if left_s > patience.silence_s:
                        silence = format_seconds(patience.silence_s)
                        raise TrialEnded("hung", f"no sign of life for {silence}, while {self._phase}")
                    continue
                read = os.read(self._results, 1 << 16)
                if not read:
                    raise self._death()
                self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return decode(line)
        except ValueError:
            raise TrialEnded("crashed", f"the trial said something unreadable, while {self._phase}") from None

    def _death(self) -> TrialEnded:
        """Why a child that closed its side is gone."""
        try:
            code = self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            return TrialEnded("crashed", f"the trial stopped answering, while {self._phase}")
        if code == -signal.SIGKILL:
            kills = count_oom_kills()
            if kills is not None and self._oom_kills is not None and kills > self._oom_kills:
                return TrialEnded("oom", f"host memory ran out: the kernel killed the trial, while {self._phase}")
            return TrialEnded("crashed", f"killed from outside (SIGKILL), while {self._phase}")
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        return TrialEnded("crashed", f"{how}, while {self._phase}{self._last_words()}")

    def _last_words(self) -> str:
        """The last line that the child wrote, on one line and not too long."""
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - 4096))
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:_REASON_CHARACTERS]}" if lines else ""


def child_environment(environment: Mapping[str, str], model_dir: Path) -> dict[str, str]:
    """``environment`` for a child in which no file of a working directory or of ``model_dir`` passes for a module.

    Of the user's PYTHONPATH the absolute entries stay. Where this package lies in the working directory or below a
    relative entry, the child gets its absolute path.
    """
    kept = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(each)]
    user_site = os.path.realpath(site.getusersitepackages())
    installed = map(os.path.realpath, (*site.getsitepackages(), user_site, *kept))
    if _PACKAGE_ROOT not in installed:
        kept.append(_PACKAGE_ROOT)
    safe = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYTHONSTARTUP")}
    safe |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(kept)}  # empty it counts as none
    if Path(user_site).is_relative_to(os.path.realpath(model_dir)):
        safe["PYTHONNOUSERSITE"] = "1"
    return safe


def _written(request: bytes) -> IO[bytes]:
    """The request in a file without a name: a pipe would block on a child that never reads."""
    with contextlib.ExitStack() as broken:
        file = broken.enter_context(tempfile.TemporaryFile())
        file.write(request)
        file.seek(0)
        broken.pop_all()
    return file


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
