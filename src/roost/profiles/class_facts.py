"""What the libraries' classes do and take: generated from the installed libraries, read without them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from roost.facts.model import ClassFacts, PipelineFacts

_CLASSES_FILE = Path(__file__).with_name("classes.json")


@cache
def load_class_facts() -> Mapping[str, ClassFacts]:
    """Loading facts by class name; a class that is not among them is unknown, not free of exceptions.

    ``renames`` apply one after the other to a stored tensor's name and give the module's; ``ignored`` patterns are
    searched in the module's name and ``keep_in_float32`` names are whole dotted segments of it.
    """
    classes = json.loads(_CLASSES_FILE.read_text(encoding="utf-8"))["classes"]
    return MappingProxyType({name: _class_facts(entry) for name, entry in classes.items()})


def _class_facts(entry: Mapping[str, Any]) -> ClassFacts:
    renames = tuple((pattern, replacement) for pattern, replacement in entry.get("renames", ()))
    others = {name: tuple(values) for name, values in entry.items() if name != "renames"}
    return ClassFacts(**others, renames=renames)


# What the calls of diffusers' pipeline classes take and make: generated from the library, read without it.


_PIPELINES_FILE = Path(__file__).with_name("pipelines.json")


@cache
def load_pipeline_facts() -> Mapping[str, PipelineFacts]:
    """Facts by class name; a class that is not among them is unknown."""
    pipelines = json.loads(_PIPELINES_FILE.read_text(encoding="utf-8"))["pipelines"]
    return MappingProxyType({name: _facts(**entry) for name, entry in pipelines.items()})


def _facts(needs: Sequence[str] = (), **entry: Any) -> PipelineFacts:
    return PipelineFacts(needs=tuple(needs), **entry)
