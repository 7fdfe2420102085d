"""Timelines as records, predicted or measured: what the two lanes did when, and the memory meanwhile.

No simulation (``planner/cost/simulator``), no recording (``residency/run``), no torch.
"""

from roost.timeline.perfetto import perfetto_document, stages_of
from roost.timeline.record import MemoryLevel, Pass, Slice, TimelineRecord

__all__ = ["MemoryLevel", "Pass", "Slice", "TimelineRecord", "perfetto_document", "stages_of"]
