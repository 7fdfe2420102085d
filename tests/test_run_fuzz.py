"""Seeded damage to configs and plans that run all the same (--force): each ends well or in one line."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from roost.cli.app import run
from roost.residency.run import generate
from tiny_models import build

EXPECTED_CODES = {0, 2, 3, 4, 5}
DAMAGES, MANY = 6, 250
FAMILY = "sdxl"
MACHINE = ("--gpu", "emulated", "--vram", "6MiB", "--headroom", "0", "--ram", "64GiB", "--mode", "memory")
RUN = ["run", "plan.yaml", "--force", "--prompt", "x", "--steps", "1", "-o", "o.png"]
GONE = object()
VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 64, 2**31 - 1, 2**63, 0.5, 1e30, "", "x", "1", [], [0], [[1]], {}, {"a": 1}),
    *("float16", "bfloat16", "float32", "resident", "layerwise-offload", "snapshot-offload", "component-offload"),
    *("fsdp", "leading", "dit", "vae", "text_encoder", "fp8", "diffusers", "AutoencoderKL", "silu", GONE),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny model and the text of its plan."""
    folder = tmp_path_factory.mktemp("fuzz")
    build(FAMILY, folder / "model")
    words = [
        "plan",
        str(folder / "model"),
        *MACHINE,
        "--size",
        "32x32",
        "--steps",
        "2",
        "-o",
        str(folder / "plan.yaml"),
    ]
    assert run(words) == 0
    return folder, (folder / "plan.yaml").read_text()


@pytest.fixture
def disk(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capfd) -> Path:
    folder, text = made
    monkeypatch.chdir(folder)
    (folder / "plan.yaml").write_text(text)
    capfd.readouterr()
    return folder


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below the top, by its keys."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*at, key)
        yield from _places(value[key], (*at, key))


def _changed(document: Any, place: tuple[Any, ...], value: object) -> Any:
    found = copy.deepcopy(document)
    *above, last = place
    inner = found
    for key in above:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return found


def _ends_well(capfd, what: object) -> int:
    code = run(RUN)
    error = capfd.readouterr().err
    assert code in EXPECTED_CODES, (what, error)
    if code:
        (line,) = [each for each in error.splitlines() if each.startswith("error: ")]
        assert len(line) < 1000, what
    return code


def _fuzz_configs(disk: Path, capfd, chance: Random, times: int) -> Counter[int]:
    configs = sorted(path for path in (disk / "model").glob("*/*config.json") if "tokenizer" not in path.name)
    codes: Counter[int] = Counter()
    for _ in range(times):
        path = chance.choice(configs)
        text = path.read_text()
        place, value = chance.choice(list(_places(json.loads(text)))), chance.choice(VALUES)
        path.write_text(json.dumps(_changed(json.loads(text), place, value)))
        codes[_ends_well(capfd, (path, place, value))] += 1
        path.write_text(text)
    return codes


def _fuzz_plan(disk: Path, capfd, chance: Random, times: int) -> Counter[int]:
    document = yaml.safe_load((disk / "plan.yaml").read_text())
    places, codes = list(_places(document)), Counter[int]()
    for _ in range(times):
        place, value = chance.choice(places), chance.choice(VALUES)
        (disk / "plan.yaml").write_text(json.dumps(_changed(document, place, value)))  # JSON is YAML, and fast
        codes[_ends_well(capfd, (place, value))] += 1
    return codes


@pytest.mark.dealt(2)
def test_a_run_of_a_damaged_config_or_plan_ends_well_or_in_one_line(disk: Path, capfd) -> None:
    codes = _fuzz_configs(disk, capfd, Random(1), DAMAGES) + _fuzz_plan(disk, capfd, Random(2), 2 * DAMAGES)
    assert codes[0]
    assert codes[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_damages_end_well_too(seed: int, disk: Path, capfd) -> None:
    codes = _fuzz_configs(disk, capfd, Random(seed), MANY)
    (disk / "plan.yaml").write_text((disk / "plan.yaml").read_text())
    codes += _fuzz_plan(disk, capfd, Random(seed), MANY)
    assert codes[0] > 10
    assert codes[2] > 10


@pytest.mark.dealt(3)
@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ("unet", {"addition_time_embed_dim": "float32"}, "failed in its libraries' code: TypeError"),
        ("unet", {"cross_attention_dim": None}, "'unet'"),
        ("unet", {"layers_per_block": 0}, "'unet'"),
        ("vae", {"latent_channels": 0}, "'vae'"),
        ("text_encoder", {"num_hidden_layers": None}, "'text_encoder'"),
        ("text_encoder", {"num_hidden_layers": 2**31 - 1}, "far more modules than its files have weights"),
        ("scheduler", {"num_train_timesteps": 2**31 - 1}, "more than any scheduler takes"),
    ],
)
def test_a_config_that_its_library_can_not_use_is_named_in_one_line(
    config: str, change: dict[str, object], said: str, disk: Path, capfd
) -> None:
    path = disk / "model" / config / ("scheduler_config.json" if config == "scheduler" else "config.json")
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), **change}))
    try:
        assert run(RUN) in (2, 4)
    finally:
        path.write_text(text)
    assert said in capfd.readouterr().err


def test_a_plan_whose_load_dtypes_do_not_go_together_is_named_in_one_line(disk: Path, capfd) -> None:
    document = yaml.safe_load((disk / "plan.yaml").read_text())
    document["components"]["unet"]["load_dtype"] = "float16"
    (disk / "plan.yaml").write_text(json.dumps(document))
    assert run(RUN) in (0, 2, 4)
    assert "unexpected" not in capfd.readouterr().err


def test_an_error_of_roosts_own_is_still_unexpected(disk: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_: object) -> None:
        raise TypeError("planted")

    monkeypatch.setattr(generate, "_output_tensor", break_down)
    assert run(RUN) == 1
    assert "unexpected TypeError: planted" in capfd.readouterr().err


def test_a_predicted_stage_of_no_component_is_refused_before_the_run(disk: Path, capfd) -> None:
    document = yaml.safe_load((disk / "plan.yaml").read_text())
    document["predicted"]["stages"][0]["component"] = "nobody"
    (disk / "plan.yaml").write_text(json.dumps(document))
    assert run(RUN) == 2
    assert "a stage of nobody, which is no component" in capfd.readouterr().err
