"""A plan's file changed as someone with an editor would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def edited(plan: Path, target: Path, change: Callable[[Any], object]) -> Path:
    """Writes the plan's document to ``target`` after ``change``."""
    document = yaml.safe_load(plan.read_text())
    change(document)
    target.write_text(yaml.safe_dump(document, sort_keys=False))
    return target
