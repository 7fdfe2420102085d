"""Other tools' offloading of the same model, seed and steps: SGLang's layerwise manager and mmgp, where installed.

Both are driven by what their wheels offer, in this process: the denoiser streams by their means, other components are
on the GPU. A tool whose imports can't be satisfied is written down as absent, with the reason; nothing is guessed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from subject import add_planning_options, plan_of, source_of

from roost.blocks import streamed_stacks
from roost.pipelines.calls import GenerationRequest
from roost.residency.run.trial import TrialSetup, open_trial

TRIAL_STEPS = 6
MIB = 1024**2


def place_with_sglang(pipeline: Any, device: Any, resident_share: float) -> None:
    """A manager for each stack of the denoisers; it moves the weights beside them to the device."""
    from sglang.multimodal_gen.runtime.managers.memory_managers.layerwise_offload import LayerwiseOffloadManager

    for name, module in denoisers(pipeline).items():
        for stack in streamed_stacks({key: each.nbytes for key, each in module.state_dict().items()}):
            LayerwiseOffloadManager(
                module,
                layers_attr_str=stack.name,
                num_layers=stack.count,
                enabled=True,
                prefetch_size=1,
                resident_layers=round(resident_share * stack.count),
                residency_policy="strided",
                pin_component_name=name,
            )
    move_others(pipeline, device)


def place_with_mmgp(pipeline: Any, device: Any, resident_share: float) -> None:
    """Its streaming of blocks from pinned memory, without the quantisation that it does by default."""
    from mmgp import offload

    total = {name: sum(each.nbytes for each in module.parameters()) for name, module in denoisers(pipeline).items()}
    budgets = {name: max(1, round(resident_share * each / MIB)) for name, each in total.items()}
    offload.all(pipeline, pinnedMemory=True, quantizeTransformer=False, budgets={"*": 0, **budgets}, verboseLevel=0)


def denoisers(pipeline: Any) -> dict[str, Any]:
    return {
        name: each for name, each in pipeline.components.items() if name.startswith(("transformer", "unet")) and each
    }


def move_others(pipeline: Any, device: Any) -> None:
    for name, each in pipeline.components.items():
        if name not in denoisers(pipeline) and hasattr(each, "parameters"):
            each.to(device)


TOOLS: dict[str, Callable[..., None]] = {"sglang": place_with_sglang, "mmgp": place_with_mmgp}
MODULES = {
    "sglang": "sglang.multimodal_gen.runtime.managers.memory_managers.layerwise_offload",
    "mmgp": "mmgp.offload",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tool", choices=sorted(TOOLS), required=True)
    parser.add_argument("--resident-share", type=float, default=0.5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    add_planning_options(parser)
    options = parser.parse_args()
    record = {"tool": options.tool, "model": options.model, "resident_share": options.resident_share}
    record |= absent(options.tool) or measured(options)
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def absent(tool: str) -> dict[str, Any] | None:
    """Why the tool can't be used here; None when it can."""
    import torch

    if not torch.cuda.is_available():
        return {"status": "absent", "reason": "it needs a CUDA device"}
    try:
        importlib.import_module(MODULES[tool])
    except Exception as error:  # a tool's import may fail in every way
        return {"status": "absent", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return None


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One generation after a warm one; a tool that fails says so in the record."""
    plan = plan_of(options.model, options)
    workload, kind = plan.workload, plan.machine.gpu.device_kind
    request = GenerationRequest(
        prompt="a red fox in the snow",
        width=workload.width,
        height=workload.height,
        frames=workload.frames,
        steps=min(TRIAL_STEPS, workload.steps),
    )
    place = partial(TOOLS[options.tool], resident_share=options.resident_share)
    with source_of(options.model, kind) as (model_dir, source):
        setup = TrialSetup(
            plan=plan, model_dir=model_dir, device_kind=kind, budget_bytes=None, place=place, source=source
        )
        try:
            with open_trial(setup) as trial:
                trial.warm_up(request)
                figures = trial.measure(request)
        except Exception as error:  # foreign code
            return {"status": "crashed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {
        "status": "ok",
        "reason": None,
        "device_kind": kind,
        "step_s": statistics.median(figures.step_seconds),
        "step_seconds": list(figures.step_seconds),
        "peak_bytes": figures.peak_bytes,
        "digest": figures.digest,
    }


if __name__ == "__main__":
    sys.exit(main())
