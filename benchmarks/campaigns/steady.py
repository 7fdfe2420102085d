"""Many cycles of attach, generate and detach, and many prompts in one run: memory and descriptors stay where they are.

python benchmarks/campaigns/steady.py --count 200
"""

import gc
import os
import sys
from pathlib import Path

from sandbox import Sandbox, Summary, arguments

WARM_UP = 0.2  # of the cycles: caches of the libraries fill meanwhile
MAX_GROWTH_BYTES = 24 * 2**20
MAX_GROWTH_DESCRIPTORS = 2


class Watch:
    """Resident bytes and descriptors of this process, at each cycle."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.descriptors: list[int] = []

    def look(self, *_: object) -> None:
        import psutil

        gc.collect()
        self.bytes.append(psutil.Process().memory_info().rss)
        self.descriptors.append(len(os.listdir("/proc/self/fd")))

    def judge(self, what: str, summary: Summary) -> None:
        start = int(len(self.bytes) * WARM_UP)
        third = max(1, (len(self.bytes) - start) // 3)
        # The least of the first and of the last third: what a cycle needs for a moment is no growth.
        grown = min(self.bytes[-third:]) - min(self.bytes[start : start + third])
        opened = min(self.descriptors[-third:]) - min(self.descriptors[start : start + third])
        summary.figures[what] = {
            "cycles": len(self.bytes),
            "growth_bytes": grown,
            "growth_descriptors": opened,
            "first_bytes": self.bytes[start],
            "last_bytes": self.bytes[-1],
        }
        if grown > MAX_GROWTH_BYTES or opened > MAX_GROWTH_DESCRIPTORS:
            summary.fail(f"{what}: grew by {grown / 2**20:.1f} MiB and {opened} descriptors")


def attach_cycles(model: Path, count: int) -> Watch:
    import torch
    from diffusers import DiffusionPipeline

    import roost

    pipeline = DiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    watch = Watch()
    for number in range(count):
        strategy = ("layerwise-offload", "snapshot-offload", "component-offload", "resident")[number % 4]
        with roost.attach(pipeline, vram="64MiB", headroom="0", size="64x64", steps=1, set=[f"dit={strategy}"]):
            pipeline(
                "a fox", num_inference_steps=1, height=64, width=64, generator=torch.Generator().manual_seed(number)
            )
        watch.look()
    return watch


def many_prompts(plan: Path, count: int, output: Path) -> Watch:
    from roost.api.requests.request import RunRequest
    from roost.api.runs.pipeline import read_plan
    from roost.api.runs.ready import check_plan
    from roost.api.runs.run import Listeners, run_plan

    watch = Watch()
    request = RunRequest(prompts=tuple(f"a fox, {number}" for number in range(count)), listed=True, output=output)
    run_plan(check_plan(read_plan(plan)), request, Listeners(on_generation=watch.look))
    return watch


def main() -> int:
    given = arguments(__doc__, 200)
    summary = Summary(campaign="steady", count=given.count, seed=given.seed)
    with Sandbox() as sandbox:
        attach_cycles(sandbox.root / "model", given.count).judge("attach, generate, detach", summary)
        many_prompts(sandbox.root / "plan.yaml", given.count, sandbox.work / "fox.png").judge("prompts", summary)
        if left := sandbox.temporary():
            summary.tally["temporary while it runs"] = len(left)
    return summary.write()


if __name__ == "__main__":
    sys.exit(main())
