"""Who holds a component that another process of the host holds has the same memory, and the bits of loading alone."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dealing import SLOW_UNLESS_TYPICAL
from engine_cases import digest_of
from given_files_matrix import FORMATS, made_world
from given_files_runs import output_of
from given_files_runs import plan_of as plan_of_file
from given_folders import Saved
from live_pipelines import STRATEGIES, live_pipeline
from plans import LAYERWISE, component_plan, plan_in
from roost.api.models.inspect import inspect_model
from roost.facts.loras import LoraFile
from roost.pipelines.formats import modules
from roost.plan.budget import HostTurn
from roost.plan.fields import Masters
from roost.plan.revision import revised
from roost.profiles.class_facts import load_class_facts
from roost.residency.hold.attach import Held
from roost.residency.run.components import load_component
from roost.residency.run.loras import LoraLoader
from roost.residency.run.sources import given_files
from roost.residency.run.sources.given_files import GivenFiles
from roost.residency.weights.fp8 import Fp8Linear, store_as_planned
from shared_worlds import copied_bytes, digest_alone, held, kinds, plan_of, wipe, without_weights
from tiny_loras import lora_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has memory files")


@pytest.mark.parametrize("strategy", SLOW_UNLESS_TYPICAL)
@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_who_joins_has_the_bits_of_loading_alone_and_reads_no_weights(
    name: str, strategy: str, saved: Saved, tmp_path: Path, folder: Path
) -> None:
    wanted = digest_alone(strategy, name, saved(name))
    model = without_weights(saved(name), tmp_path / "model")
    same_units = {"leaf_level": "leaf_level" in STRATEGIES[strategy]}
    plan, other = plan_of(model, STRATEGIES[strategy]), plan_of(model, {"strategy": "snapshot-offload", **same_units})
    with held(other, model, folder) as first:
        wipe(model)
        with held(plan, model, folder) as second:
            assert kinds(second) == ({"NoneType"} if strategy == "resident" else {"SharedMaster"})
            assert second.changes == first.changes == []
            found = [digest_of(each, name) for each in (second, first, second)]
            assert found == [wanted] * 3
            assert (second.transfers.pinned_bytes > 0) is strategy.startswith("layerwise")
            assert copied_bytes() == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["wan2.2", "qwen-image"])
def test_who_joins_has_what_the_loader_gave_beside_the_weights(name: str, saved: Saved, folder: Path) -> None:
    plan = plan_of(saved(name), LAYERWISE, torch.bfloat16)
    with held(plan, saved(name), folder) as first, held(plan, saved(name), folder) as second:
        assert kinds(second) == {"SharedMaster"}
        for component in plan.components:
            found = [getattr(each.pipeline, component) for each in (first, second)]
            mine, theirs = (dict(each.named_parameters()) for each in found)
            for key, weight in mine.items():
                assert (weight.dtype, weight.requires_grad) == (theirs[key].dtype, theirs[key].requires_grad)
            settings = [getattr(each, "generation_config", None) for each in found]
            assert settings[0] == settings[1]
        assert digest_of(first, name) == digest_of(second, name)


@pytest.mark.parametrize("form", ["GGUF Q8_0", "Comfy fp8 scaled, new"])
def test_packed_weights_of_a_given_file_are_read_once(
    form: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made_world("sd3", tmp_path)
    file = FORMATS[form](world, "sd3", tmp_path)
    plan = plan_of_file("sd3", world, file, "layerwise-offload")
    given = GivenFiles(
        files=inspect_model(world.folder, dtype="float32", files={"transformer": file}).given,
        class_facts=load_class_facts(),
    )
    read: list[bool] = []

    def build_from_file(*args: Any, with_data: bool) -> torch.nn.Module:
        read.append(with_data)
        return modules.build_from_file(*args, with_data=with_data)

    monkeypatch.setattr(given_files, "build_from_file", build_from_file)
    source = {"load": given.load, "given": given}
    with (
        torch.no_grad(),
        held(plan, world.folder, folder, **source) as first,
        held(plan, world.folder, folder, **source) as second,
    ):
        assert read == [True, False]
        assert kinds(second) == {"SharedMaster"}
        found = [output_of(each.pipeline, "sd3") for each in (first, second)]
    with torch.no_grad(), held(plan, world.folder, None, **source) as alone:
        assert [torch.equal(each, output_of(alone.pipeline, "sd3")) for each in found] == [True] * 2


def test_weights_stored_in_8_bits_are_read_and_rounded_once(saved: Saved, tmp_path: Path, folder: Path) -> None:
    model = without_weights(saved("flux"), tmp_path / "model")
    plan = plan_of(model, "snapshot-offload", torch.bfloat16)
    stored = {"storage": "float8_e4m3fn"}
    module = load_component("transformer", plan.components["transformer"], model)
    store_as_planned("transformer", module, plan.components["transformer"].model_copy(update=stored))
    placed = component_plan("transformer", module, strategy="snapshot-offload").model_copy(update=stored)
    plan = plan.model_copy(update={"components": {**plan.components, "transformer": placed}})
    with held(plan, model, None) as alone:
        wanted = digest_of(alone, "flux")
    with held(plan, model, folder):
        wipe(model)
        with held(plan, model, folder) as second:
            assert kinds(second, "transformer") == {"SharedMaster"}
            assert any(isinstance(each, Fp8Linear) for each in second.pipeline.transformer.modules())
            assert digest_of(second, "flux") == wanted


def test_fused_loras_are_in_the_shared_weights(saved: Saved, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")
    targets = {"transformer": ("to_q", "to_v"), "text_encoder": ("q_proj",)}
    lora_file(tmp_path / "lora.safetensors", live_pipeline("flux"), targets)
    lora = LoraFile(path=tmp_path / "lora.safetensors", scale=1.0, component=None, sha256="")
    plan = plan_of(saved("flux"), LAYERWISE)
    loaders = [LoraLoader(plan, [lora]) for _ in range(3)]
    with held(plan, saved("flux"), None, load=loaders[0]) as alone:
        wanted = digest_of(alone, "flux")
    assert wanted != digest_alone("layerwise-offload", "flux", saved("flux"))
    with (
        held(plan, saved("flux"), folder) as plain,
        held(plan, saved("flux"), folder, load=loaders[1]) as first,
        held(plan, saved("flux"), folder, load=loaders[2]) as second,
    ):
        assert kinds(second) == {"SharedMaster"}
        assert [digest_of(each, "flux") for each in (first, second)] == [wanted] * 2
        assert digest_of(plain, "flux") == digest_alone("layerwise-offload", "flux", saved("flux"))
    assert loaders[2].applied == loaders[0].applied


@pytest.mark.parametrize("tier", ["pinned", "pageable"])
def test_an_edit_in_place_is_one_process_s_own_and_what_it_computes_with(tier: str, saved: Saved, folder: Path) -> None:
    plan, model = plan_in(saved("flux"), LAYERWISE, tier), saved("flux")

    def edit(made: Held) -> str:
        made.pipeline.transformer.transformer_blocks[1].attn.to_q.weight.data.mul_(-1)
        return digest_of(made, "flux")

    with held(plan, model, None) as alone:
        before, edited = digest_of(alone, "flux"), edit(alone)
    assert edited != before
    with held(plan, model, folder) as first, held(plan, model, folder) as second:
        assert digest_of(second, "flux") == before
        assert edit(second) == edited
        assert kinds(second, "transformer") == {"SharedMaster"}
        assert [digest_of(each, "flux") for each in (first, second)] == [before, edited]
        assert 0 < copied_bytes() < 64 * 1024
    with held(plan, model, folder) as first:
        assert digest_of(first, "flux") == before


def test_a_change_of_dtype_makes_copies_and_back_finds_the_shared_weights(saved: Saved, folder: Path) -> None:
    plan = plan_of(saved("flux"), "snapshot-offload")
    with held(plan, saved("flux"), folder) as first, held(plan, saved("flux"), folder) as second:
        before = digest_of(second, "flux")
        second.pipeline.vae.to(torch.float64)
        assert kinds(second, "vae") == {"Master"}
        second.pipeline.vae.to(torch.float32)
        assert [digest_of(each, "flux") for each in (first, second)] == [before] * 2


def test_weights_are_plain_memory_of_their_own_process_after_the_close(saved: Saved, folder: Path) -> None:
    plan, model = plan_of(saved("ltx"), LAYERWISE), saved("ltx")
    with held(plan, model, folder) as first:
        with held(plan, model, folder) as second:
            pass
        weight = second.pipeline.transformer.proj_out.weight
        wanted = weight.detach().clone()
        weight.data.zero_()
        assert torch.equal(first.pipeline.transformer.proj_out.weight.detach(), wanted)


def test_nothing_is_open_or_mapped_when_the_last_is_gone(saved: Saved, folder: Path) -> None:
    plan = plan_of(saved("ltx"), LAYERWISE)

    def mapped() -> int:
        gc.collect()
        names = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return (Path("/proc/self/maps").read_text(encoding="utf-8") + "".join(names)).count("memfd:roost")

    before = mapped()
    with held(plan, saved("ltx"), folder) as first, held(plan, saved("ltx"), folder) as second:
        assert mapped() > before
    del first, second
    assert mapped() == before


def test_masters_that_stay_in_files_do_and_the_rest_is_shared(saved: Saved, folder: Path) -> None:
    plan = plan_in(saved("ltx"), LAYERWISE, "pageable")
    placed = plan.components["transformer"].model_copy(update={"master": Masters(pinned=0, pageable=1, mapped=3)})
    plan = plan.model_copy(update={"components": {**plan.components, "transformer": placed}})
    with held(plan, saved("ltx"), folder), held(plan, saved("ltx"), folder) as second:
        assert kinds(second, "transformer") == {"SharedMaster", "MappedMaster"}
        assert digest_of(second, "ltx") == digest_alone("layerwise-offload", "ltx", saved("ltx"))
        assert second.changes == []


def test_what_is_loaded_in_a_way_of_its_own_is_compared_and_shared_where_it_is_the_same(
    saved: Saved, folder: Path
) -> None:
    plan, model = plan_of(saved("ltx"), LAYERWISE), saved("ltx")
    loaded: list[str] = []

    def load(name: str, placed: Any, directory: Path) -> torch.nn.Module:
        module = load_component(name, placed, directory)
        if name == "transformer" and len(loaded) > len(plan.components):
            module.transformer_blocks[2].attn1.to_q.weight.data.mul_(-1)
        loaded.append(name)
        return module

    plan = plan.model_copy(update={"load_order": ["vae", "text_encoder", "transformer"]})
    with held(plan, model, folder, load=load) as first, held(plan, model, folder, load=load) as second:
        assert len(loaded) == 2 * len(plan.components)
        assert kinds(first) == kinds(second, "vae") == kinds(second, "text_encoder") == {"SharedMaster"}
        units = second.runtime.components["transformer"].units
        own = [name for name, unit in units.items() if type(unit.master).__name__ == "Master"]
        assert own == ["transformer_blocks.2"]
        assert [each.split(":")[0] for each in second.changes] == ["transformer"]
        assert digest_of(first, "ltx") != digest_of(second, "ltx")


def test_other_weights_of_the_same_component_are_not_joined(saved: Saved, tmp_path: Path, folder: Path) -> None:
    model = without_weights(saved("ltx"), tmp_path / "model")
    plan = plan_of(model, LAYERWISE)
    with held(plan, model, folder) as first, held(plan_of(model, LAYERWISE, torch.bfloat16), model, folder) as lower:
        assert {each.dtype for each in first.pipeline.transformer.parameters()} == {torch.float32}
        assert torch.bfloat16 in {each.dtype for each in lower.pipeline.transformer.parameters()}
        path = model / "transformer" / "diffusion_pytorch_model.safetensors"
        os.utime(path, ns=(0, 0))  # as one that was fetched again has another time
        with held(plan, model, folder):
            announced = {each.name.split(".")[0] for each in folder.glob("transformer-*.held")}
            assert len(announced) == 3
    assert list(folder.iterdir()) == []


def test_what_comes_late_is_each_process_s_own(saved: Saved, folder: Path) -> None:
    plan = plan_in(saved("ltx"), LAYERWISE, "pageable")
    sizes = {name: each.load_bytes for name, each in plan.components.items()}
    turns = [
        HostTurn(component="text_encoder", masters={"text_encoder": sizes["text_encoder"]}, host_bytes=0),
        HostTurn(component="transformer", masters={"transformer": sizes["transformer"]}, host_bytes=0),
    ]
    plan = revised(plan, budget=revised(plan.budget, host_turns=turns))
    with held(plan, saved("ltx"), folder) as made:
        assert {each.name.split("-")[0] for each in folder.iterdir()}.isdisjoint(plan.budget.late)
        assert digest_of(made, "ltx") == digest_alone("layerwise-offload", "ltx", saved("ltx"))


def test_resident_components_wait_for_nobody_and_leave_nothing(saved: Saved, folder: Path) -> None:
    plan, inside = plan_of(saved("ltx"), "resident"), []

    def load(name: str, placed: Any, directory: Path) -> torch.nn.Module:
        inside.extend(folder.iterdir())
        return load_component(name, placed, directory)

    with held(plan, saved("ltx"), folder, load=load) as made:
        assert [*inside, *folder.iterdir()] == []
        assert kinds(made) == {"NoneType"}
