"""``--sweep``: which values are meant, what each point says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dry_runs import tiny_directory
from roost.api.models import traces
from roost.api.plans.sweep import Sweep, parse_sweep
from roost.cli.app import run
from roost.cli.views.sweep import placement_in_short
from roost.errors import UsageError
from roost.units import GiB
from searched_plans import searched

TINY = ("--gpu", "emulated", "--headroom", "0", "--size", "64x64", "--steps", "2")


@pytest.mark.parametrize(
    ("text", "sweep"),
    [
        ("vram=8GiB:16GiB:4GiB", Sweep(what="vram", values=(8 * GiB, 12 * GiB, 16 * GiB))),
        ("vram=8GiB:15GiB:4GiB", Sweep(what="vram", values=(8 * GiB, 12 * GiB))),
        ("RAM=32GiB,64GiB,32GiB", Sweep(what="ram", values=(32 * GiB, 64 * GiB))),
        ("size=832x480,1280x720", Sweep(what="size", values=((832, 480), (1280, 720)))),
        ("batch=1, 4,1", Sweep(what="batch", values=(1, 4))),
    ],
)
def test_values_are_steps_with_the_last_or_a_list_without_repeats(text: str, sweep: Sweep) -> None:
    assert parse_sweep(text) == sweep


@pytest.mark.parametrize(
    "text",
    [
        "", "vram", "vram=", "vram=8GiB:", "vram=8GiB:16GiB", "vram=8GiB:4GiB:1GiB", "vram=8GiB:16GiB:0",
        "vram=1:99999999:1", "vram=0,8GiB", "size=64", "size=64x64:128x128:1", "steps=1,2",
        "batch=0", "batch=1:4:1", "batch=many",
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused_in_one_line(text: str, capsys) -> None:
    with pytest.raises(UsageError):
        parse_sweep(text)
    assert run(["plan", "flux.1-dev", "--gpu", "h200", "--sweep", text]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--policy", "rules"), "--policy rules"),
        (("--vram", "8GiB"), "--vram"),
        (("-o", "plan.yaml"), ".json"),
        (("--sweep", "batch=1,2", "--batch", "2"), "--batch"),
    ],
)
def test_what_contradicts_a_sweep_is_refused(words: tuple[str, ...], named: str, capsys) -> None:
    assert run(["plan", "flux.1-dev", "--gpu", "h200", "--sweep", "vram=8GiB,9GiB", *words]) == 2
    assert named in capsys.readouterr().err


def test_memory_sweeps_trace_once_a_level_and_say_what_is_missing(monkeypatch, tmp_path: Path, capsys) -> None:
    traced = []

    def counted(*arguments):
        traced.append(arguments)
        return trace_model(*arguments)

    trace_model = traces.trace_model
    monkeypatch.setattr(traces, "trace_model", counted)
    model, output = str(tiny_directory("flux")), tmp_path / "sweep.json"
    words = ["plan", model, *TINY, "--sweep", "vram=1KiB,64MiB,128MiB"]
    assert run([*words, "--json", "-o", str(output)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(traced) == 2  # by blocks, and where these are short by layers
    assert json.loads(output.read_text()) == document
    assert document["schema"] == 1
    assert document["sweep"] == {"what": "vram", "values": [1024, 64 * 1024**2, 128 * 1024**2]}
    none, small, large = document["points"]
    assert (none["fits"], none["first_s"]) == (False, None)
    assert "short" in none["missing"]
    assert small["fits"]
    assert large["fits"]
    assert large["first_s"] <= small["first_s"] * 1.02
    assert {each["strategy"] for each in large["components"].values()} == {"resident"}
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "1.00 KiB  does not fit" in shown
    assert "#" in shown


def test_a_point_is_what_planning_it_alone_gives(capsys) -> None:
    model = str(tiny_directory("flux"))
    assert run(["plan", model, *TINY, "--sweep", "vram=64MiB,65MiB", "--json"]) == 0
    point = json.loads(capsys.readouterr().out)["points"][0]
    assert run(["plan", model, *TINY, "--vram", "64MiB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert point["first_s"] == plan["predicted"]["first_s"]["mid"]
    assert point["peak_bytes"] == plan["predicted"]["peak_bytes"]["mid"]
    assert point["components"] == {
        name: {key: each[key] for key in ("strategy", "resident_blocks", "tiling")}
        for name, each in plan["components"].items()
    }


def test_batches_say_what_an_output_takes(capsys) -> None:
    words = ["plan", str(tiny_directory("flux")), *TINY, "--vram", "64MiB", "--sweep", "batch=1,2"]
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sweep"] == {"what": "batch", "values": [1, 2]}
    assert [each["output_s"] for each in document["points"]] == [
        each["next_s"] / batch for batch, each in enumerate(document["points"], 1)
    ]
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "An output" in shown
    assert "batch 2  #" in shown


def test_nothing_that_fits_anywhere_is_exit_code_3(capsys) -> None:
    assert run(["plan", str(tiny_directory("flux")), *TINY, "--sweep", "vram=1KiB,2KiB"]) == 3
    shown = capsys.readouterr().out
    assert shown.count("short") == 2
    assert max(map(len, shown.splitlines())) <= 80


def test_a_placement_in_short_puts_equal_treatments_together() -> None:
    everything = ("dit=resident", "text_encoder=resident", "vae=resident")
    assert placement_in_short(searched(100, *everything)) == "dit+te+vae stays"
    typed = ("dit=layerwise-offload,resident_blocks=12", "text_encoder=snapshot-offload", "vae=snapshot-offload")
    assert placement_in_short(searched(40, *typed)) == "dit 12/40 · te+vae snapshot"
