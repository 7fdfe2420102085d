"""Roost runs diffusion models on GPUs smaller than the model, from a placement plan you can read and trust.

Public API: ``inspect_model``, ``make_plan``, ``load_plan``, ``load_pipeline``, ``attach``, ``detach``. Nothing is
imported before it is used: ``import roost`` stays as light as the command line.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roost.api.attaching import attach, detach
    from roost.api.inspection import inspect_model
    from roost.api.opening import load_pipeline
    from roost.api.planning import load_plan, make_plan

_HOMES = {
    "attach": "roost.api.attaching",
    "detach": "roost.api.attaching",
    "inspect_model": "roost.api.inspection",
    "make_plan": "roost.api.planning",
    "load_plan": "roost.api.planning",
    "load_pipeline": "roost.api.opening",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever uses the library decides who hears of it

__all__ = ["attach", "detach", "inspect_model", "load_pipeline", "load_plan", "make_plan"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'roost' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
