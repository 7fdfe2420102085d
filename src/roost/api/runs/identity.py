"""What makes two generations the same: everything that their bits depend on, as one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from roost.api.requests.request import PlannedGeneration, RunRequest
from roost.api.runs.call import CheckedCall
from roost.api.runs.ready import ReadyPlan


def run_settings(
    ready: ReadyPlan, request: RunRequest, checked: CheckedCall, *, decoded: bool = True
) -> dict[str, object]:
    """What the generations of a run share, as JSON has it. Placement and library versions don't count.

    Of what is not ``decoded`` yet, neither does how a VAE decodes, unless it also encodes pictures.
    """
    loaded: dict[str, tuple[object, ...]] = {
        name: (each.class_name, each.variant, each.load_dtype, each.storage)
        for name, each in sorted(ready.plan.components.items())
    }
    if decoded or checked.pictures:
        loaded = {
            name: (*facts, ready.plan.components[name].tiling, ready.plan.components[name].slicing)
            for name, facts in loaded.items()
        }
    settings: dict[str, object] = {
        "model": ready.inventory.fingerprint,
        "components": loaded,
        "workload": asdict(checked.workload),
        "strength": checked.call.strength,
        "negative_prompt": request.negative_prompt,
        "output_type": request.output_type,
        "pictures": [(each.argument, each.sha256) for each in checked.pictures],
        "loras": [
            (each.component, each.sha256, each.scale, *([] if each.fuse is None else [each.fuse]))
            for each in checked.loras
        ],
        "device_kind": ready.device_kind,
    }
    if ready.plan.attention is not None:  # without it, what earlier versions finished is known as finished
        settings["attention"] = ready.plan.attention
    if ready.plan.cache is not None:
        settings["cache"] = asdict(ready.plan.cache)
    return settings


def generation_key(settings: Mapping[str, object], wanted: PlannedGeneration) -> str:
    """The same for generations of the same settings, prompt, seed and name of output, made in the same company."""
    name = None if wanted.output is None else wanted.output.name
    shared = json.dumps(settings, sort_keys=True)
    company = [wanted.group] if wanted.group else []
    return hashlib.sha256(json.dumps([shared, wanted.prompt, wanted.seed, name, *company]).encode()).hexdigest()
