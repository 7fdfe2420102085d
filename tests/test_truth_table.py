"""Every row of the placement rules' truth table holds through the API and through the command line."""

from __future__ import annotations

import json
import shlex

import pytest

from real_models import RealModel
from roost import make_plan
from roost.cli.app import run
from roost.errors import UsageError
from roost.plan import PlanDocument
from truth_table import A14B, CASES, Row

IDS = [f"{row.id}-{model}" for row, model in CASES]


def api_options(text: str) -> dict[str, object]:
    """Command-line options as the API's keywords."""
    options: dict[str, object] = {"policy": "rules"}
    words = shlex.split(text)
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        if words and not words[0].startswith("--"):
            value: object = words.pop(0)
        else:
            value, name = not name.startswith("no_"), name.removeprefix("no_")
        options[name] = value
    for name, read in {"num_gpus": int, "dmd_steps": int, "dit_offload_prefetch_size": float}.items():
        if name in options:
            options[name] = read(str(options[name]))
    if "set" in options:
        options["set"] = [options["set"]]
    return options


def check(row: Row, plan: dict[str, object]) -> None:
    assert plan["policy"]["layerwise_groups"] == list(row.groups)
    for name, component in plan["components"].items():
        expected = row.placed.get(name) or row.placed.get(component["kind"])
        if expected:
            assert component["strategy"] == expected, name
    dits = [each for each in plan["components"].values() if each["kind"] == "dit"]
    if "prefetch" in row.also:
        assert {each["prefetch"] for each in dits} == {row.also["prefetch"]}
        helpers = [each for each in plan["components"].values() if each["kind"] != "dit" and each["prefetch"]]
        assert {each["prefetch"] for each in helpers} == {1}
    if "linger" in row.also:
        assert [each["linger"] for each in dits] == [True]
    if "fits" in row.also:
        assert plan["fits"] is row.also["fits"]
    assert row.also.get("fired", set()) <= {each["id"] for each in plan["policy"]["fired"]}
    if "blocked" in row.also:
        rule, by = row.also["blocked"]
        assert {"id": rule, "by": by} in plan["policy"]["blocked"]


@pytest.mark.parametrize(("row", "model"), CASES, ids=IDS)
def test_row_holds_through_the_api(row: Row, model: str, real_model: RealModel) -> None:
    plan = make_plan(real_model(model), **api_options(f"{row.target} {row.options}"))
    assert isinstance(plan, PlanDocument)
    check(row, plan.model_dump(mode="json", by_alias=True))


@pytest.mark.parametrize(("row", "model"), CASES, ids=IDS)
def test_row_holds_through_the_command_line(
    row: Row, model: str, real_model: RealModel, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(real_model(model)), *shlex.split(row.target), *shlex.split(row.options)]
    code = run([*words, "--policy", "rules", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert code == (0 if plan["fits"] else 3)
    check(row, plan)


@pytest.mark.parametrize("model", A14B)
def test_row_17_fsdp_and_layerwise_of_one_component_is_refused_naming_both(
    model: str, real_model: RealModel, capfd: pytest.CaptureFixture[str]
) -> None:
    options = "--gpu a100-80gb --vram 60GiB --fsdp --num-gpus 2 --set transformer=layerwise-offload"
    with pytest.raises(UsageError, match=r"fsdp=True and set='transformer=layerwise-offload'"):
        make_plan(real_model(model), **api_options(options))
    assert run(["plan", str(real_model(model)), *shlex.split(options)]) == 2
    line = capfd.readouterr().err
    assert "--fsdp" in line
    assert "--set transformer=layerwise-offload" in line


def test_explicit_options_stand_even_when_they_equal_the_default(real_model: RealModel) -> None:
    plan = make_plan(real_model("wan2.1-t2v-14b"), gpu="a100-80gb", vram="80GiB", dit_cpu_offload=False, policy="rules")
    assert plan.components["transformer"].decided_by == "flag:--no-dit-cpu-offload"
    assert "ALL-RESIDENT" not in {each.id for each in plan.policy.fired}
