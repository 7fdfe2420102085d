"""Peers that the environment lacks, from their wheels without what these depend on, unpacked outside the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

# The first is the peer, the others what it imports.
WHEELS = {"sglang": ("sglang==0.5.23",), "mmgp": ("mmgp==3.8.2", "optimum-quanto==0.2.7")}


def unpacked(peer: str) -> Path:
    """Where the peer's wheels are unpacked; fetched if need be. Raises RuntimeError where that fails."""
    where = os.environ.get("ROOST_SIMULATED_GPU") or Path.home() / ".cache" / "roost-simulated-gpu"
    folder = Path(where).expanduser() / "peers" / peer
    if not (folder / ".made").is_file():
        wheels = folder / "wheels"
        for requirement in WHEELS[peer]:
            _download(requirement, wheels)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        (folder / ".made").touch()
    return folder


def _download(requirement: str, into: Path) -> None:
    command = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--dest",
        into,
        requirement,
    ]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"no wheel of {requirement}: {done.stderr.strip().splitlines()[-1:]}")


def absent(peer: str) -> str | None:
    """Why the peer can't run here, or None. What it takes to import it is on the path afterwards."""
    if peer not in WHEELS:
        return None
    try:
        folder = unpacked(peer)
        if peer == "mmgp":
            sys.path.append(str(folder))
            import mmgp.offload  # noqa: F401 - whether it can be imported is the question
    except (RuntimeError, ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None
