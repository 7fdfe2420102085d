"""Run in a process of its own: loads a transformer into masters and prints how far host memory grew, in bytes.

What it prints: by then, how large the masters are, and for one that comes late how far before its masters were made.
"""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from plans import component_plan
from roost.facts.model import ClassFacts
from roost.pipelines.classes import component_class
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.recipes import derive_recipe
from roost.pipelines.formats.skeletons import ComponentConfig
from roost.pipelines.quiet import quiet_libraries
from roost.probes.files.formats.weights import quantised_weights
from roost.probes.files.weights import read_weight_file
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.component import HeldComponent
from roost.residency.run.components import load_component
from roost.residency.run.sources.shells import build_shell, filling
from roost.residency.weights.mapped_masters import Checkpoint
from roost.residency.weights.transfers import Transfers


def host_bytes(key: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def from_file(model_dir: Path, dtype: str) -> torch.nn.Module:
    """The same transformer of its only file, as if that had been given."""
    file = read_weight_file(str(next((model_dir / "transformer").glob("*.safetensors"))))
    asked = SimpleNamespace(library="diffusers", class_name="FluxTransformer2DModel", load_dtype=dtype)
    component = ComponentConfig(name="transformer", described=asked, config_dir=model_dir, facts=ClassFacts())
    return build_from_file(component, file, derive_recipe(component, file, quantised_weights(file, file.path)))


def main(model_dir: Path, dtype: str, when: str) -> None:
    found: Any = component_class("diffusers", "FluxTransformer2DModel")
    with torch.device("meta"):
        blueprint = found.from_config(found.load_config(model_dir / "transformer")).to(getattr(torch, dtype))
    plan = component_plan("transformer", blueprint, strategy="layerwise-offload")
    torch.nn.Linear(8, 8)(torch.zeros(1, 8))  # the first operation starts threads and libraries
    before = host_bytes("VmHWM")
    with quiet_libraries(), EmulatedDevice(2**30) as device:
        if when == "late":
            module, checkpoint = build_shell("transformer", plan, model_dir, {}), Checkpoint((), late=True)
            checkpoint.fill = filling("transformer", plan, model_dir, load_component)
            component = HeldComponent("transformer", module, plan, Transfers(device), checkpoint)
            shell_bytes = host_bytes("VmHWM") - before
            component.make_masters()
        else:
            shell_bytes, given = 0, when == "of one given file"
            module = from_file(model_dir, dtype) if given else load_component("transformer", plan, model_dir)
            component = HeldComponent("transformer", module, plan, Transfers(device))
        masters_bytes = sum(unit.bytes for unit in component.units.values())
        sys.stdout.write(f"{host_bytes('VmHWM') - before} {masters_bytes} {shell_bytes}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
