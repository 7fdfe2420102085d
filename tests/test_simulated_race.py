"""The simulated race's committed table, and its arithmetic about rings; the race itself needs the simulated GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS / "simulated_runs"))

from paper import StreamedBlock, ring_of_bytes, slots_of_largest, steady_s  # noqa: E402 - after the line above
from race_table import table  # noqa: E402

RESULTS = BENCHMARKS / "results" / "simulated-race.json"


def test_the_table_says_what_the_results_have() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert found["simulated"] is True
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == table(found["pairs"])


def test_a_ring_has_small_blocks_ready_where_slots_have_two() -> None:
    """A copy of 8 s for a use of 1 s, then four copies of 1 s for uses of 2 s."""
    blocks = [StreamedBlock(bytes=8, seconds=1.0), *[StreamedBlock(bytes=1, seconds=2.0)] * 4]
    in_slots = steady_s(blocks, 1.0, slots_of_largest(2))
    in_ring = steady_s(blocks, 1.0, ring_of_bytes(blocks, 16))
    assert in_slots == 15.0  # the large copy starts with the last small use, and is waited for 6 s after it
    assert in_ring == 12.0  # copies never stop


def test_equal_blocks_gain_nothing_from_a_ring() -> None:
    blocks = [StreamedBlock(bytes=3, seconds=2.0)] * 6
    assert steady_s(blocks, 1.0, slots_of_largest(2)) == steady_s(blocks, 1.0, ring_of_bytes(blocks, 6))
