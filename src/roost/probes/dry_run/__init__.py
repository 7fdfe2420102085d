"""Dry run: what a pipeline would do and need, from its own code and configs, without weights or a GPU.

Importing this package imports no torch; running does. Nothing here knows a card or a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roost.facts.model import ClassFacts, Inventory
from roost.facts.request import Workload
from roost.probes.dry_run.options import DryRunOptions
from roost.trace import Trace

__all__ = ["DryRunOptions", "dry_run", "dry_run_live"]


def dry_run(
    model_dir: Path,
    inventory: Inventory,
    workload: Workload,
    class_facts: Mapping[str, ClassFacts],
    options: DryRunOptions,
) -> Trace:
    """The trace of one generation of ``workload``; raises DryRunError with the reason when there can't be one."""
    from roost.probes.dry_run.pipeline_call import trace_pipeline_call  # imported here: it brings torch

    return trace_pipeline_call(model_dir, inventory, workload, class_facts, options)


def dry_run_live(pipeline: Any, inventory: Inventory, workload: Workload, options: DryRunOptions) -> Trace:
    """The trace of one generation of a pipeline in memory, by a copy of it without weights.

    The pipeline is left alone. Raises DryRunError with the reason when there can't be a trace.
    """
    from roost.probes.dry_run.pipeline_call import trace_live_call  # imported here: it brings torch

    return trace_live_call(pipeline, inventory, workload, options)
