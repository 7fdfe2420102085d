"""The model that a script measures: a directory, or a name whose weights are made at random."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import roost
from roost.api.models.published import materialise_configs, published_model
from roost.pipelines.build import random_component
from roost.plan import PlanDocument
from roost.profiles.class_facts import load_class_facts
from roost.residency.run.loader import Source

PLANNING = ("gpu", "vram", "headroom", "size", "frames", "steps")


def add_planning_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``roost plan`` that the suite's items use."""
    for name in PLANNING:
        parser.add_argument(f"--{name}", type=int if name in ("frames", "steps") else str)


def plan_of(model: str, options: argparse.Namespace, **more: object) -> PlanDocument:
    """What ``roost plan`` would say."""
    given = {name: getattr(options, name, None) for name in PLANNING}
    return roost.make_plan(model, **{name: value for name, value in given.items() if value is not None}, **more)


@contextmanager
def source_of(model: str, device_kind: str) -> Iterator[tuple[Path, Source]]:
    """The directory to load from, and how: at random where it has only configs."""
    if Path(model).is_dir():
        yield Path(model), Source(class_facts=load_class_facts())
        return
    device = "cuda" if device_kind == "cuda" else "cpu"
    with TemporaryDirectory(prefix="roost-") as folder:
        materialise_configs(published_model(model), Path(folder))
        facts = load_class_facts()
        yield Path(folder), Source(load=partial(random_component, class_facts=facts, device=device), class_facts=facts)
