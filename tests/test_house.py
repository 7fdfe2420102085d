"""The checker of the house laws catches what it must, and start-up stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
LAWS = ("check_import_law", "check_torch_rooms", "check_planner_purity", "check_sizes", "check_internals")
DOOR = '"""What lives here.\n\nAnd what may not.\n"""\n'


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    import check_house

    return check_house


def broken_laws(house: ModuleType, root: Path, path: str, text: str) -> dict[str, list[str]]:
    """Plants one file below ``root`` and returns each law's complaints about it."""
    planted = root / path
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    found = {law: [each.message for each in getattr(house, law)(house.read_sources(root))] for law in LAWS}
    return {law: messages for law, messages in found.items() if messages}


@pytest.mark.parametrize(
    ("path", "text", "law", "named"),
    [
        ("planner/search/search.py", "from roost.probes import files", "check_import_law", "roost.probes.files"),
        ("planner/search/search.py", "from roost import residency", "check_import_law", "roost.residency"),
        ("planner/search/search.py", "from ...probes import files", "check_import_law", "roost.probes.files"),
        (
            "probes/machine/host.py",
            "def f():\n    import roost.profiles.gpus",
            "check_import_law",
            "roost.profiles.gpus",
        ),
        ("facts.py", "import roost.blocks", "check_import_law", "roost.blocks"),
        ("errors.py", "from . import units", "check_import_law", "roost.units"),
        ("residency/hold/hooks.py", "from roost import make_plan", "check_import_law", "roost.make_plan"),
        ("api/runs/run.py", "import_module('roost.cli')", "check_import_law", "roost.cli"),
        ("helpers.py", "", "check_import_law", "helpers"),
        ("cli/commands/run.py", "def f():\n    import torch", "check_torch_rooms", "torch"),
        ("api/runs/run.py", "from torch.cuda import Stream", "check_torch_rooms", "torch.cuda.Stream"),
        ("probes/machine/host.py", "import diffusers", "check_torch_rooms", "diffusers"),
        ("profiles/rates.py", "from safetensors.torch import load", "check_torch_rooms", "safetensors.torch"),
        ("planner/rules/table.py", "from pathlib import Path", "check_planner_purity", "pathlib.Path"),
        ("planner/rules/table.py", "import os.path", "check_planner_purity", "os.path"),
        ("planner/rules/table.py", "from roost.plan import read_plan", "check_planner_purity", "read_plan"),
        ("planner/rules/table.py", "def f():\n    print(1)", "check_planner_purity", "print()"),
        ("planner/rules/table.py", "text = open('x').read()", "check_planner_purity", "open()"),
        (
            "residency/hold/hooks.py",
            "from torch._subclasses import fake_tensor",
            "check_internals",
            "torch._subclasses",
        ),
        ("residency/hold/hooks.py", "found = tensor._grad_layout", "check_internals", "_grad_layout"),
        ("residency/hold/hooks.py", "self._version = tensor._version", "check_internals", "_version"),
        ("residency/hold/hooks.py", "found = vars(part).get('_hf_hook')", "check_internals", "_hf_hook"),
        ("residency/hold/hooks.py", "found = getattr(part, '_cached_thing', None)", "check_internals", "_cached_thing"),
        ("residency/hold/hooks.py", "bind = torch.Tensor.data.__set__", "check_internals", "__set__"),
        ("residency/hold/hooks.py", "found = operator.py_kernels", "check_internals", "py_kernels"),
        (
            "tune/trials/peers.py",
            "def f():\n    from roost.pipelines.internals.of_torch import bind_one",
            "check_internals",
            "brings torch",
        ),
        ("blocks.py", "x = 1\n" * 301, "check_sizes", "301 lines"),
        ("blocks.py", "class A:\n    async def f():\n" + "        1\n" * 60, "check_sizes", "f() has 61 lines"),
    ],
)
def test_a_planted_violation_breaks_its_law_and_no_other(
    house: ModuleType, tmp_path: Path, path: str, text: str, law: str, named: str
) -> None:
    broken = broken_laws(house, tmp_path, f"roost/{path}", text)
    assert list(broken) == [law]
    assert len(broken[law]) == 1
    assert named in broken[law][0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("__main__.py", "from roost.cli import main"),
        ("api/plans/plan.py", "from roost.planner import search\nfrom roost.probes.machine import gpu"),
        (
            "planner/search/search.py",
            "from roost.planner.rules.table import RULES\nfrom roost.plan import PlanDocument",
        ),
        ("planner/search/search.py", "import torchlike, osmium"),
        ("units.py", "from roost.errors import UsageError"),
        ("residency/hold/hooks.py", "import torch"),
        ("residency/hold/hooks.py", "import os\nself._version = 1\nfound = other._mine\nself._mine = 2\nos._exit(1)"),
        ("pipelines/internals/of_torch.py", "found = tensor._version"),
        ("tune/trials/peers.py", "from roost.pipelines.internals.of_diffusers import takes_group_offload"),
        ("probes/dry_run/world.py", "from diffusers import DiffusionPipeline"),
        ("probes/dry_run/flops.py", "import torch"),
        ("probes/files/headers.py", "from safetensors import safe_open\nimport os"),
        ("blocks.py", "x = 1\n" * 300),
        ("blocks.py", "def f():\n" + "    1\n" * 59),
    ],
)
def test_what_the_laws_allow_passes(house: ModuleType, tmp_path: Path, path: str, text: str) -> None:
    assert broken_laws(house, tmp_path, f"roost/{path}", text) == {}


@pytest.mark.parametrize(
    ("path", "imported", "allowed"),
    [
        ("planner/rules/case.py", "roost.planner.cost.rates", False),
        ("planner/cost/costs.py", "roost.planner.rules.names", True),
        ("planner/cost/costs.py", "roost.planner.search.pricing", False),
        ("planner/cost/simulator/times.py", "roost.planner.cost.rates", False),
        ("planner/cost/rates.py", "roost.planner.cost.data_sheet_rates", True),  # files of one room may meet
        ("planner/cost/rates.py", "roost.planner.cost.simulator.times", True),
        ("planner/by_rules.py", "roost.planner.by_search", False),
        ("probes/files/headers.py", "roost.probes.model.directory", False),
        ("probes/machine/gpu.py", "roost.probes.files.headers", True),
        ("probes/machine/gpu.py", "roost.probes.dry_run.cache", False),
        ("residency/device/cuda.py", "roost.residency.weights.units", False),
        ("residency/engine/runtime.py", "roost.residency.weights.units", True),
        ("residency/engine/runtime.py", "roost.residency.hold.attach", False),
        ("residency/hold/attach.py", "roost.residency.run.loader", False),
        ("residency/device/interface.py", "roost.residency.device.emulated", False),
        ("residency/device/choice.py", "roost.residency.device.emulated", True),
        ("api/requests/inputs.py", "roost.api.models.inspect", False),
        ("api/plans/plan.py", "roost.api.measurements.learned", True),
        ("cli/views/plan.py", "roost.cli.commands.plan", False),
        ("tune/race/race.py", "roost.tune.trials.runner", False),
    ],
)
def test_rooms_within_a_room_have_their_own_order(
    house: ModuleType, tmp_path: Path, path: str, imported: str, allowed: bool
) -> None:
    broken = broken_laws(house, tmp_path, f"roost/{path}", f"import {imported}")
    assert list(broken) == ([] if allowed else ["check_import_law"])
    assert allowed or imported in broken["check_import_law"][0]


def test_a_place_that_no_row_names_is_asked_for_in_its_own_folder(house: ModuleType, tmp_path: Path) -> None:
    broken = broken_laws(house, tmp_path, "roost/planner/guesses/first.py", "import roost.planner.rules")
    assert broken == {
        "check_import_law": ["room 'guesses' has no place in the import law: add it to LAYERS['planner']"]
    }


@pytest.mark.parametrize(
    ("door", "files", "said"),
    [
        (DOOR, 14, None),
        (DOOR, 15, "15 files"),
        ('"""Only one line."""\n', 1, "two lines"),
        (None, 1, "two lines"),
    ],
)
def test_a_folder_can_be_looked_over_and_says_what_lives_there(
    house: ModuleType, tmp_path: Path, door: str | None, files: int, said: str | None
) -> None:
    room = tmp_path / "roost/plan"
    room.mkdir(parents=True)
    for number in range(files):
        (room / f"file_{number}.py").write_text("")
    if door is not None:
        (room / "__init__.py").write_text(door)
    found = [each.message for each in house.check_rooms(house.read_sources(tmp_path))]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_the_whole_checkout_is_read_and_violations_come_with_path_and_line(house: ModuleType, tmp_path: Path) -> None:
    for path in ("src/roost/facts.py", "src/elsewhere/facts.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("\nimport torch\n")
    (tmp_path / "src/roost/__init__.py").write_text(DOOR)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_long.py").write_text("x = 1\n" * 301)
    where = [(str(each.path.relative_to(tmp_path)), each.line) for each in house.check_all(tmp_path)]
    assert where == [("src/roost/facts.py", 2), ("tests/test_long.py", 301)]


def test_start_up_loads_neither_torch_nor_other_large_libraries() -> None:
    code = (
        "import sys, roost, roost.cli.app, roost.api\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'pydantic', 'rich', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded at start-up: {sorted(heavy)}' if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr
