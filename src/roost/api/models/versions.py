"""Which versions of libraries are installed, without importing them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

# What a plan records: the libraries that load and run models.
RECORDED = ("roost", "torch", "diffusers", "transformers", "safetensors")


def installed_versions(libraries: Sequence[str]) -> dict[str, str]:
    """The version of each of ``libraries`` that is installed."""
    found: dict[str, str] = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
