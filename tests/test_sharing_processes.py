"""Processes of one host that hold the same components have one copy of their masters, whoever ends when and how."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import FluxTransformer2DModel

from engine_cases import digest_of
from given_folders import Saved
from plans import LAYERWISE
from shared_worlds import digest_alone, held, kinds, plan_of, wipe, without_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory files")

MIB = 1024**2


def no_memory_file(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("why", ["no memory file", "another system", "no folder"])
def test_where_memory_can_not_be_shared_masters_are_one_s_own_and_that_is_said(
    why: str, saved: Saved, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(saved("ltx"), LAYERWISE)
    if why == "no memory file":
        monkeypatch.setattr(os, "memfd_create", no_memory_file)
    elif why == "another system":
        monkeypatch.setattr("roost.residency.weights.shared.masters.sys.platform", "darwin")
    else:
        folder.rmdir()
    with held(plan, saved("ltx"), folder) as made:
        assert kinds(made) == {"Master"}
        assert {each.split(" ")[0] for each in made.changes} == {f"{name}:" for name in plan.components}
        assert all("not shared" in each and "\n" not in each for each in made.changes)
        assert digest_of(made, "ltx") == digest_alone("layerwise-offload", "ltx", saved("ltx"))


class Child:
    """A process that holds the model of ``directory``; see ``share_in_child``."""

    def __init__(self, name: str, directory: Path, folder: Path, described: Path, *words: str) -> None:
        here = Path(__file__).parent
        paths = [str(here), str(here.parent / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
        words = (str(here / "share_in_child.py"), name, str(described), str(directory), str(folder), *words)
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def asked(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.says()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def made(name: str, directory: Path, described: Path, *words: str) -> Child:
        children.append(Child(name, directory, folder, described, *(words or ("layerwise-offload",))))
        return children[-1]

    yield made
    for each in children:
        each.process.kill()
        each.process.wait()
        for pipe in (each.process.stdin, each.process.stdout):
            assert pipe is not None
            pipe.close()


def test_the_builder_may_be_killed_and_a_third_still_joins(
    saved: Saved, tmp_path: Path, folder: Path, start: Callable[..., Child]
) -> None:
    model = without_weights(saved("ltx"), tmp_path / "model")
    first = start("ltx", model, saved("ltx"))
    assert first.says()["masters"] == ["SharedMaster"]
    wipe(model)
    second = start("ltx", model, saved("ltx"))
    assert second.says()["masters"] == ["SharedMaster"]
    first.process.kill()
    first.process.wait()
    assert second.asked("run")["digest"] == digest_alone("layerwise-offload", "ltx", saved("ltx"))
    third = start("ltx", model, saved("ltx"), "resident")
    assert third.says()["changes"] == []
    assert third.asked("run")["digest"] == digest_alone("resident", "ltx", saved("ltx"))
    for each in (second, third):
        each.end()
    assert list(folder.iterdir()) == []


def waits_for_a_lock(pid: int) -> bool:
    return re.search(rf"-> FLOCK +ADVISORY +WRITE {pid} ", Path("/proc/locks").read_text(encoding="ascii")) is not None


def test_who_dies_while_it_builds_leaves_the_place_to_whoever_waits_for_it(
    saved: Saved, folder: Path, start: Callable[..., Child]
) -> None:
    first = start("ltx", saved("ltx"), saved("ltx"), "layerwise-offload", "stuck")
    assert first.says() == "stuck"
    second = start("ltx", saved("ltx"), saved("ltx"))
    while not waits_for_a_lock(second.process.pid):
        assert second.process.poll() is None
        time.sleep(0.05)
    first.process.kill()
    assert second.says()["masters"] == ["SharedMaster"]
    assert second.asked("run")["digest"] == digest_alone("layerwise-offload", "ltx", saved("ltx"))


def wide(directory: Path, copy: Path) -> Path:
    """The tiny FLUX with a denoiser of 100 MiB."""
    shutil.copytree(directory, copy)
    found: Any = FluxTransformer2DModel
    config = {**found.load_config(copy / "transformer"), "num_attention_heads": 24}
    model = found.from_config(config)
    shutil.rmtree(copy / "transformer")
    model.save_pretrained(copy / "transformer")
    return copy


def test_the_second_process_adds_no_memory_for_masters_and_a_resident_one_keeps_none(
    saved: Saved, tmp_path: Path, start: Callable[..., Child]
) -> None:
    model = wide(saved("flux"), tmp_path / "wide")
    masters = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    assert masters > 80 * MIB
    first = start("flux", model, model)
    alone = first.says()
    assert alone["shared"] == pytest.approx(masters, rel=0.02)
    assert alone["own"] < 0.2 * masters
    second = start("flux", model, model)
    assert second.says()["own"] < 0.2 * masters
    run = [each.asked("run") for each in (second, first)]  # so that both have all of it mapped by now
    assert sum(each["shared"] for each in run) == pytest.approx(masters, rel=0.02)
    assert run[0]["digest"] == run[1]["digest"]
    third = start("flux", model, model, "resident").says()
    assert third["masters"] == ["NoneType"]
    assert third["shared"] < 0.02 * masters
