"""Two generations of a family's tiny pipeline under every strategy: what was called, what Roost called, what was wrong.

    python generations.py FAMILY        # JSON on stdout; in a process of its own, since counts depend on what is cached

Every master is pinned and every value that a program takes its way by is true. A step is what lies between two calls of
the scheduler; the steady ones are those of the second generation after its first.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import torch
from simulated import Call, count_anew, counters, forget_violations, violations, watched
from true_values import TrueValues

from engine_cases import with_pinned
from live_pipelines import STRATEGIES, own_pipeline, request_for
from plans import GIB, plan_for
from roost.residency.device.cuda import CudaDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.run.generate import generate

STEPS = 4  # the last three are steady, if they are in the second generation
COUNTED = (
    "syncs", "blocking_copies", "pageable_copies", "mallocs", "frees", "memory_infos", "event_creates", "records",
    "waits", "unrecorded_waits", "launches", "h2d_copies", "h2d_bytes", "d2h_copies", "d2h_bytes", "d2d_copies",
    "registrations", "unregistrations", "straddles",
)  # fmt: skip


def measured(family: str, strategy: Any) -> dict[str, Any]:
    """``generations``: counts of each; ``steady``: what Roost called in steady steps; ``violations``; ``unseen``."""
    gc.collect()
    torch.cuda.empty_cache()
    pipeline = own_pipeline(family)
    plan = with_pinned(plan_for(pipeline, strategy))
    forget_violations()
    generations: list[dict[str, int]] = []
    with TrueValues(), watched() as calls, CudaDevice(GIB) as device, hold(pipeline, plan, device) as held:
        ends = ends_of_steps(pipeline, calls)
        for _ in range(2):
            ends.clear()
            generations.append(_counts_of_a_generation(held, family))
        steady = calls[ends[0] : ends[-1]]
    unseen = counters()["unseen_kernels"]
    return {
        "generations": generations,
        "steady": sorted(f"{call.name} at {call.at}" for call in steady if call.by_roost),
        "violations": violations(),
        "unseen": unseen,
    }


def ends_of_steps(pipeline: Any, calls: list[Call]) -> list[int]:
    """How many calls there were at each end of a step, from now on."""
    ends: list[int] = []
    step = pipeline.scheduler.step

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        ends.append(len(calls))
        return result

    pipeline.scheduler.step = noting
    return ends


def _counts_of_a_generation(held: Held, family: str) -> dict[str, int]:
    torch.cuda.synchronize()
    count_anew()
    generate(held, request_for(family, num_inference_steps=STEPS))
    counted = counters()
    return {name: int(counted[name]) for name in COUNTED}


def main() -> None:
    family = sys.argv[1]
    gc.disable()  # when it runs, memory that nobody wants goes back, and counts of allocations change
    measured(family, "resident")  # what a process does once: libraries' handles, workspaces, kernels' first launches
    found = {name: measured(family, strategy) for name, strategy in STRATEGIES.items()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
