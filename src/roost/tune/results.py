"""A bench's results as the JSON object that other people's scripts rely on."""

from __future__ import annotations

from dataclasses import asdict

from roost.tune.disturbances import timing_warnings
from roost.tune.figures import row_document
from roost.tune.records import BenchResults


def results_document(results: BenchResults) -> dict[str, object]:
    """Schema 1: bytes as integers, seconds as floats, null for unknown."""
    machine = results.machine
    return {
        "schema": 1,
        "model": results.model,
        "workload": asdict(results.workload),
        "machine": {**asdict(machine), "budget_bytes": machine.budget_bytes},
        "device_kind": results.device_kind,
        "trial_steps": results.trial_steps,
        "candidates": [row_document(row) for row in results.rows],
        "winner": results.winner,
        "reference": results.reference,
        "standings": [asdict(each) for each in results.standings],
        "samples": {name: [list(each) for each in rounds] for name, rounds in results.samples.items()},
        "shortage": None if results.shortage is None else asdict(results.shortage),
        "versions": dict(results.versions),
        "warnings": [*results.notes, *timing_warnings(results.samples)],
    }
