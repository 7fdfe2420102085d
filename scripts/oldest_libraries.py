"""An environment with the oldest diffusers and transformers that pyproject.toml admits, on the torch that is here."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from fresh_environment import fresh_environment

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("diffusers", "transformers")


def oldest() -> list[str]:
    """``diffusers==0.42`` and so on, from the lower bounds of the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(re.findall(r"^([\w-]+)>=([\w.]+)$", "\n".join(project["dependencies"]), flags=re.MULTILINE))
    return [f"{library}=={bounds[library]}" for library in LIBRARIES]


def main(arguments: list[str]) -> int:
    wanted = oldest()
    python = fresh_environment(Path(arguments[0]), wanted, paths=[ROOT / "src"])
    names = ("torch", *LIBRARIES)
    show = f"from importlib.metadata import version; print(*((each, version(each)) for each in {names}))"
    return subprocess.run([python, "-c", show], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
