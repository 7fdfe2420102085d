"""Many generations in one process, each of another seed: does the first cost more, and does anything grow?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from subject import add_planning_options, plan_of, source_of

from roost.api.plans.preflight import keeping_masters
from roost.pipelines.calls import GenerationRequest
from roost.plan import PlanDocument
from roost.residency.run.trial import Trial, TrialSetup, open_trial

STEPS = 4
PROMPT = "a red fox in the snow"


def rows_of(trial: Trial, plan: PlanDocument, generations: int) -> list[dict[str, object]]:
    """One row a generation."""
    workload, rows = plan.workload, []
    for seed in range(generations):
        request = GenerationRequest(
            prompt=PROMPT,
            width=workload.width,
            height=workload.height,
            frames=workload.frames,
            steps=min(STEPS, workload.steps),
            seed=seed,
        )
        figures = trial.measure(request)
        rows.append(
            {
                "seconds": figures.generation_s,
                "peak_bytes": figures.peak_bytes,
                "reserved_bytes": figures.reserved_bytes,
                "bytes_copied": figures.bytes_copied,
                "demotions": {name: dict(each) for name, each in figures.demotions.items()},
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--link-speed", help="not used here: the items of a suite share their options")
    parser.add_argument("--trial-steps", help="likewise")
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, required=True)
    add_planning_options(parser)
    options = parser.parse_args()
    plan = keeping_masters(plan_of(options.model, options))  # several generations of one load
    kind = plan.machine.gpu.device_kind
    with source_of(options.model, kind) as (model_dir, source):
        setup = TrialSetup(
            plan=plan, model_dir=model_dir, device_kind=kind, budget_bytes=plan.budget.budget_bytes, source=source
        )
        with open_trial(setup) as trial:
            load_s, rows = trial.load_s, rows_of(trial, plan, options.generations)
    record = {
        "model": options.model,
        "device_kind": kind,
        "hardware": torch.cuda.get_device_name() if kind == "cuda" else "the CPU",
        "steps": min(STEPS, plan.workload.steps),
        "load_s": load_s,
        "generations": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
