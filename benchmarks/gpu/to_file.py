"""Runs a command of Roost with --json and writes what it prints into the file after -o."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    *words, option, output = sys.argv[1:]
    if option != "-o":
        print("the last two words are -o FILE", file=sys.stderr)
        return 2
    ran = subprocess.run([sys.executable, "-m", "roost", *words, "--json"], stdout=subprocess.PIPE, check=False)
    if ran.returncode == 0:
        Path(output).write_bytes(ran.stdout)
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
