"""Real-size model directories for the tests: sparse files, each built once a run and shared by all workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

RealModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> RealModel:
    """A function from a family's name to its directory."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "real-models"
    root.mkdir(exist_ok=True)

    def find(name: str) -> Path:
        directory = root / name
        if not directory.exists():
            from model_mova import write_mova_directory
            from roost.api.models.published import write_model_directory

            building = root / f".{name}.{os.getpid()}"
            if name == "mova":
                write_mova_directory(building)
            else:
                write_model_directory(name, building, sparse=True)
            with contextlib.suppress(OSError):  # another worker was first
                building.rename(directory)
        return directory

    return find
