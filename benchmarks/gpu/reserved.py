"""What PyTorch's allocator reserves beyond what is allocated: two generations with expandable segments, two without.

    python benchmarks/gpu/reserved.py MODEL [--size WxH …] -o FILE

Each in a process of its own, since the setting is read when CUDA starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {"expandable segments": "expandable_segments:True", "fixed segments": "expandable_segments:False"}


def measured(words: list[str], setting: str) -> dict[str, object]:
    """The record of ``generations.py`` under the allocator's setting. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        script = Path(__file__).with_name("generations.py")
        environment = {**os.environ, "PYTORCH_ALLOC_CONF": setting, "PYTORCH_CUDA_ALLOC_CONF": setting}
        command = [sys.executable, str(script), *words, "--generations", "2", "-o", str(output)]
        subprocess.run(command, env=environment, check=True)
        return json.loads(output.read_text())


def main() -> int:
    *words, option, output = sys.argv[1:]
    if option != "-o":
        print("the last two words are -o FILE", file=sys.stderr)
        return 2
    found: dict[str, object] = {}
    for name, setting in SETTINGS.items():
        record = measured(words, setting)
        found |= {key: record[key] for key in ("model", "device_kind", "hardware")}
        found[name] = record["generations"]
        Path(output).write_text(json.dumps(found, indent=1) + "\n")  # the first half tells something too
    return 0


if __name__ == "__main__":
    sys.exit(main())
