"""Tracing: what one generation of a model does, from the cache or by a dry run in this process."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from roost.facts import Inventory, ModelProfile, Workload
from roost.probes.dry_run import DryRunOptions, dry_run
from roost.probes.dry_run.cache import read_trace, trace_key, write_trace
from roost.profiles.classes import load_class_facts
from roost.trace import Trace

_LIBRARIES = ("torch", "diffusers", "transformers")


def trace_model(inventory: Inventory, profile: ModelProfile, workload: Workload) -> Trace:
    """The trace of one generation of ``workload``.

    A trace from the cache is read without importing torch; otherwise the model's own code is dry-run, and the trace is
    kept. Raises DryRunError with the reason when the model can't be dry-run.
    """
    options = DryRunOptions(guidance_argument=profile.guidance_argument)
    folder = user_cache_path("roost") / "traces"
    key = trace_key(inventory, workload, options, _versions())
    trace = read_trace(folder, key)
    if trace is None:
        trace = dry_run(Path(inventory.path), inventory, workload, load_class_facts(), options)
        write_trace(folder, key, trace)
    return trace


def _versions() -> dict[str, str]:
    """Installed versions of what a dry run runs, without importing it."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
