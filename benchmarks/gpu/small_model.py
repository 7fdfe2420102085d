"""Makes the small model that the emulated suite measures on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_demo_model.py"), str(options.directory)], check=False
    )
    if made.returncode == 0:
        total = sum(each.stat().st_size for each in options.directory.rglob("*.safetensors"))
        options.output.write_text(json.dumps({"bytes": total}) + "\n")
    return made.returncode


if __name__ == "__main__":
    sys.exit(main())
