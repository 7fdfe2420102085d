"""Installs the wheel in a folder into a fresh environment and tries it outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fresh_environment import fresh_environment

ROOT = Path(__file__).resolve().parent.parent
DEMO_PLAN = [
    "--gpu",
    "emulated",
    "--vram",
    "22MiB",
    "--headroom",
    "0",
    "--size",
    "96x64",
    "--frames",
    "9",
    "--steps",
    "6",
]


def main(arguments: list[str]) -> int:
    wheels = sorted(Path(arguments[0]).glob("roost-*.whl"))
    if len(wheels) != 1:
        print(f"error: {arguments[0]} holds {len(wheels)} wheels of Roost, not one; run make build.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="roost-wheel-") as name:
        folder = Path(name)
        python = fresh_environment(folder / "env", [str(wheels[0].resolve())], "--no-deps", "--no-index")
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        homes = {f"XDG_{each}_HOME": str(folder / each.lower()) for each in ("DATA", "CACHE", "STATE", "CONFIG")}
        outside = folder / "outside"
        outside.mkdir()

        def run(*words: object) -> None:
            print("$", *words, flush=True)
            subprocess.run([str(word) for word in words], cwd=outside, env={**kept, **homes}, check=True)

        where = "import roost, sys; sys.exit(not roost.__file__.startswith(sys.prefix) and roost.__file__)"
        roost = python.with_name("roost")
        run(python, "-c", where)
        run(roost, "--version")
        run(roost, "inspect", "wan2.2-t2v-a14b")
        run(python, ROOT / "scripts" / "build_demo_model.py", "model")
        run(roost, "plan", "model", *DEMO_PLAN, "-o", "plan.yaml")
        run(roost, "explain", "plan.yaml")
    print(f"{wheels[0]} works outside the repository")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} ended with {error.returncode}")
