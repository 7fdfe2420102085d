"""What the Trace Event Format says of the events that Roost writes, as a check of a whole document.

Documented fields: every event has ``name``, ``ph``, ``pid`` and ``tid``; ``ts`` and ``dur`` are microseconds; metadata
(``M``) has ``args`` of its own kind and no time; a complete event (``X``) has ``ts`` and ``dur``, and those of one
thread nest; a counter (``C``) has numbers as ``args``, one a series.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

_TIMED = {"name", "cat", "ph", "ts", "pid", "tid", "args"}
_FIELDS = {"M": {"name", "ph", "pid", "tid", "args"}, "X": {*_TIMED, "dur"}, "C": _TIMED}
_METADATA: Mapping[str, tuple[str, type]] = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}


def check_trace(document: Mapping[str, Any]) -> None:
    """Raises AssertionError at the first thing that the format doesn't document."""
    assert set(document) <= {"traceEvents", "displayTimeUnit", "otherData"}, set(document)
    assert document["displayTimeUnit"] in ("ms", "ns")
    assert isinstance(document["otherData"], dict)
    events = document["traceEvents"]
    for event in events:
        _check_event(event)
    _check_names(events)
    _check_nesting(events)
    _check_counters(events)


def _check_event(event: Mapping[str, Any]) -> None:
    assert event["ph"] in _FIELDS, event
    assert set(event) == _FIELDS[event["ph"]], event
    assert isinstance(event["name"], str), event
    assert event["name"], event
    for number in ("pid", "tid", "ts", "dur"):
        if number in event:
            assert type(event[number]) is int, event
            assert event[number] >= 0, event
    assert isinstance(event.get("cat", ""), str), event
    assert isinstance(event["args"], dict), event
    if event["ph"] == "M":
        name, kind = _METADATA[event["name"]]
        assert list(event["args"]) == [name], event
        assert type(event["args"][name]) is kind, event
    if event["ph"] == "C":
        assert event["args"], event
        assert all(type(value) in (int, float) and math.isfinite(value) for value in event["args"].values()), event


def _check_names(events: list[Mapping[str, Any]]) -> None:
    """Each process and each thread with slices has one name."""
    processes = [each["pid"] for each in events if each["name"] == "process_name"]
    threads = [(each["pid"], each["tid"]) for each in events if each["name"] == "thread_name"]
    assert len(set(processes)) == len(processes)
    assert len(set(threads)) == len(threads)
    assert {each["pid"] for each in events} == set(processes)
    assert {(each["pid"], each["tid"]) for each in events if each["ph"] == "X"} <= set(threads)


def _check_nesting(events: list[Mapping[str, Any]]) -> None:
    tracks = defaultdict(list)
    for each in events:
        if each["ph"] == "X":
            tracks[each["pid"], each["tid"]].append((each["ts"], -each["dur"]))
    for spans in tracks.values():
        open_until: list[int] = []
        for begin, negative in sorted(spans):
            while open_until and open_until[-1] <= begin:
                open_until.pop()
            assert not open_until or begin - negative <= open_until[-1], (begin, negative)
            open_until.append(begin - negative)


def _check_counters(events: list[Mapping[str, Any]]) -> None:
    """A counter's series are the same in each of its events, and its times go forward."""
    counters: defaultdict[object, list[Mapping[str, Any]]] = defaultdict(list)
    for each in events:
        if each["ph"] == "C":
            counters[each["pid"], each["name"]].append(each)
    for samples in counters.values():
        assert len({tuple(sample["args"]) for sample in samples}) == 1
        assert [sample["ts"] for sample in samples] == sorted(sample["ts"] for sample in samples)
