"""Run in a process of its own: holds a tiny pipeline whose masters are shared, and does what its input says, by lines.

``run`` makes a picture, ``close`` lets everything go. Each line printed is what it holds then, as JSON. ``stuck`` after
its other words has it say so and read no component.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import NoReturn

from diffusers import DiffusionPipeline

from engine_cases import digest_of, with_pinned
from live_pipelines import STRATEGIES
from plans import plan_for
from roost.pipelines.quiet import quiet_libraries
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.run import components
from roost.residency.run.loader import Source, load_held
from roost.residency.weights.shared.masters import SharedMasters


def share_of(kind: str) -> int:
    """This process's part of the memory of one kind, in bytes."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(rf"^{kind}:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def say(held: Held, before: int, digest: str | None = None) -> None:
    grown = {"shared": share_of("Pss_Shmem"), "own": share_of("Pss_Anon") - before}
    masters = [unit.master for each in held.runtime.components.values() for unit in each.units.values()]
    kinds = sorted({type(each).__name__ for each in masters})
    sys.stdout.write(json.dumps({**grown, "masters": kinds, "changes": held.changes, "digest": digest}) + "\n")
    sys.stdout.flush()


def get_stuck(*_: object) -> NoReturn:
    sys.stdout.write(json.dumps("stuck") + "\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)


def main(name: str, directories: list[Path], strategy: str) -> None:
    described, model_dir, folder = directories
    with quiet_libraries():  # what a plan says of sizes is not read from the weights that are shared
        plan = with_pinned(plan_for(DiffusionPipeline.from_pretrained(described), STRATEGIES[strategy]))
    source = Source(class_facts=load_class_facts(), shared=SharedMasters(folder))
    before = share_of("Pss_Anon")
    with EmulatedDevice(2**30) as device:
        held = load_held(plan, model_dir, device, source=source)
        say(held, before)
        for line in sys.stdin:
            if line == "run\n":
                say(held, before, digest_of(held, name))
            else:
                held.close()
                say(held, before)


if __name__ == "__main__":
    if sys.argv[6:] == ["stuck"]:
        vars(components)["read_component"] = get_stuck
    main(sys.argv[1], [Path(each) for each in sys.argv[2:5]], sys.argv[5])
