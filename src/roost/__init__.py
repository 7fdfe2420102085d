"""Roost runs diffusion models on GPUs smaller than the model, from a placement plan you can read and trust.

Public API: ``inspect_model``, ``make_plan``, ``make_fleet_plan``, ``load_plan``, ``load_pipeline``, ``attach``,
``detach``, ``bench``, ``results_document``, ``tune_plan``, ``BenchWatcher``. Nothing is imported before it is used:
``import roost`` stays as light as the command line.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roost.api.attach import attach, detach
    from roost.api.bench import bench
    from roost.api.models.inspect import inspect_model
    from roost.api.plans.fleet.plan import make_fleet_plan
    from roost.api.plans.plan import make_plan
    from roost.api.plans.plan_files import load_plan
    from roost.api.runs.pipeline import load_pipeline
    from roost.api.tuning import tune_plan
    from roost.tune.results.document import results_document
    from roost.tune.trials.recorded import BenchWatcher

_HOMES = {
    "attach": "roost.api.attach",
    "detach": "roost.api.attach",
    "inspect_model": "roost.api.models.inspect",
    "make_plan": "roost.api.plans.plan",
    "make_fleet_plan": "roost.api.plans.fleet.plan",
    "load_plan": "roost.api.plans.plan_files",
    "load_pipeline": "roost.api.runs.pipeline",
    "bench": "roost.api.bench",
    "results_document": "roost.tune.results.document",
    "tune_plan": "roost.api.tuning",
    "BenchWatcher": "roost.tune.trials.recorded",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever uses the library decides who hears of it

__all__ = [
    "BenchWatcher",
    "attach",
    "bench",
    "detach",
    "inspect_model",
    "load_pipeline",
    "load_plan",
    "make_fleet_plan",
    "make_plan",
    "results_document",
    "tune_plan",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'roost' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
