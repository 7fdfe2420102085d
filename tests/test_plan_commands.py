"""The command line that asks for the same plan again, whether it was asked for at a shell or in Python."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dry_runs import tiny_directory
from roost.api.plans.commands import plan_command
from roost.api.requests.option_sets import PlanOptions
from roost.cli.app import run
from roost.plan import read_plan
from roost.planner.search.remedies import Remedy


@pytest.mark.parametrize(
    "files", [("transformer=a b.gguf", "vae=v.safetensors"), {"transformer": "a b.gguf", "vae": "v.safetensors"}]
)
def test_each_file_is_an_option_of_its_own(files: object) -> None:
    spell = plan_command("flux.1-dev", PlanOptions(vram="12GiB", files=files))  # type: ignore[arg-type]
    line = spell(Remedy(given=(("--steps", "20"),)))
    assert line == (
        "roost plan flux.1-dev --vram 12GiB --file 'transformer=a b.gguf' --file vae=v.safetensors --steps 20"
    )


@pytest.mark.parametrize(
    "machine",
    [
        ("--gpu", "emulated", "--vram", "1.5GiB"),
        ("--gpu", "rtx-4090", "--ram", "64GiB"),
        ("--gpu", "t4", "--vram", "9GB"),
    ],
)
def test_the_line_for_a_larger_workload_plans_it_for_the_same_machine(
    machine: tuple[str, ...], tmp_path: Path, capsys
) -> None:
    plans = [tmp_path / "small.yaml", tmp_path / "large.yaml"]
    small = ["plan", str(tiny_directory("flux")), *machine, "--size", "64x64", "--steps", "2", "-o", str(plans[0])]
    assert run(small) == 0
    capsys.readouterr()
    assert run(["run", str(plans[0]), "--prompt", "a fox", "-o", "fox.png", "--dry-run", "--size", "96x64"]) == 4
    line = shlex.split(capsys.readouterr().err.partition("plan it with: ")[2])
    assert run([*line[1:], "-o", str(plans[1])]) == 0
    before, after = map(read_plan, plans)
    assert after.workload.width == 96
    assert after.machine.gpu.name == before.machine.gpu.name
    assert after.machine.gpu.free_bytes == pytest.approx(before.machine.gpu.free_bytes, rel=1e-5)
    assert after.machine.host.ram_typed == before.machine.host.ram_typed
