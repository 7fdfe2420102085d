"""The committed counts of every family, strategy and generation; says what differs, or writes them anew.

python golden_counts.py [--write] [FAMILY ...]        # in the simulated environment
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tiny_models import FAMILIES

HERE = Path(__file__).resolve().parent
# What the allocator takes and gives back depends on when Python frees a tensor, too: fewer is as good.
AT_MOST = ("mallocs", "frees")
GOLDEN = HERE / "golden" / f"counts-torch-{version('torch').partition('+')[0]}.json"


@functools.cache
def measured(family: str) -> dict[str, Any]:
    """What ``generations.py`` finds of the family, by strategy, in a process of its own."""
    command = [sys.executable, str(HERE / "generations.py"), family]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def counts(family: str) -> dict[str, list[dict[str, int]]]:
    """By strategy: what is not zero of each generation's counts."""
    return {
        strategy: [{name: count for name, count in each.items() if count} for each in found["generations"]]
        for strategy, found in measured(family).items()
    }


def committed() -> dict[str, Any]:
    """By family and strategy; empty for a PyTorch whose counts nobody wrote."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    return found


def differences(family: str) -> list[str]:
    """``layerwise-offload, generation 1, syncs: 14, committed 10``."""
    found, before = counts(family), committed().get(family, {})
    lines = []
    for strategy in sorted({*found, *before}):
        for index in range(2):
            now, then = (_generation(each, strategy, index) for each in (found, before))
            lines += [
                f"{strategy}, generation {index + 1}, {name}: {now.get(name, 0)}, committed {then.get(name, 0)}"
                for name in sorted({*now, *then})
                if _differ(name, now.get(name, 0), then.get(name, 0))
            ]
    return lines


def _differ(name: str, now: int, then: int) -> bool:
    return now > then if name in AT_MOST else now != then


def _generation(counted: dict[str, list[dict[str, int]]], strategy: str, index: int) -> dict[str, int]:
    return counted[strategy][index] if strategy in counted else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="commit what is counted now")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="all without one")
    asked = parser.parse_args()
    unlike = False
    for family in asked.families or FAMILIES:
        for line in differences(family):
            unlike = True
            sys.stdout.write(f"{family}: {line}\n")
        if asked.write:
            text = json.dumps({**committed(), family: counts(family)}, indent=1, sort_keys=True)
            GOLDEN.parent.mkdir(exist_ok=True)
            GOLDEN.write_text(text + "\n", encoding="utf-8")
    return int(unlike and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
