"""From a model's files to a pipeline that is ready, against a plain read of the same files.

The files of a model known by name are sparse: they read as zeros, at the speed of the page cache. A directory's are
read as they are; the plain read comes second, so that both find what the system has cached by then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from subject import add_planning_options, plan_of

from roost.api.models.published import write_model_directory
from roost.residency.run.trial import TrialSetup, open_trial

CHUNK_BYTES = 64 * 1024**2
ROUNDS = 2


@contextmanager
def files_of(model: str) -> Iterator[Path]:
    """The model's directory; of a model known by name, a sparse one."""
    if Path(model).is_dir():
        yield Path(model)
        return
    with TemporaryDirectory(prefix="roost-") as folder:
        directory = Path(folder) / "model"
        write_model_directory(model, directory, sparse=True)
        yield directory


def plain_read_s(files: list[Path]) -> float:
    """Seconds to read the files once through one buffer."""
    buffer = bytearray(CHUNK_BYTES)
    began_s = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("-o", "--output", type=Path, required=True)
    add_planning_options(parser)
    options = parser.parse_args()
    if options.device == "emulated":
        options.gpu, options.vram = "emulated", options.vram or "24MiB"
        options.headroom = options.headroom or "0"
    with files_of(options.model) as directory:
        plan = plan_of(str(directory), options)
        files = [directory / name for name in plan.model.files if name.endswith(".safetensors")]
        setup = TrialSetup(
            plan=plan,
            model_dir=directory,
            device_kind=plan.machine.gpu.device_kind,
            budget_bytes=plan.budget.budget_bytes,
        )
        rounds = []
        for _ in range(ROUNDS):
            with open_trial(setup) as trial:
                load_s = trial.load_s
            rounds.append({"load_s": load_s, "plain_read_s": plain_read_s(files)})
        record = {
            "model": options.model,
            "device_kind": plan.machine.gpu.device_kind,
            "strategies": {name: each.strategy for name, each in plan.components.items()},
            "bytes": sum(path.stat().st_size for path in files),
            "rounds": rounds,
        }
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
