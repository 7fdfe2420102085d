"""What the commands print: for a person, in a pipe, as JSON, for names that try to be terminal codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import roost
from model_mova import write_mova_directory
from roost.cli.app import run
from roost.cli.screen import clean
from roost.planner.rules.table import RULES
from roost.profiles.published import model_names


def test_inspect_shows_a_row_per_component_in_load_order(real_model, capsys) -> None:
    assert run(["inspect", str(real_model("flux.1-dev"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FluxPipeline · flux.1-dev · 4 components · 31.4 GiB stored, 31.4 GiB loaded"
    assert [line.split()[0] for line in lines[2:6]] == ["transformer", "text_encoder_2", "text_encoder", "vae"]
    assert lines[6] == "load order: transformer, text_encoder_2, text_encoder, vae"


def test_inspect_json_of_a_published_model(real_model, capsys) -> None:
    assert run(["inspect", str(real_model("wan2.2-t2v-a14b")), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["load_order"] == ["transformer_2", "transformer", "text_encoder", "vae"]
    parts = {each["name"]: each for each in document["components"]}
    (stack,) = parts["transformer"]["blocks"]
    assert (stack["stack"], stack["count"], sum(stack["block_bytes"])) == ("blocks", 40, stack["bytes"])
    assert parts["transformer"]["bytes_by_dtype"] == {"F32": parts["transformer"]["bytes"]}
    assert parts["transformer"]["load_bytes"] == stack["bytes"] + parts["transformer"]["trunk_bytes"]
    # 28.58 GB in bf16 alone: norms, time embedder and scale_shift_table stay float32.
    assert round(parts["transformer"]["load_bytes"] / 1e9, 2) == 28.64
    assert parts["vae"]["load_dtype"] == "float32"
    assert document["total_bytes"] == sum(each["bytes"] for each in document["components"])


def test_plan_screen_names_decision_reason_block_stage_and_verdict(real_model, capsys) -> None:
    options = ("--gpu", "a100-80gb", "--vram", "60GiB", "--ram", "128GiB", "--dit-cpu-offload", "--policy", "rules")
    assert run(["plan", str(real_model("wan2.2-t2v-a14b")), *options, "-v"]) == 0
    shown = capsys.readouterr().out
    assert "60.0 GiB free of 80.0 GiB (profile:a100-80gb+--vram), headroom 1.00 GiB, budget 59.0 GiB" in shown
    assert "transformer_2, transformer: --dit-cpu-offload" in shown
    assert "blocked  WAN-DIT-LAYERWISE by --dit-cpu-offload" in shown
    assert "stage  denoise (transformer): 26.7 GiB of weights on the GPU" in shown
    assert "verdict: weights fit; activations not known" in shown
    assert "warning: the rules know nothing of activations; --policy search" in shown


SHORT = ("--size", "256x256", "--steps", "2", "--ram", "64GiB")


def test_a_plan_that_fits_is_six_lines_and_one_a_component(capsys) -> None:
    assert run(["plan", "sdxl", "--gpu", "rtx-4090", *SHORT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fits: up to ")
    assert lines[1].startswith("sdxl 6.46 GiB, 256×256, 2 steps, batch 1 on NVIDIA GeForce RTX 4090, host ")
    assert lines[2].startswith("the first picture takes ")
    assert [line.split()[0] for line in lines[3:8]] == ["Component", "unet", "text_encoder_2", "text_encoder", "vae"]
    assert len(lines) <= 6 + 4


def test_what_does_not_fit_shows_no_placement_but_commands_that_would_fit(capsys) -> None:
    forbidden = ["--set", "all=resident", "--forbid", "tiling"]
    assert run(["plan", "sdxl", "--gpu", "rtx-3060", "--vram", "5GiB", *SHORT, *forbidden]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("does not fit: VRAM is ")
    remedies = [line for line in lines if line.startswith("would fit  ")]
    assert "would fit  roost plan sdxl --gpu rtx-3060 --vram 5GiB --ram 64GiB --size 256x256 --steps 2" in remedies[0]
    assert "--set" not in remedies[0]
    assert not any(line.startswith("Component") for line in lines)


def test_strict_makes_what_may_not_fit_an_exit_code(capsys) -> None:
    words = ["plan", "sdxl", "--gpu", "rtx-4090", *SHORT, "--policy", "rules", "--json"]
    assert run(words) == 0
    document = json.loads(capsys.readouterr().out)
    sure = document["certainty"] == "sure"
    assert run([*words, "--strict"]) == (0 if sure else 3)
    assert run(["plan", "sdxl", "--gpu", "rtx-3060", "--vram", "6GiB", *SHORT, "--certainty", "nearly"]) == 2


@pytest.mark.slow
def test_one_reason_of_several_components_speaks_of_all_of_them(tmp_path, capsys) -> None:
    card = ("--gpu", "rtx-4090", "--ram", "96GiB", "--no-measured")
    assert run(["plan", "flux.1-dev", *card, "-v", "-o", str(tmp_path / "plan.yaml")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "why text_encoder, vae: they fit beside every stage and then never move." in shown
    parts = roost.load_plan(tmp_path / "plan.yaml").components
    assert parts["vae"].why == parts["text_encoder"].why == "it fits beside every stage and then never moves."
    assert (
        run(
            [
                "plan",
                "wan2.2-t2v-a14b",
                "--gpu",
                "l40s",
                "--ram",
                "96GiB",
                "--layerwise-offload-components",
                "none",
                "--policy",
                "rules",
                "-v",
            ]
        )
        == 0
    )
    assert "transformer, text_encoder: no better rule covers them; moving each" in " ".join(
        capsys.readouterr().out.split()
    )


def test_inspect_says_which_models_may_be_sharded(capsys) -> None:
    model = "wan2.2-t2v-a14b"
    assert run(["inspect", model]) == 0
    assert "note: its DiTs may be sharded over several GPUs (fsdp), under torchrun." in capsys.readouterr().out
    assert run(["inspect", "flux.1-dev"]) == 0
    assert "sharded" not in capsys.readouterr().out
    assert run(["inspect", model, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert all(document["strategies_run"].values())
    assert all(each["runs"] for each in document["components"])


def test_a_plan_is_written_into_a_folder_that_is_made(tmp_path, capsys) -> None:
    path = tmp_path / "new" / "plans" / "flux.yaml"
    assert run(["plan", "flux.1-dev", "--gpu", "h200", "--policy", "rules", "-o", str(path)]) == 0
    assert roost.load_plan(path).model.family == "flux.1-dev"


def test_rules_lists_every_row(capsys) -> None:
    assert run(["rules"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == [rule.id for rule in RULES]
    assert run(["rules", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["rules"]] == [rule.id for rule in RULES]


def test_gpus_lists_cards_and_says_why_none_is_here(capsys) -> None:
    assert run(["gpus", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"rtx-4090", "a100-80gb", "h100-sxm", "h200"} <= set(document["profiles"])
    assert len(document["profiles"]) >= 30
    assert document["gpus"] or document["problem"]


@pytest.mark.parametrize(
    "command", ["gpus", "models", "rules", "profiles", *(f"inspect {name}" for name in model_names())]
)
def test_lists_are_no_wider_than_a_terminal_when_piped(command: str, capsys) -> None:
    assert run(command.split()) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_models_give_sizes_in_the_unit_of_their_plans(capsys) -> None:
    assert run(["models"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("wan2.2-t2v-a14b ")]
    assert line.split("  ")[-2].strip() == "64.4 GiB"


def test_names_from_a_model_never_reach_the_terminal_raw(tmp_path: Path, capfd) -> None:
    write_mova_directory(tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    evil = "Pipe\x1b[31m\u202eline\nverdict: fits"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": evil}))
    run(["inspect", str(tmp_path / "model")])
    run(["plan", str(tmp_path / "model"), "--gpu", "h200"])
    captured = capfd.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\u202e" not in captured.out + captured.err
    assert not any(line.startswith("verdict: fits\\n") for line in captured.out.splitlines())


def test_clean_escapes_what_cannot_be_printed() -> None:
    assert clean("a\tb\x1b[0m\u202e é 中") == "a\\tb\\x1b[0m\\u202e é 中"


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["plna"], 2, "Did you mean"),
        (["plan"], 2, "MODEL"),
        (["plan", "/nowhere", "--gpu", "h200"], 2, "/nowhere"),
        (["run", "/nowhere.yaml", "--prompt", "x"], 2, "/nowhere.yaml"),
        (["inspect", "--colour"], 2, "--colour"),
        (["plan", ".", "--frames", "many"], 2, "--frames"),
    ],
)
def test_usage_errors_are_one_line_with_exit_code_2(words, code, named, capfd) -> None:
    assert run(words) == code
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert named in line


def test_bare_command_shows_help() -> None:
    done = subprocess.run([sys.executable, "-m", "roost"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "inspect" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    program = f"{sys.executable} -m roost gpus | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_below_stdout_is_one_line() -> None:
    program = f"{sys.executable} -m roost models > /dev/full"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: a disk, or what stdout goes to, is full; free some space and try again.\n"


def test_a_terminal_gets_a_table_that_fits_80_columns(real_model) -> None:
    words = ["plan", str(real_model("flux.1-dev")), "--gpu", "rtx-4090", "--ram", "64G", "--policy", "rules"]
    program = (
        "import os, pty, sys; from roost.cli.app import run\n"
        "pid, fd = pty.fork()\n"
        f"if pid == 0: sys.exit(run({words!r}))\n"
        "while True:\n"
        "    try: text = os.read(fd, 65536)\n"
        "    except OSError: break\n"
        "    if not text: break\n"
        "    sys.stdout.buffer.write(text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "TERM": "xterm", "COLUMNS": "80", "HOME": "/nonexistent", "PYTHONUTF8": "1"},
    )
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    start = next(index for index, line in enumerate(shown) if line.startswith("Component"))
    assert max(len(line) for line in shown[start : start + 5]) <= 80
    rows = [line.split()[0] for line in shown[start + 1 : start + 5]]
    assert rows == ["transformer", "text_encoder_2", "text_encoder", "vae"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_ends_well_without_the_streams_that_a_shell_has_closed(closed: str) -> None:
    program = f"{sys.executable} -m roost rules {closed}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"cd {gone} && rmdir {gone} && {sys.executable} -m roost plan . --policy rules --gpu h200"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the folder that this command was started in is gone; change to another one.\n"


def test_an_interrupt_inside_exec_ends_with_its_code_too(tmp_path: Path) -> None:
    program = """
import roost.cli, roost.cli.app
def run(words):
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return 130
roost.cli.app.run = run
roost.cli.main()
"""
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, "-m", "program"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
