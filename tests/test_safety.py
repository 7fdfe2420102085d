"""README's section on safety, promise by promise: each holds for every command, run in a folder that means harm."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from directories import write
from hostile import Watched, set_traps, watch
from roost.cli.app import app, run
from small_model import SHARD_INDEX, edit_json, write_small_model

pytestmark = pytest.mark.long

SMALL = ("--size", "64x64", "--frames", "9", "--steps", "2")
EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
TEMPORARY = tempfile.gettempdir()
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".metadata")


def commands(work: Path) -> list[list[str]]:
    """Every command of the CLI, the model being the working directory; ``bench`` starts trials."""
    plan, rules, results = str(work / "plan.yaml"), str(work / "rules.yaml"), str(work / "results.json")
    return [
        ["inspect", "."],
        ["plan", ".", *EMULATED, *SMALL, "-o", plan],
        ["plan", ".", *EMULATED, *SMALL, "--policy", "rules", "-o", rules],
        ["run", plan, "--prompt", "a fox", "-o", str(work / "fox.mp4"), "--trace-out", str(work / "trace.json")],
        ["bench", ".", *EMULATED, *SMALL, "--strategies", "resident", "--rounds", "1", "-o", results],
        ["report", results, "-o", str(work / "report.html")],
        ["explain", plan],
        ["timeline", plan, "-o", str(work / "plan.html")],
        ["diff", plan, rules],
        ["export", plan, "--to", "diffusers", "-o", str(work / "plan.py")],
        ["models"],
        ["model-dir", "sdxl", str(work / "sdxl"), "--sparse"],
        ["gpus"],
        ["rules"],
        ["probe", "--device", "emulated"],
        ["profiles"],
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safety").resolve()


@pytest.fixture(scope="module")
def seen(place: Path) -> Watched:
    """What all commands did in a model's folder full of traps; one process, and those that it starts."""
    from tiny_models import build  # imported here: it brings torch, which the refusals don't need

    model = build("wan2.1", place / "model")
    set_traps(model, place / "marks")
    before = contents(model)
    watched = watch(commands(place), model, place / "work")
    assert contents(model) == before
    return watched


def contents(folder: Path) -> Mapping[str, tuple[int, int]]:
    files = (each for each in folder.rglob("*"))
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns) for each in files}


def test_every_command_is_among_those_watched_and_each_ends_well(place: Path, seen: Watched) -> None:
    there_are = {each.name for each in app.registered_commands} | {each.name for each in app.registered_groups}
    assert {words[0] for words in seen.codes} == there_are
    assert {words: seen.printed[words] for words, code in seen.codes.items() if code != 0} == {}
    assert len(seen.pids) >= 3  # trials were watched too


def test_no_command_and_no_trial_runs_a_file_of_the_folder_that_it_is_called_in(place: Path, seen: Watched) -> None:
    assert not (place / "marks").exists(), sorted(os.listdir(place / "marks"))
    assert seen.of("executed") == frozenset()


def test_no_command_and_no_trial_opens_a_socket(seen: Watched) -> None:
    assert seen.of("socket") == frozenset()


def test_no_command_and_no_trial_opens_a_pickle_of_the_model(seen: Watched) -> None:
    assert [each for each in seen.of("read") if each.endswith(PICKLED)] == []
    assert any(each.endswith(".safetensors") for each in seen.of("read"))  # reads are watched


def test_files_are_written_only_where_they_were_named_or_where_the_user_s_own_are_kept(
    place: Path, seen: Watched
) -> None:
    homes = [os.environ[f"XDG_{name}_HOME"] for name in ("CACHE", "DATA", "CONFIG", "STATE")]
    model = str(place / "model")
    elsewhere = [
        each
        for each in seen.of("write")
        if not each.startswith((*homes, str(place), TEMPORARY, "/dev/", "/proc/self/"))
    ]
    assert elsewhere == []
    assert [each for each in seen.of("write") if each.startswith(model)] == []
    assert any("plan.yaml" in each for each in seen.of("write"))  # writes are watched


def test_the_only_programs_started_are_trials_and_ffmpeg(seen: Watched) -> None:
    known = re.compile(r"(.*/)?(python[\d.]*|ffmpeg[\w.-]*)")
    assert [each for each in seen.of("process") if not known.fullmatch(each)] == []


def planted(model: Path, name: str, **keys: object) -> Path:
    """A small model with further keys in one of its files."""
    write_small_model(model)
    path = model / name
    write(path, {}) if not path.exists() else None
    edit_json(path, keys)
    return model


FOREIGN = {
    "an attention from a repository": ("text_encoder/config.json", {"attn_implementation": "evil/kernel"}),
    "one of a community that is trusted": (
        "text_encoder/config.json",
        {"_attn_implementation": "kernels-community/flash-attn2@main:forward"},
    ),
    "one behind a wrapper": ("text_encoder/config.json", {"attn_implementation": "paged|evil/kernel"}),
    "one for a part": ("text_encoder/config.json", {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}}),
    "one in a part": ("text_encoder/config.json", {"text_config": {"_attn_implementation": "evil/kernel"}}),
    "one in a part of a part, the key being an internal one": (
        "text_encoder/config.json",
        {"text_config": {"layers": [{"_attn_implementation_internal": {"a": {"b": "evil/kernel"}}}]}},
    ),
    "one in a component of diffusers": ("transformer/config.json", {"attn_implementation": "evil/kernel"}),
    "one in a generation's settings": ("text_encoder/generation_config.json", {"attn_implementation": "evil/kernel"}),
    "experts that are a repository's by name": ("text_encoder/config.json", {"experts_implementation": "sonicmoe"}),
    "a mapping of kernels": ("text_encoder/config.json", {"kernel_config": {"RMSNorm": {"cuda": "evil/layers:Norm"}}}),
    "a generate function": ("text_encoder/generation_config.json", {"custom_generate": "evil/generate"}),
    "a backbone that the Hub is asked for": ("text_encoder/config.json", {"backbone": "resnet50"}),
    "a backbone of timm from a repository": (
        "text_encoder/config.json",
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:evil/net"}},
    ),
    "an audio tokenizer of a processor": (
        "tokenizer/processor_config.json",
        {"audio_tokenizer": {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "evil/dac"}},
    ),
    "another config": ("text_encoder/config.json", {"configuration_files": ["config.5.0.0.json"]}),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_config_that_would_load_something_from_elsewhere_is_refused_by_its_key(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, keys = FOREIGN[case]
    model = planted(tmp_path / "model", name, **keys)
    assert run(["inspect", str(model)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: '")
    assert "outside this directory" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "keys",
    [
        {"attn_implementation": "sdpa", "_attn_implementation_autoset": True, "experts_implementation": "grouped_mm"},
        {"_attn_implementation": "flash_attention_2", "attn_implementation": None, "kernel_config": None},
        {"use_timm_backbone": True, "backbone": "resnet50.a1_in1k", "use_kernels": False, "trust_remote_code": True},
        {"backbone": None, "backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50"}},
        {"architecture": "vit_base_patch16_224", "_name_or_path": "google/umt5-xxl", "configuration_files": []},
    ],
)
def test_ways_to_compute_names_of_origin_and_networks_by_name_are_no_harm(keys: dict, tmp_path: Path) -> None:
    assert run(["inspect", str(planted(tmp_path / "model", "text_encoder/config.json", **keys))]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "MODEL"),
        ("plan", "MODEL", *EMULATED),
        ("plan", "MODEL", *EMULATED, "--policy", "rules"),
        ("plan", "MODEL", *EMULATED, "--tune"),
        ("run", "MODEL", *EMULATED, "--prompt", "a fox"),
        ("run", "MODEL", *EMULATED, "--prompt", "a fox", "--force"),
        ("bench", "MODEL", *EMULATED),
    ],
)
@pytest.mark.parametrize(
    ("harm", "said"),
    [("kernel", "'attn_implementation' is 'evil/kernel'"), ("link", "leads outside"), ("index", "../../secret.json")],
)
def test_every_command_that_takes_a_model_refuses_what_leads_out_of_it(
    words: tuple[str, ...], harm: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, secret = write_small_model(tmp_path / "model"), write(tmp_path / "secret.json", '{"secret": 1}')
    if harm == "kernel":
        edit_json(model / "text_encoder/config.json", {"attn_implementation": "evil/kernel"})
    elif harm == "link":
        (model / "tokenizer" / "vocab.json").symlink_to(secret)
    else:
        edit_json(model / SHARD_INDEX, {"weight_map": {"blocks.0.attn.weight": "../../secret.json"}})
    assert run([str(model) if word == "MODEL" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [["run", "--prompt", "a"], ["bench"], ["explain"], ["timeline", "-o", "t.html"]])
@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [MARK]\n", "a: &a [1]\nb: *a\n", "a: 1\n" * 900_000])
def test_a_plan_that_is_no_strict_yaml_or_larger_than_4_mib_is_refused_by_every_command_that_takes_one(
    command: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, mark = tmp_path / "plan.yaml", tmp_path / "mark"
    plan.write_text(text.replace("MARK", str(mark)))
    assert run([command[0], str(plan), *command[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not mark.exists()
