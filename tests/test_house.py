"""The checker of the house laws catches what it must, and start-up stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
LAWS = ("check_import_law", "check_torch_rooms", "check_planner_purity", "check_sizes")


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
        ("planner/search.py", "from roost.probes import gpu", "check_import_law", "roost.probes.gpu"),
        ("planner/search.py", "from roost import residency", "check_import_law", "roost.residency"),
        ("planner/search.py", "from ..probes import gpu", "check_import_law", "roost.probes.gpu"),
        ("probes/host.py", "def f():\n    import roost.profiles.gpus", "check_import_law", "roost.profiles.gpus"),
        ("facts.py", "import roost.blocks", "check_import_law", "roost.blocks"),
        ("errors.py", "from . import units", "check_import_law", "roost.units"),
        ("residency/hooks.py", "from roost import make_plan", "check_import_law", "roost.make_plan"),
        ("api/running.py", "import_module('roost.cli')", "check_import_law", "roost.cli"),
        ("helpers.py", "", "check_import_law", "helpers"),
        ("cli/run.py", "def f():\n    import torch", "check_torch_rooms", "torch"),
        ("api/running.py", "from torch.cuda import Stream", "check_torch_rooms", "torch.cuda.Stream"),
        ("probes/host.py", "import diffusers", "check_torch_rooms", "diffusers"),
        ("profiles/rates.py", "from safetensors.torch import load", "check_torch_rooms", "safetensors.torch"),
        ("planner/rules.py", "from pathlib import Path", "check_planner_purity", "pathlib.Path"),
        ("planner/rules.py", "import os.path", "check_planner_purity", "os.path"),
        ("planner/rules.py", "from roost.plan import read_plan", "check_planner_purity", "read_plan"),
        ("planner/rules.py", "def f():\n    print(1)", "check_planner_purity", "print()"),
        ("planner/rules.py", "text = open('x').read()", "check_planner_purity", "open()"),
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
        ("api/planning.py", "from roost.planner import search\nfrom roost.probes import gpu"),
        ("planner/search.py", "from roost.planner.rules import RULES\nfrom roost.plan import PlanDocument"),
        ("planner/search.py", "import torchlike, osmium"),
        ("units.py", "from roost.errors import UsageError"),
        ("residency/hooks.py", "import torch"),
        ("probes/dry_run.py", "from diffusers import DiffusionPipeline"),
        ("probes/dry_run/flops.py", "import torch"),
        ("probes/safetensors.py", "from safetensors import safe_open\nimport os"),
        ("blocks.py", "x = 1\n" * 300),
        ("blocks.py", "def f():\n" + "    1\n" * 59),
    ],
)
def test_what_the_laws_allow_passes(house: ModuleType, tmp_path: Path, path: str, text: str) -> None:
    assert broken_laws(house, tmp_path, f"roost/{path}", text) == {}


def test_the_whole_checkout_is_read_and_violations_come_with_path_and_line(house: ModuleType, tmp_path: Path) -> None:
    for path in ("src/roost/facts.py", "src/elsewhere/facts.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("\nimport torch\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_long.py").write_text("x = 1\n" * 301)
    where = [(str(each.path.relative_to(tmp_path)), each.line) for each in house.check_all(tmp_path)]
    assert where == [("src/roost/facts.py", 2), ("tests/test_long.py", 301)]


def test_start_up_loads_neither_torch_nor_the_model_libraries() -> None:
    code = (
        "import sys, roost, roost.cli.app, roost.api\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'loaded at start-up: {sorted(heavy)}' if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr
