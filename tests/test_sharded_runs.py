"""Plans with FSDP under torchrun: two processes make the bits of one, write once, and end together."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.cli.app import run
from roost.plan import read_plan
from tiny_models import build, default_call

CALL = default_call("wan2.2")
WORKLOAD = (
    *("--size", f"{CALL['width']}x{CALL['height']}", "--frames", str(CALL["num_frames"])),
    *("--steps", str(CALL["num_inference_steps"])),
)
EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--policy", "rules")
PROMPT = ("--prompt", "a fox")
FAILING = str(Path(__file__).with_name("failing_rank.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan2.2", tmp_path_factory.mktemp("sharded") / "model")


@pytest.fixture(scope="module")
def sharded(model: Path) -> Path:
    """The plan of the rules for two GPUs and speed."""
    path = model.parent / "sharded.yaml"
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, "--mode", "speed", "--num-gpus", "2", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def plain(model: Path) -> Path:
    path = model.parent / "plain.yaml"
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, "-o", str(path)]) == 0
    return path


def torchrun(*words: str, processes: int = 2, **environ: str) -> subprocess.CompletedProcess[str]:
    """``words`` as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environ}
    return subprocess.run(
        [sys.executable, *launcher, *words], capture_output=True, text=True, env=environment, timeout=180, check=False
    )


def errors_of(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^error: .*$", ended.stderr, re.MULTILINE)


def exit_codes(ended: subprocess.CompletedProcess[str]) -> set[int]:
    """Those of processes that torchrun reports; it ends by itself those that still run."""
    return {int(code) for code in re.findall(r"exitcode *: (-?\d+)", ended.stderr)} - {-15}


PROMPTS = ("a fox", "a heron in the reeds", "an owl", "a hare at dawn")


def test_two_ranks_make_generations_of_their_own_with_the_bits_of_one_process(
    sharded: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    wanted = ("--prompts", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "fox.mp4"), "--json")
    assert run(["run", str(plain), *wanted]) == 0
    alone = json.loads(capsys.readouterr().out)
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.mp4")}
    assert len(files) == len(PROMPTS)
    for number in (2, 3, 4):
        (tmp_path / f"fox-000{number}.mp4").unlink()
    ended = torchrun("-m", "roost", "-v", "run", str(sharded), *wanted)  # the second and third prompt, then the fourth
    assert ended.returncode == 0, ended.stderr
    assert {name: each.strategy for name, each in read_plan(sharded).components.items()} == {
        "text_encoder": "resident", "transformer": "fsdp", "transformer_2": "fsdp", "vae": "resident",
    }  # fmt: skip
    together = json.loads(ended.stdout)  # one rank speaks
    assert [each["digest"] for each in together["generations"]] == [each["digest"] for each in alone["generations"]]
    assert [each["skipped"] for each in together["generations"]] == [True, False, False, False]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.mp4")} == files
    assert together["latent_digest"] == alone["latent_digest"]
    assert together["texts"]["encoded_ahead"]
    assert together["changes"] == []
    for each in together["generations"][1:]:
        assert [stage["name"] for stage in each["stages"]] == ["denoise (high noise)", "denoise (low noise)", "decode"]
        assert each["peak_bytes"] == max(stage["peak_bytes"] for stage in each["stages"])
    # The fourth is left for one rank, and the other keeps step.
    assert sorted(re.findall(r"call (\d of \d) made", ended.stderr)) == ["1 of 3", "2 of 3", "3 of 3", "3 of 3"]
    assert ended.stderr.count("nothing is kept") == 1
    assert errors_of(ended) == []
    noted = (tmp_path / "fox.journal.jsonl").read_text().split("\n")
    assert [json.loads(line)["prompt"] for line in noted if line] == [*PROMPTS, *PROMPTS[1:]]
    assert run(["run", str(plain), *wanted]) == 0
    assert all(each["skipped"] for each in json.loads(capsys.readouterr().out)["generations"])


def test_a_rank_that_fails_ends_all_with_its_line_and_code(sharded: Path) -> None:
    ended = torchrun(FAILING, "run", str(sharded), *PROMPT, FAIL="memory")
    assert errors_of(ended) == ["error: rank 1 has no memory for its shards."]
    assert exit_codes(ended) == {5}
    assert ended.stdout == ""


@pytest.mark.slow
def test_a_rank_that_dies_ends_all(sharded: Path) -> None:
    ended = torchrun(FAILING, "run", str(sharded), *PROMPT, FAIL="death")
    assert ended.returncode != 0
    assert -9 in exit_codes(ended)
    assert len(errors_of(ended)) <= 1


@pytest.mark.slow
def test_what_was_made_before_a_rank_fails_is_saved(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    wanted = ("--prompts", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "fox.mp4"))
    ended = torchrun(FAILING, "run", str(sharded), *wanted, FAIL="later")
    assert errors_of(ended) == ["error: rank 1 has no memory for its second one."]
    assert exit_codes(ended) == {5}
    made = {path.name for path in tmp_path.glob("*.mp4")}
    assert {"fox-0001.mp4", "fox-0002.mp4"} <= made <= {f"fox-000{number}.mp4" for number in (1, 2, 3)}
    noted = [line for line in (tmp_path / "fox.journal.jsonl").read_text().split("\n") if line]
    assert len(noted) == len(made)
    assert not list(tmp_path.glob("*.roost-tmp*"))


@pytest.mark.slow
def test_where_an_encoder_is_sharded_too_all_ranks_make_the_same(
    model: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model.parent / "encoder.yaml"
    shards = ("--num-gpus", "2", "--fsdp", "--set", "text_encoder=fsdp")
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, *shards, "-o", str(path)]) == 0
    wanted = (*PROMPT, "--seed", "7", "--seed", "8", "--json")
    capsys.readouterr()
    assert run(["run", str(plain), *wanted]) == 0
    alone = json.loads(capsys.readouterr().out)
    ended = torchrun("-m", "roost", "-v", "run", str(path), *wanted)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["digest"] == alone["digest"]
    assert ended.stderr.count("all processes make the same generations, because text_encoder is sharded, too") == 1
    assert sorted(re.findall(r"call (\d of \d) made", ended.stderr)) == ["1 of 2", "1 of 2", "2 of 2", "2 of 2"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["run", *words, *PROMPT])
    return code, capsys.readouterr().err


def test_in_one_process_the_command_that_starts_all_is_named(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"torchrun --nproc-per-node 2 -m roost run {sharded} --prompt 'a fox'"
    assert refused(capsys, str(sharded)) == (
        2,
        "error: this plan shards 'transformer', 'transformer_2' with FSDP over 2 GPUs, which needs torchrun and a"
        f" process for each; start them with: {command}\n",
    )


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this process one that torchrun started."""

    def become(rank: int, world: int) -> None:
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}.items():
            monkeypatch.setenv(name, str(value))

    return become


def test_another_number_of_processes_is_refused_by_one_of_them(
    sharded: Path, ranks: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks(0, 3)
    code, error = refused(capsys, str(sharded))
    assert code == 4
    assert "over 2 GPUs, and torchrun started 3 processes" in error
    assert f"torchrun --nproc-per-node 2 -m roost run {sharded}" in error
    ranks(1, 3)
    assert refused(capsys, str(sharded)) == (4, "")


def test_a_plan_of_one_gpu_is_not_run_by_several_processes(
    plain: Path, ranks: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks(0, 2)
    code, error = refused(capsys, str(plain))
    assert (code, "this plan shards nothing" in error) == (2, True)


def test_a_plan_of_one_gpu_runs_alone_where_a_job_s_environment_has_one_rank(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run(["run", str(plain), *PROMPT]) == 0


def test_an_environment_that_is_none_of_torchrun_s_is_refused(
    sharded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "first")
    code, error = refused(capsys, str(sharded))
    assert (code, "RANK='first' in the environment is no number" in error) == (2, True)
    monkeypatch.setenv("RANK", "2")
    code, error = refused(capsys, str(sharded))
    assert (code, "contradict each other" in error) == (2, True)
