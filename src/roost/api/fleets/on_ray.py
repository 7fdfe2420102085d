"""``--on ray``: a fleet's workers as actors of a Ray cluster, each on the host and card that the plan gives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from roost.api.fleets.run import FleetRun, run_fleet
from roost.api.fleets.server import PipelineServer, WorkerSpec
from roost.api.measurements.run_records import RunRecord
from roost.api.runs.kept import versions
from roost.errors import PlanMismatch
from roost.plan import PlanDocument, plan_to_yaml
from roost.plan.fleet import WorkerRecord

if TYPE_CHECKING:
    from roost.fleet.ray_cluster import Node
    from roost.fleet.ray_pool import ActorPlacement

# A worker counts as hung after so many times the seconds that a request was predicted to take there, at the least so
# long: loading and the first call of a kernel take what nobody predicts.
_TIMEOUT_REQUESTS, _LEAST_TIMEOUT_S = 5.0, 600.0

OnProgress = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """``address`` of a cluster to join, None to start one here; where workers find the model, and how they run.

    ``heartbeat_timeout_s`` is the least time without a sign of life after which one counts as hung.
    """

    address: str | None
    model: str | None
    device: str | None
    force: bool
    heartbeat_timeout_s: float = _LEAST_TIMEOUT_S


def run_on_ray(run: FleetRun, options: RayOptions, on_progress: OnProgress) -> RunRecord:
    """The run, on workers that end with it; Ray starts once the request is checked, and if something is left of it.

    Raises what ``run_fleet`` does; PlanMismatch, naming the host, where the cluster has no place for a worker.
    """
    from roost.fleet.ray_cluster import opened_cluster, opened_folders  # imported here: these bring torch
    from roost.fleet.ray_pool import RayPool
    from roost.fleet.routes import owners_of, worker_roles

    with ExitStack() as ends:

        def start_pool() -> RayPool:
            cluster = ends.enter_context(opened_cluster(options.address, len(run.document.workers), run.on_note))
            places = nodes_of(run.document, cluster.nodes)
            folders = ends.enter_context(opened_folders(cluster, places.values()))
            placements = _placements(run, options, places, folders)
            owners = owners_of(worker_roles(run.document), run.ready.plan)
            found = RayPool(cluster, placements, owners, PipelineServer, on_progress)
            ends.callback(found.end)
            return found

        return run_fleet(run, start_pool)


def _placements(
    run: FleetRun, options: RayOptions, places: Mapping[str, Node], folders: Mapping[str, str]
) -> dict[str, ActorPlacement]:
    from roost.fleet.ray_pool import ActorPlacement

    text, on_cuda = plan_to_yaml(run.document), run.ready.device_kind == "cuda"
    if on_cuda:
        _check_cards(run.document.workers, places)
    placements = {}
    hosts = {each.name: each.bytes.high for each in run.document.fleet.hosts} if run.document.fleet else {}
    for each in run.document.workers:
        node = places[each.host]
        spec = WorkerSpec(
            plan=text,
            name=each.name,
            model=options.model,
            device=options.device,
            force=options.force,
            folder=folders[node.key],
            host_bytes=hosts.get(each.host, 0),
            versions=versions(),
        )
        placements[each.name] = ActorPlacement(
            node=node,
            card=each.device if on_cuda else None,
            spec=json.dumps(asdict(spec)),
            heartbeat_timeout_s=max(options.heartbeat_timeout_s, _TIMEOUT_REQUESTS * each.request_s.high),
        )
    return placements


def nodes_of(document: PlanDocument, nodes: Sequence[Node]) -> dict[str, Node]:
    """The node for each host of the plan: that of its name or address, else the next one that no host is named after.

    Raises PlanMismatch where the cluster has too few.
    """
    hosts = list(dict.fromkeys(each.host for each in document.workers))
    found = {host: node for host in hosts for node in nodes if host in (node.name, node.address)}
    left = [node for node in nodes if node not in found.values()]
    others = [host for host in hosts if host not in found]
    if len(left) < len(others):
        raise PlanMismatch(
            f"the plan has a worker on host {others[len(left)]!r}, and the cluster has {len(nodes)} nodes"
            f" ({', '.join(node.name for node in nodes)}); start Ray there, or plan with fewer hosts."
        )
    return {**found, **dict(zip(others, left, strict=False))}


def _check_cards(workers: Sequence[WorkerRecord], places: Mapping[str, Node]) -> None:
    for each in workers:
        if each.device >= places[each.host].gpus:
            raise PlanMismatch(
                f"{each.name} is planned for card {each.device} of host {each.host!r}, and Ray sees"
                f" {places[each.host].gpus} there; plan with the cards that are there."
            )
