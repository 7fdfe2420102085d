"""What the libraries' model classes do when they load: generated from the installed libraries, read without them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from roost.facts import ClassFacts

_FILE = Path(__file__).with_name("classes.json")


@cache
def load_class_facts() -> Mapping[str, ClassFacts]:
    """Loading facts by class name; a class that is not among them is unknown, not free of exceptions.

    ``renames`` apply one after the other to a stored tensor's name and give the module's; ``ignored`` patterns are
    searched in the module's name and ``keep_in_float32`` names are whole dotted segments of it.
    """
    classes = json.loads(_FILE.read_text(encoding="utf-8"))["classes"]
    return MappingProxyType({name: _class_facts(entry) for name, entry in classes.items()})


def _class_facts(entry: Mapping[str, Any]) -> ClassFacts:
    renames = tuple((pattern, replacement) for pattern, replacement in entry.get("renames", ()))
    others = {name: tuple(values) for name, values in entry.items() if name != "renames"}
    return ClassFacts(**others, renames=renames)
