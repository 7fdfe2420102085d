"""Timelines as a trace that Perfetto and Chrome open. Format: Trace Event Format, JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from roost.facts.stage import StageKey
from roost.timeline.record import Pass, TimelineRecord

Event = dict[str, object]

# Threads of each process, from top to bottom.
_TRACKS = ("stages", "passes", "compute", "copy")


def perfetto_document(records: Sequence[TimelineRecord]) -> dict[str, object]:
    """One trace with a process for each timeline: stages, passes, both lanes, and memory as counters in bytes."""
    events = [event for number, record in enumerate(records, start=1) for event in _process(record, number)]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"schema": 1, "timelines": [f"{each.kind}: {each.model} on {each.device}" for each in records]},
    }


def _process(record: TimelineRecord, pid: int) -> Iterator[Event]:
    yield _meta(
        pid, 0, "process_name", {"name": f"{record.kind}: {record.model} on {record.device}, {record.workload}"}
    )
    yield _meta(pid, 0, "process_sort_index", {"sort_index": pid})
    for tid, track in enumerate(_TRACKS, start=1):
        yield _meta(pid, tid, "thread_name", {"name": track})
        yield _meta(pid, tid, "thread_sort_index", {"sort_index": tid})
    yield from ({**event, "cat": record.kind} for event in _timed(record, pid))


def _timed(record: TimelineRecord, pid: int) -> Iterator[Event]:
    for stages, start_s, end_s in stages_of(record.passes):
        yield _complete(pid, "stages", record.text_of(stages), (start_s, end_s), {})
    for each in record.passes:
        span = each.start_s, each.end_s
        name = f"{each.count} more passes" if each.skipped else each.component
        yield _complete(pid, "passes", name, span, {"passes": each.count})
        if each.skipped:
            for lane in ("compute", "copy"):
                yield _complete(pid, lane, f"{name}, not drawn", _between(record, lane, span), {})
    for part in record.slices:
        name, moved = f"{part.component} {part.part}", {"bytes": part.bytes} if part.bytes else {}
        yield _complete(pid, part.lane, name, (part.start_s, part.end_s), moved)
    kinds = dict.fromkeys(name for level in record.memory for name in level.bytes)
    for level in record.memory:
        held = {name: level.bytes.get(name, 0) for name in kinds}  # a counter that is not named keeps its value
        yield _counter(pid, "device memory", level.time_s, held)
    for time_s in (0.0, record.seconds):
        yield _counter(pid, "budget", time_s, {"bytes": record.budget_bytes})


def _between(record: TimelineRecord, lane: str, span: tuple[float, float]) -> tuple[float, float]:
    """The part of ``span`` in which the lane has no slices: a copy ahead runs on past its pass."""
    middle = (span[0] + span[1]) / 2
    here = [each for each in record.slices if each.lane == lane]
    began = max([span[0], *(each.end_s for each in here if each.start_s < middle)])
    ended = min([span[1], *(each.start_s for each in here if each.start_s >= middle)])
    return began, max(began, ended)


def stages_of(passes: Sequence[Pass]) -> list[tuple[tuple[StageKey, ...], float, float]]:
    """Maximal runs of passes of the same stages, as (stages, start, end)."""
    starts = [index for index, each in enumerate(passes) if index == 0 or passes[index - 1].stages != each.stages]
    return [
        (passes[first].stages, passes[first].start_s, passes[last - 1].end_s)
        for first, last in pairwise([*starts, len(passes)])
    ]


def _complete(pid: int, track: str, name: str, span: tuple[float, float], args: Mapping[str, object]) -> Event:
    begin, end = _us(span[0]), _us(span[1])
    tid = _TRACKS.index(track) + 1
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": begin, "dur": end - begin, "args": args}


def _counter(pid: int, name: str, time_s: float, series: Mapping[str, int]) -> Event:
    return {"ph": "C", "pid": pid, "tid": 0, "name": name, "ts": _us(time_s), "args": series}


def _meta(pid: int, tid: int, name: str, args: Event) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": name, "args": args}


def _us(seconds: float) -> int:
    """Whole microseconds: neighbours that meet still meet after rounding."""
    return round(seconds * 1e6)
