"""Folders that tests are given: saved tiny pipelines, and where processes meet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Directories of tiny pipelines by family; not to be changed."""
    from tiny_models import build  # brings torch, which some runs of tests do without

    return functools.cache(lambda name: build(name, tmp_path_factory.mktemp("model") / name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where processes meet."""
    made = tmp_path / "meeting"
    made.mkdir()
    return made
