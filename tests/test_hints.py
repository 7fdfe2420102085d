"""What a message tells to do can be done: commands to paste, plans from other machines, files that an editor wrote."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from directories import DIT, safetensors, weights, write, write_pipeline
from measurements import EMULATED, entry
from roost.api.machine import find_machine
from roost.api.measurements.learned import known_of
from roost.cli.app import run
from roost.cli.views.plan import show_remedy_run
from roost.errors import InvalidFile
from roost.facts.request import Workload
from roost.plan.files import read_plan
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.shard_index import read_index
from roost.profiles.store import MeasuredStore
from small_model import VAE_WEIGHTS, edit_json, write_small_model
from worlds import component, inventory

RULES = ("--gpu", "emulated", "--vram", "64GiB", "--headroom", "0", "--ram", "64GiB", "--policy", "rules")
SEARCH = (*RULES[:-1], "search")
WINDOWS = "F:\\models\\New v4.4\\tiny"


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.fixture
def model(disk: Path) -> Path:
    return write_small_model(disk / "my model $1")


def _note(capfd, *words: object) -> str:
    """The line that the plan's writing ends with."""
    assert run(["plan", *map(str, words), *SEARCH]) == 0
    return capfd.readouterr().err


def test_the_next_command_of_a_saved_plan_can_be_pasted(model: Path, disk: Path, capfd) -> None:
    target = disk / "my plans" / "a  $b plan.yaml"
    target.parent.mkdir()
    found = re.search(r"Next: (roost run .*)", _note(capfd, model, "-o", target))
    assert found
    assert shlex.split(found[1]) == ["roost", "run", str(target), "--prompt", "…", "-o", "OUT"]


@pytest.mark.slow
def test_the_next_command_asks_for_what_the_pipeline_needs(model: Path, disk: Path, capfd) -> None:
    edit_json(model / "model_index.json", {"_class_name": "WanImageToVideoPipeline"})
    assert "--image FILE" in _note(capfd, model, "-o", disk / "p.yaml")
    edit_json(model / "model_index.json", {"_class_name": "FluxFillPipeline"})
    assert "--image FILE --image mask_image=FILE" in _note(capfd, model, "-o", disk / "p.yaml")
    edit_json(model / "model_index.json", {"_class_name": "DDPMPipeline"})
    assert "--prompt" not in _note(capfd, model, "-o", disk / "p.yaml")
    assert "Next: roost run p.yaml --model DIR --prompt" in _note(
        capfd, "flux.1-dev", "--vram", "64GiB", "-o", "p.yaml"
    )


def _pickle_the_vae(model: Path) -> None:
    (model / VAE_WEIGHTS).unlink()
    write(model / "vae" / "diffusion_pytorch_model.bin", b"\x80\x02}q\x00.")


@pytest.mark.slow
def test_no_run_is_proposed_that_can_only_be_refused(model: Path, disk: Path, capfd) -> None:
    note = _note(capfd, model, "-o", disk / "p.yaml", "--role", "encoder")
    assert "Next" not in note
    assert "Roost can't run it: this plan" in note
    edit_json(model / "transformer" / "config.json", {"quantization_config": {"quant_method": "gguf"}})
    assert "Roost can't run it: component 'transformer' is quantised" in _note(capfd, model, "-o", disk / "p.yaml")
    edit_json(model / "transformer" / "config.json", lambda config: config.pop("quantization_config"))
    _pickle_the_vae(model)
    assert "Roost can't run it: component 'vae' has only pickled" in _note(capfd, model, "-o", disk / "p.yaml")


def test_the_next_command_of_shards_starts_a_process_for_each_gpu(model: Path, disk: Path, capfd) -> None:
    note = _note(capfd, model, "-o", "p.yaml", "--fsdp", "--num-gpus", "2")
    assert "Next: torchrun --nproc-per-node 2 -m roost run p.yaml --prompt" in note


def _moved(model: Path, disk: Path, path: str) -> None:
    """A plan that was made where its model lay at ``path``."""
    assert run(["plan", str(model), *RULES, "-o", "p.yaml"]) == 0
    document = yaml.safe_load((disk / "p.yaml").read_text())
    document["model"]["path"] = path
    write(disk / "p.yaml", yaml.safe_dump(document))


@pytest.mark.parametrize("path", [WINDOWS, "\\\\server\\share\\é", "/home/some body/models/wan"])
def test_a_plan_from_another_machine_shows_its_path_whole_and_names_model(
    path: str, model: Path, disk: Path, capfd
) -> None:
    _moved(model, disk, path)
    for words in (["run", "p.yaml", "--prompt", "x"], ["timeline", "p.yaml", "-o", "t.html"], ["bench", "p.yaml"]):
        capfd.readouterr()
        assert run(words) == 2
        line = capfd.readouterr().err
        assert f"'{path}'" in line
        assert "--model DIR" in line
    assert run(["run", "p.yaml", "--model", str(model), "--prompt", "x", "--dry-run", "-o", "o.mp4"]) == 0


def test_bench_takes_model_for_a_plan_only(model: Path, disk: Path, capfd) -> None:
    _moved(model, disk, WINDOWS)
    assert run(["bench", "p.yaml", "--model", "nowhere/at/all"]) == 2
    assert "'nowhere/at/all' doesn't exist" in capfd.readouterr().err
    assert run(["bench", str(model), "--model", str(model)]) == 2
    assert "leave it out" in capfd.readouterr().err


def test_the_command_for_a_plan_fits_what_lies_at_its_path(disk: Path) -> None:
    (disk / "a dir").mkdir()
    with pytest.raises(InvalidFile, match=r"with: roost plan 'a dir' -o PLAN$"):
        read_plan(Path("a dir"))
    with pytest.raises(InvalidFile, match=r"with: roost plan MODEL -o 'no plan\.yaml'$"):
        read_plan(Path("no plan.yaml"))


def test_figures_of_other_models_on_a_device_are_not_said_to_be_of_another_device() -> None:
    MeasuredStore().put(entry(EMULATED, "another-family"))
    gpu = find_machine("emulated", "1GiB", None, "0", None).gpu
    assert known_of(gpu, inventory(component("transformer", 1000))).notes == ()
    (note,) = known_of(gpu, inventory(component("transformer", 1000)), 2e9).notes
    assert "on emulated, no limit is not used: this plan is for emulated, 2 GB/s." in note


def test_a_dry_run_of_a_smaller_workload_is_told_in_a_whole_sentence(capsys) -> None:
    show_remedy_run(Workload(width=848, height=480, frames=None, steps=40, batch=1, guidance=None))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "looking for what would fit: dry-running 848×480, 40 steps, batch 1"


@pytest.mark.parametrize(
    ("content", "said", "unsaid"),
    [
        (b"\xef\xbb\xbf{}", "without a byte order mark", "etch"),
        ("{}".encode("utf-16"), "without a byte order mark", "etch"),
        (b'{"a": 1,}', "Mend it", "nterrupted"),
        (b"{'a': 1}", "Mend it", "nterrupted"),
        (b'{"a": 1', "Fetch that file again.", "Mend"),
        (b"", "Fetch that file again.", "Mend"),
        (bytes(64), "Fetch that file again.", "Mend"),
    ],
)
def test_a_json_file_is_to_be_mended_where_an_editor_wrote_it(
    content: bytes, said: str, unsaid: str, disk: Path
) -> None:
    write(disk / "config.json", content)
    with pytest.raises(InvalidFile, match=said) as caught:
        ModelDirectory(disk).read_object("config.json")
    assert unsaid not in str(caught.value)


def test_an_index_without_metadata_says_what_to_add() -> None:
    with pytest.raises(InvalidFile, match=r'Add "metadata": \{"total_size": 0\}') as caught:
        read_index("x.index.json", {"weight_map": {"a": "a.safetensors"}}, ".safetensors")
    assert "etch" not in str(caught.value)


def test_a_setting_that_someone_typed_wrong_is_to_be_mended(disk: Path, capfd) -> None:
    write_pipeline(disk / "m", {"transformer": DIT})
    write(disk / "m/transformer/diffusion_pytorch_model.safetensors", safetensors(weights()))
    write(disk / "m/transformer/config.json", json.dumps({"quantization_config": "nf4"}))
    assert run(["inspect", "m"]) == 2
    assert "Mend it" in capfd.readouterr().err
