"""What docs/several-gpus.md shows is what the commands print, and its file of hosts is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from roost.api.plans.fleet.spec import parse_fleet
from roost.cli.app import run

DOCUMENT = (Path(__file__).parents[1] / "docs" / "several-gpus.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^    (roost plan .*)\n((?:    .*\n)+)", DOCUMENT, flags=re.MULTILINE)


def test_the_files_of_hosts_are_some(tmp_path: Path) -> None:
    text, two_machines = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    (tmp_path / "two.yaml").write_text(two_machines)
    assert parse_fleet(str(tmp_path / "two.yaml")).card_count == 2
    (tmp_path / "fleet.yaml").write_text(text)
    fleet = parse_fleet(str(tmp_path / "fleet.yaml"))
    assert [each.name for each in fleet.hosts] == ["node-1", "node-2", "node-3", "node-4", "twin", "old"]
    assert fleet.card_count == 41


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command.split()[2] for command, _ in EXAMPLES])
def test_an_example_prints_what_is_shown(command: str, output: str, capsys) -> None:
    assert run(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.splitlines() == [line[4:] for line in output.splitlines()]
