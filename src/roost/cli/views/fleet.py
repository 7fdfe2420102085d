"""How a plan for a fleet looks to a person: what it serves, who does what, and the layouts that were compared."""

from __future__ import annotations

from collections.abc import Iterator

from roost.api.requests.request import workload_text
from roost.cli.screen import show_folded, show_table, show_text
from roost.cli.views.plan import show_remark
from roost.plan.fleet import FleetRecord, LayoutRecord, WorkerRecord
from roost.plan.schema import PlanDocument
from roost.units import format_bytes, format_seconds


def show_fleet(plan: PlanDocument) -> None:
    """What is chosen and why, for what, its pace, its workers and hosts; then a row for each layout, and why not."""
    fleet = plan.fleet
    assert fleet is not None  # a plan for a fleet has it
    for chosen in [each for each in plan.layouts if each.why is not None]:
        show_folded(f"{chosen.name}: {chosen.why}.")
    show_text(f"{plan.model.family or plan.model.pipeline}, {workload_text(plan.workload)}, {_arrivals(fleet)}")
    show_text(_pace(fleet))
    for line in _workers(plan.workers):
        show_text(line)
    for host in fleet.hosts if len(fleet.hosts) <= 2 else ():
        show_text(f"{host.name}: up to {format_bytes(host.bytes.high)} of host memory, masters counted once")
    headings = ("Layout", "Workers", "Requests/s", "A request", "VRAM", "Host RAM", "Why not")
    show_table(headings, [_row(each) for each in plan.layouts], numbers=range(1, 6))
    show_remark(plan)


def _arrivals(fleet: FleetRecord) -> str:
    count = f"{fleet.requests:,} request{'' if fleet.requests == 1 else 's'} "
    return count + ("at once" if fleet.rate is None else f"at {fleet.rate:g}/s")


def _pace(fleet: FleetRecord) -> str:
    rate, busy = fleet.requests_per_s, fleet.utilisation
    shares = ", ".join(f"{role} {share:.0%}" for role, share in busy.items())
    failed = f", {fleet.failed:,} failed" if fleet.failed else ""
    return (
        f"{rate.mid:.3g} requests/s ({rate.low:.3g} to {rate.high:.3g}); half end within {format_seconds(fleet.p50_s)},"
        f" 95 % within {format_seconds(fleet.p95_s)}; busy: {shares}{failed}"
    )


def _workers(workers: list[WorkerRecord]) -> Iterator[str]:
    """A line for the workers of one role on like cards."""
    groups: dict[tuple[str, str], list[WorkerRecord]] = {}
    for each in workers:
        groups.setdefault((each.role, each.gpu), []).append(each)
    for (role, gpu), group in groups.items():
        most = max(group, key=lambda each: each.peak_bytes.high)
        yield (
            f"{len(group)} × {role} on {gpu}: up to {format_bytes(most.peak_bytes.high)} VRAM, a request takes"
            f" {format_seconds(most.request_s.mid)} of it"
        )


def _row(layout: LayoutRecord) -> tuple[str, ...]:
    rate, request, peak, host = layout.requests_per_s, layout.request_s, layout.peak_bytes, layout.host_bytes
    return (
        layout.name,
        str(layout.workers or "-"),
        f"{rate.mid:.3g}" if rate else "-",
        format_seconds(request.mid) if request else "-",
        format_bytes(peak.high) if peak else "-",
        format_bytes(host.high) if host else "-",
        layout.why_not or "chosen",
    )
