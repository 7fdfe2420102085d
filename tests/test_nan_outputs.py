"""NaN in what a generation gives is told, once a call, and recorded."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from live_pipelines import STRATEGIES, bare_digest, held_by, own_pipeline, request_for
from plans import plan_for
from roost.cli.app import run
from roost.residency.run.generate import generate
from tiny_models import build, default_call


def spoil(module: torch.nn.Module) -> Any:
    """Makes the first parameter overflow; returns what undoes it."""
    weight = next(module.parameters())
    kept = weight.data.clone()
    weight.data.fill_(float("nan"))
    return lambda: weight.data.copy_(kept)


@pytest.mark.parametrize("strategy", ["resident", "layerwise-offload"])
def test_a_call_whose_component_gives_nan_warns_once_and_a_right_one_never(
    strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline, STRATEGIES[strategy])
    call = {**request_for("flux").more, "prompt": "a fox", "output_type": "latent"}
    heal = spoil(pipeline.transformer)
    with caplog.at_level(logging.WARNING, "roost"), held_by(pipeline, plan):
        pipeline(**call)
        pipeline(**call)
    assert [each.name.partition(".")[0] for each in caplog.records] == ["roost"] * 2
    assert caplog.records[0].args == ("transformer",)
    caplog.clear()
    heal()
    with caplog.at_level(logging.WARNING, "roost"), held_by(pipeline, plan) as held:
        generation = generate(held, request_for("flux"))
    assert generation.digest == bare_digest("flux")
    assert (generation.has_nan, generation.nan_components) == (False, ())
    assert caplog.records == []


def test_what_only_the_decoder_makes_nan_is_known_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = own_pipeline("flux")
    spoil(pipeline.vae.decoder)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES["snapshot-offload"])) as held:
        generation = generate(held, request_for("flux"))
        assert (generation.has_nan, generation.nan_components) == (True, ("vae",))
        assert generate(held, request_for("flux", output_type="latent")).nan_components == ()
    assert caplog.records == []


def test_a_run_says_and_records_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, plan, output = build("flux", tmp_path / "model"), tmp_path / "plan.yaml", tmp_path / "fox.png"
    (weights,) = (model / "vae").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"].fill_(float("nan"))
    save_file(tensors, weights, metadata={"format": "pt"})
    call = default_call("flux")
    size = ("--size", f"{call['width']}x{call['height']}", "--steps", str(call["num_inference_steps"]))
    words = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules", *size)
    assert run(["plan", str(model), *words, "-o", str(plan)]) == 0
    capsys.readouterr()
    assert run(["run", str(plan), "--prompt", "a fox", "--seed", "3", "-o", str(output), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (generation,) = record["generations"]
    assert (generation["has_nan"], generation["nan_components"]) == (True, ["vae"])
    (warning,) = record["warnings"]
    assert "seed 3" in warning
    assert output.exists()
    assert run(["run", str(plan), "--prompt", "a fox"]) == 0
    shown = capsys.readouterr()
    assert "warning: seed 0: the result contains NaN and vae gave NaN" in " ".join((shown.out + shown.err).split())
