"""A Ray cluster to run workers on: started on this machine for one run, or joined where somebody has one."""

from __future__ import annotations

import io
import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.errors import RoostError, UsageError
from roost.temporary import temporary_folder

_log = logging.getLogger(__name__)

_ON = re.compile(r"ray(?::(?P<address>[^:\s]+:\d{1,5}))?")
_STARTS = 3  # Ray's own limit of 30 s is short on a busy machine
_CLOSING_S = 10.0
_STORE_BYTES = 256 * 1024**2  # for what travels: answers and latents, megabytes each
_REACHED_S, _STDERR = 5.0, 2
_SHOWN = 300  # letters of an error of Ray's
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
_QUIET_GUEST = {
    **_QUIET,
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # of 40 s each, where something accepts connections that is no head
}
# A person's own choice of where Ray keeps logs and sockets.
_FOLDER_VARIABLE = "RAY_TMPDIR"
# Below a temporary folder, which is this user's alone, since Ray opens its own to everybody. A socket's path has 107
# bytes, of which Ray takes 64, the temporary folder's name 33 and this 2.
_FOLDER, _MOST_PARENT_BYTES = "r", 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster, by Ray's id, its address and its host name; ``here`` is the driver's."""

    key: str
    address: str
    name: str
    gpus: int
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """``ray`` is the library, connected; ``run`` names this run's actors."""

    ray: Any
    run: str
    nodes: tuple[Node, ...]


def parse_on(text: str) -> str | None:
    """The address of the cluster to join; None starts one here. UsageError for anything else."""
    match = _ON.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--on {text!r} is not known; write ray, or ray:HOST:PORT of a cluster's head (its GCS port).")
    return match["address"]


@contextmanager
def opened_cluster(address: str | None, workers: int, on_note: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster, left or ended with the context. Raises UsageError without Ray, RoostError where none can be had."""
    ray = _library(_QUIET if address is None else _QUIET_GUEST)
    run = secrets.token_hex(4)
    with _own_folder() as folder, redirect_stdout(_ToLog()):
        try:
            if address is None:
                _start(ray, run, workers, folder, on_note)
            else:
                _join(ray, run, address)
            yield Cluster(ray=ray, run=run, nodes=tuple(_nodes(ray)))
        finally:
            ray.shutdown()


@contextmanager
def opened_folders(cluster: Cluster, nodes: Collection[Node]) -> Iterator[dict[str, str]]:
    """A folder on each of these nodes by its key, for what its workers have in common; gone with the context."""
    strategy = cluster.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    owner = cluster.ray.remote(num_cpus=0)(_Folder)
    owners = {each.key: owner.options(scheduling_strategy=strategy(each.key, soft=False)).remote() for each in nodes}
    try:
        yield {key: cluster.ray.get(each.path.remote()) for key, each in owners.items()}
    finally:
        for each in owners.values():
            with suppress(Exception):  # a node that is gone has its folder swept by the next command there
                cluster.ray.get(each.close.remote(), timeout=_CLOSING_S)


class _Folder:
    """An actor that has a folder on its node; where it dies, the next command there sweeps that away."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._path = self._open.enter_context(temporary_folder())

    def path(self) -> str:
        return str(self._path)

    def close(self) -> None:
        self._open.close()


class _ToLog(io.TextIOBase):
    """Takes what Ray prints on stdout of workers and nodes that end, where a command's result belongs."""

    def write(self, text: str) -> int:
        for line in filter(None, map(str.strip, text.splitlines())):
            _log.info("%s", line)
        return len(text)


def _library(settings: Mapping[str, str]) -> Any:
    os.environ.update({name: value for name, value in settings.items() if name not in os.environ})
    try:
        import ray  # imported here: nobody else pays for it
        import ray.util.scheduling_strategies
    except ImportError:
        raise UsageError("--on ray needs Ray, which isn't installed: pip install 'roost[fleet]'") from None
    return ray


@contextmanager
def _own_folder() -> Iterator[str | None]:
    """Where Ray keeps what it would never remove, its logs and sockets; None leaves that to Ray."""
    short = [each for each in (tempfile.gettempdir(), "/tmp") if len(os.fsencode(each)) <= _MOST_PARENT_BYTES]
    if not short or _FOLDER_VARIABLE in os.environ:
        yield None
        return
    with temporary_folder(Path(short[0])) as folder:
        yield str(folder / _FOLDER)


def _start(ray: Any, run: str, workers: int, folder: str | None, on_note: Callable[[str], None]) -> None:
    """Ray's tokens stay on: it makes one for this user where there is none."""
    own = {"num_cpus": workers, "object_store_memory": _STORE_BYTES, "include_dashboard": False, "_temp_dir": folder}
    for attempt in range(1, _STARTS + 1):
        try:
            _init(ray, run, address="local", **own)
        except Exception as error:  # Ray raises many kinds
            ray.shutdown()
            if attempt == _STARTS:
                raise RoostError(f"Ray doesn't start here ({_told(error)}); free memory and CPUs.") from error
            on_note(f"Ray did not start within its time; trying again ({attempt + 1} of {_STARTS})")
        else:
            return


def _join(ray: Any, run: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()  # Ray itself tries for minutes
        with _stderr_to_log():
            _init(ray, run, address=address)
    except (Exception, OverflowError) as error:  # as above
        raise RoostError(
            f"--on ray:{address}: the cluster can't be joined ({_told(error)}); give its head's address and GCS port."
        ) from error


def _init(ray: Any, run: str, **how: Any) -> None:
    """Ray puts its own handler of SIGTERM in place, for good; one that came meanwhile ends the run as any other."""
    before, ended = signal.getsignal(signal.SIGTERM), False
    try:
        ray.init(namespace=f"roost-{run}", log_to_driver=False, logging_level=logging.ERROR, **how)
    except SystemExit:
        ended = True
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if ended:
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """For what Ray's C++ writes there of one failure, many lines of it."""
    with tempfile.TemporaryFile() as heard:
        stderr = os.dup(_STDERR)
        os.dup2(heard.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            heard.seek(0)
            _ToLog().write(heard.read().decode(errors="replace"))


def _told(error: BaseException) -> str:
    """What was wrong at first; where Ray's message is a traceback, its last line says that."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [each.strip() for each in str(error).splitlines() if each.strip()]
    return lines[-1][:_SHOWN] if lines else type(error).__name__


def _nodes(ray: Any) -> Sequence[Node]:
    """Those that are alive, the driver's first."""
    here = ray.get_runtime_context().get_node_id()
    found = [
        Node(
            key=each["NodeID"],
            address=each["NodeManagerAddress"],
            name=each["NodeManagerHostname"],
            gpus=int(each["Resources"].get("GPU", 0)),
            here=each["NodeID"] == here,
        )
        for each in ray.nodes()
        if each["Alive"]
    ]
    return sorted(found, key=lambda each: (not each.here, each.name, each.key))
