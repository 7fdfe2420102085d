"""Timelines as data, predicted or measured: what the two lanes did when, and the memory meanwhile. No torch."""

from roost.timelines.facts import Lane, MemoryLevel, Pass, Slice, TimelineRecord
from roost.timelines.perfetto import perfetto_document, stages_of

__all__ = ["Lane", "MemoryLevel", "Pass", "Slice", "TimelineRecord", "perfetto_document", "stages_of"]
