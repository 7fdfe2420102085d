"""Seeded random damage to every file that Roost parses: it ends well or in one line, never in a surprise."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import yaml

from mutations import mutate_bytes, mutate_document
from roost.cli.app import run
from small_model import SHARD_INDEX, edit_json, write_small_model

pytestmark = pytest.mark.long

MUTATIONS = 60
# Zero, an invalid file, a placement that doesn't fit, a plan for something else.
EXPECTED_CODES = {0, 2, 3, 4}
# What the probes look at in a config.
CONFIGS = {
    "transformer/config.json": {"num_layers": 4, "quantization_config": {"quant_method": "x"}, "image_dim": None},
    "text_encoder/config.json": {"transformers_weights": "model.safetensors", "auto_map": {"AutoModel": "a.B"}},
}


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml(document: object) -> str:
    return yaml.dump(document, Dumper=_WithoutAliases, sort_keys=False)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Path:
    """A folder with a small model and its plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_small_model(tmp_path / "model")
    machine = ("--gpu", "emulated", "--vram", "20KiB", "--headroom", "0", "--ram", "64GiB", "--mode", "memory")
    assert run(["plan", "model", *machine, "--policy", "rules", "-o", "plan.yaml"]) == 0
    capfd.readouterr()
    document = yaml.safe_load(Path("plan.yaml").read_text())
    document["model"]["path"], document["versions"] = "model", {}  # the same text in every place, for the same damage
    Path("plan.yaml").write_text(_yaml(document))
    return tmp_path


def _check(words: list[str], capfd) -> int:
    """Runs the words; whatever the input, no surprise comes out."""
    code = run(words)
    out, err = capfd.readouterr()
    assert code in EXPECTED_CODES, err
    assert all(line.isprintable() for line in out.splitlines())
    if code:
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
        assert len(err) < 1000
    return code


def _damage(path: Path, parse: Callable[[str], object], dump: Callable[[object], str], chance: Random) -> bytes:
    """Damages the file in one of two ways and returns what it held."""
    raw = path.read_bytes()
    if chance.random() < 0.4:
        path.write_bytes(mutate_bytes(raw, chance))
    else:
        path.write_bytes(dump(mutate_document(parse(raw.decode()), chance)).encode("utf-8", "surrogatepass"))
    return raw


@pytest.mark.dealt(3)
@pytest.mark.parametrize(
    "name", ["model_index.json", SHARD_INDEX, *CONFIGS, "scheduler/scheduler_config.json"], ids=os.path.basename
)
def test_a_damaged_json_file_is_described_and_planned_or_refused_in_one_line(name: str, disk: Path, capfd) -> None:
    for config, settings in CONFIGS.items():
        edit_json(disk / "model" / config, settings)
    chance = Random(name)
    codes: Counter[int] = Counter()
    for _ in range(MUTATIONS):
        raw = _damage(disk / "model" / name, json.loads, json.dumps, chance)
        code = _check(["inspect", "model"], capfd)
        if code == 0:  # what is described can be planned
            assert _check(["plan", "model", "--gpu", "h200", "--ram", "64GiB"], capfd) == 0
        codes[code] += 1
        (disk / "model" / name).write_bytes(raw)
    assert codes[0] > 1
    assert codes[2] > 10


def test_a_damaged_plan_is_shown_or_refused_in_one_line(disk: Path, capfd) -> None:
    chance = Random(0)
    codes: Counter[int] = Counter()
    for _ in range(MUTATIONS):
        raw = _damage(disk / "plan.yaml", yaml.safe_load, _yaml, chance)
        codes[_check(["run", "plan.yaml", "--prompt", "x", "--dry-run", "--force"], capfd)] += 1
        (disk / "plan.yaml").write_bytes(raw)
    assert codes[0] > 1
    assert codes[2] > 10
