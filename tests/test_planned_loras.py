"""Plans with LoRAs: bytes as the runtime has them, work as a dry run finds it, and one line for what is wrong."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DiTPipeline
from safetensors.torch import save_file

import roost
from live_pipelines import live_pipeline, own_pipeline
from plans import LAYERWISE, plan_for
from roost.api.models.inspect import inspect_model, profile_of
from roost.api.models.loras import with_loras
from roost.cli.app import run
from roost.errors import UsageError
from roost.facts.loras import LoraFile
from roost.facts.request import Workload
from roost.pipelines.adapters import check_loras
from roost.plan import PlanDocument, read_plan
from roost.planner.buffers import all_buffers, block_buffers, can_be_mapped, can_come_late
from roost.planner.side_paths import with_work
from roost.probes.dry_run import DryRunOptions, dry_run_live
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.live_inventory import read_live_inventory
from roost.residency.run.loader import Source, load_held
from roost.residency.run.loras import LoraLoader
from roost.trace import Trace
from tiny_loras import lora_file
from tiny_models import build

pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")

TARGETS = {
    "wan2.2": {"transformer": ("to_q", "to_v")},
    "flux": {"transformer": ("to_q", "to_v", "proj_mlp", "x_embedder"), "text_encoder": ("q_proj",)},
    "sdxl": {"unet": ("to_q", "to_v")},
}
OPTIONS = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--size", "64x64", "--steps", "2")
Saved = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Directories of tiny pipelines by family, each with ``lora.safetensors`` beside its model."""

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("lora")
        lora_file(folder / "lora.safetensors", live_pipeline(name), TARGETS[name])
        build(name, folder / "model")
        return folder

    return make


def lora(folder: Path, *, fuse: bool | None = False) -> LoraFile:
    return LoraFile(path=folder / "lora.safetensors", scale=0.7, component=None, sha256="0" * 64, fuse=fuse)


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_are_counted_in_the_buffers_in_which_they_lie(name: str, saved: Saved) -> None:
    folder = saved(name)
    inventory = inspect_model(str(folder / "model"), dtype="float32")
    adapted = with_loras(inventory, [lora(folder)])
    plan = plan_for(live_pipeline(name), LAYERWISE)
    held = [
        load_held(plan, folder / "model", EmulatedDevice(2**30), source=Source(load=LoraLoader(plan, loras)))
        for loras in ([], [lora(folder)])
    ]
    for component in TARGETS[name]:
        plain, now = (each.runtime.components[component] for each in held)
        before, counted = inventory.component(component), adapted.inventory.component(component)
        more = [one - other for one, other in zip(block_buffers(counted), block_buffers(before), strict=True)]
        assert more == [one - other for one, other in zip(now.block_bytes, plain.block_bytes, strict=True)]
        trunk = now.trunk_bytes - plain.trunk_bytes
        assert all_buffers(counted) - all_buffers(before) == sum(more) + trunk
        assert sum(each.bytes for each in adapted.loras if each.component == component) == sum(more) + trunk > 0
    for each in held:
        each.close()


def traced(pipeline: object) -> Trace:
    inventory = read_live_inventory(pipeline, lambda index, configs: None)
    workload = Workload(width=64, height=64, frames=None, steps=2, batch=1, guidance=1.0)
    options = DryRunOptions(guidance_argument=profile_of(inventory).guidance_argument)
    return dry_run_live(pipeline, inventory, workload, options)


def test_work_and_activations_are_about_those_of_a_dry_run_with_the_adapters(saved: Saved) -> None:
    folder, pipeline = saved("flux"), own_pipeline("flux")
    adapted = with_loras(inspect_model(str(folder / "model"), dtype="float32"), [lora(folder)])
    plain = traced(pipeline)
    counted = with_work(plain, adapted.inventory.components, adapted.adapters)
    pipeline.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="it")
    found = traced(pipeline)
    for before, guessed, true in zip(plain.uses, counted.uses, found.uses, strict=True):
        if before.component not in TARGETS["flux"]:
            assert guessed == before
            continue
        assert sum(each.kernels for each in guessed.totals.values()) == sum(
            each.kernels for each in true.totals.values()
        )
        added, really = guessed.flops - before.flops, true.flops - before.flops
        assert 0.5 * really < added < 2 * really, (before.component, added, really)
        assert guessed.activation_bytes.peak_bytes >= true.activation_bytes.peak_bytes > 0


def test_weights_beside_which_something_is_computed_are_not_stored_in_8_bits(saved: Saved) -> None:
    folder = saved("flux")
    adapted = with_loras(inspect_model(str(folder / "model"), dtype="float32"), [lora(folder)])
    trace = traced(live_pipeline("flux"))
    assert with_work(trace, adapted.inventory.components, adapted.adapters).linears_of("transformer") is None


def test_masters_of_weights_with_a_lora_are_there_from_the_start_and_fused_ones_in_no_file(saved: Saved) -> None:
    folder = saved("flux")
    for fuse, mapped in ((True, False), (False, True)):
        component = with_loras(
            inspect_model(str(folder / "model"), dtype="float32"), [lora(folder, fuse=fuse)]
        ).inventory.component("transformer")
        assert can_be_mapped(component) is mapped
        assert not can_come_late(component)


def planned(folder: Path, tmp_path: Path, *more: str) -> Path:
    path = tmp_path / f"{'-'.join(more).replace('/', '_')[-40:]}.yaml"
    assert run(["plan", str(folder / "model"), *OPTIONS, *more, "-o", str(path)]) == 0
    return path


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    capsys.readouterr()
    assert run(["run", *words, "--prompt", "a fox", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("more", [(), ("--no-fuse",)])
def test_a_run_applies_the_plan_s_loras_as_one_that_types_them(
    more: tuple[str, ...], saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved("flux")
    typed = ("--lora", f"{folder / 'lora.safetensors'}:0.7", *more)
    path = planned(folder, tmp_path, *typed)
    plan = read_plan(path)
    assert [(each.component, each.scale, each.fused) for each in plan.loras] == [
        (name, 0.7, not more) for name in ("transformer", "text_encoder")
    ]
    assert all((each.bytes == 0) is each.fused for each in plan.loras)
    by_plan = ran(capsys, str(path))
    unknowing = ran(capsys, str(planned(folder, tmp_path)), *typed)
    assert by_plan["digest"] == unknowing["digest"]
    assert [each["components"] for each in by_plan["loras"]] == [["transformer", "text_encoder"]]
    assert [each["beside"] for each in by_plan["loras"]] == [
        each["components"] if more else [] for each in by_plan["loras"]
    ]
    counts = "which the plan doesn't count"
    assert [any(counts in each for each in record["changes"]) for record in (by_plan, unknowing)] == [False, bool(more)]
    assert by_plan["peak_bytes"] <= plan.predicted.peak_bytes.high


def test_a_pipeline_loaded_in_python_has_the_plan_s_adapters(saved: Saved) -> None:
    folder = saved("flux")
    plan: PlanDocument = roost.make_plan(
        str(folder / "model"), gpu="emulated", vram="64MiB", headroom=0, size="64x64", steps=2,
        lora=str(folder / "lora.safetensors"), fuse=False,
    )  # fmt: skip
    pipeline = roost.load_pipeline(plan)
    assert pipeline.get_list_adapters() == {"transformer": ["lora_2"], "text_encoder": ["lora_2"]}
    roost.detach(pipeline)


@pytest.mark.slow
def test_a_bench_tries_the_model_with_its_loras(saved: Saved) -> None:
    folder, options = saved("flux"), {"gpu": "emulated", "vram": "64MiB", "headroom": 0, "size": "64x64"}
    digests = set()
    for more in ({}, {"lora": [str(folder / "lora.safetensors")], "fuse": False}):
        results = roost.bench(
            str(folder / "model"), **options, **more, strategies="resident,snapshot-offload", rounds=1, trial_steps=1
        )
        tried = [each.result for each in results.rows if each.result.status != "skipped"]
        (digest,) = {each.digest for each in tried}
        digests.add(digest)
    assert len(digests) == 2


def test_a_lora_that_changed_since_the_plan_is_refused(saved: Saved, tmp_path: Path, capsys) -> None:
    folder = saved("flux")
    mine = shutil.copy(folder / "lora.safetensors", tmp_path / "mine.safetensors")
    path = planned(folder, tmp_path, "--lora", str(mine))
    lora_file(Path(mine), live_pipeline("flux"), TARGETS["flux"], seed=3)
    assert run(["run", str(path), "--prompt", "a fox"]) == 4
    assert "which has changed; plan again" in capsys.readouterr().err
    Path(mine).unlink()
    assert run(["run", str(path), "--prompt", "a fox"]) == 2


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--no-fuse",), "--no-fuse says how LoRAs are had, and there is none"),
        (("--fuse",), "--fuse says how LoRAs are had, and there is none"),
        (("--lora", "{flux}:inf"), "no such file|can't be opened|is not a .safetensors"),
        (("--lora", "{flux}:1e999"), "the scale must be a number"),
        (("--lora", "{flux}"), "does not fit WanPipeline"),
        (("--lora", "vae={wan}"), "takes LoRAs for transformer, transformer_2 only"),
        (("--lora", "unet={wan}"), "has no component 'unet'"),
        (("--lora", "{plain}"), "holds no LoRA"),
        (("--lora", "{folder}/absent.safetensors"), "can't be opened"),
    ],
)
def test_what_is_no_lora_for_the_model_is_refused_in_one_line(
    words: tuple[str, ...], said: str, command: str, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file({"blocks.0.weight": torch.zeros(2)}, plain)
    names = {"flux": saved("flux") / "lora.safetensors", "wan": saved("wan2.2") / "lora.safetensors", "plain": plain}
    typed = [each.format(folder=tmp_path, **names) for each in words]
    model = str(saved("wan2.2") / "model")
    about = ["--prompt", "a fox"] if command == "run" else []
    assert run([command, model, *OPTIONS, "--frames", "5", "--policy", "rules", *typed, *about]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(said, error), error
    assert error.startswith("error: ")


def test_a_pipeline_that_takes_no_lora_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DiTPipeline takes no LoRA in diffusers; leave --lora out"):
        check_loras(DiTPipeline, ["transformer", "vae"], [lora(tmp_path)])
