"""A Ray cluster to run workers on: started on this machine for one run, or joined where somebody has one."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from roost.errors import RoostError, UsageError
from roost.temporary import temporary_folder

_ON = re.compile(r"ray(?::(?P<address>[^:\s]+:\d{1,5}))?")
_STARTS = 3  # Ray's own limit of 30 s is short on a busy machine
_CLOSING_S = 10.0
_STORE_BYTES = 256 * 1024**2  # for what travels: answers and latents, megabytes each
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


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
    ray = _library()
    run = secrets.token_hex(4)
    _connect(ray, run, address, workers, on_note)
    try:
        yield Cluster(ray=ray, run=run, nodes=tuple(_nodes(ray)))
    finally:
        ray.shutdown()


@contextmanager
def opened_folders(cluster: Cluster) -> Iterator[dict[str, str]]:
    """A folder on each node by its key, for what the node's workers have in common; gone with the context."""
    strategy = cluster.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    owner = cluster.ray.remote(num_cpus=0)(_Folder)
    owners = {
        each.key: owner.options(scheduling_strategy=strategy(each.key, soft=False)).remote() for each in cluster.nodes
    }
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


def _library() -> Any:
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    try:
        import ray  # imported here: nobody else pays for it
        import ray.util.scheduling_strategies
    except ImportError:
        raise UsageError("--on ray needs Ray, which isn't installed: pip install 'roost[fleet]'") from None
    return ray


def _connect(ray: Any, run: str, address: str | None, workers: int, on_note: Callable[[str], None]) -> None:
    """Ray's tokens stay on: it makes one for this user where there is none."""
    own = {} if address else {"num_cpus": workers, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                address=address or "local",
                namespace=f"roost-{run}",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        except Exception as error:  # Ray raises many kinds
            ray.shutdown()
            why = " ".join(str(error).split())[:300] or type(error).__name__
            if address is not None:
                raise RoostError(f"--on ray:{address}: the cluster can't be joined ({why}); check its head.") from error
            if attempt == _STARTS:
                raise RoostError(f"Ray doesn't start here ({why}); free memory and CPUs, and try again.") from error
            on_note(f"Ray did not start within its time; trying again ({attempt + 1} of {_STARTS})")
        else:
            return


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
