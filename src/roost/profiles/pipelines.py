"""What the calls of diffusers' pipeline classes take and make: generated from the library, read without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from roost.facts import PipelineFacts

_FILE = Path(__file__).with_name("pipelines.json")


@cache
def load_pipeline_facts() -> Mapping[str, PipelineFacts]:
    """Facts by class name; a class that is not among them is unknown."""
    pipelines = json.loads(_FILE.read_text(encoding="utf-8"))["pipelines"]
    return MappingProxyType({name: _facts(**entry) for name, entry in pipelines.items()})


def _facts(needs: Sequence[str] = (), **entry: Any) -> PipelineFacts:
    return PipelineFacts(needs=tuple(needs), **entry)
