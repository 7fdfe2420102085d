"""A pipeline loads from its directory in the plan's order and placed; what can't be loaded safely is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from dealing import slow
from dry_runs import tiny_options, tiny_workload
from given_folders import Saved
from live_pipelines import SIX_FAMILIES, held_by, request_for, weights_bytes
from plans import LAYERWISE, plan_for
from roost.api.models.inspect import inspect_model
from roost.errors import InvalidFile, OutOfMemory, PlanMismatch, RoostError, UsageError
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.probes.dry_run import dry_run
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.run.generate import generate
from roost.residency.run.loader import load_held

GIB = 1024**3


@pytest.fixture
def ltx(saved: Saved, tmp_path: Path) -> Path:
    """A copy of the LTX directory that a test may change."""
    return Path(shutil.copytree(saved("ltx"), tmp_path / "ltx"))


def read_pipeline(directory: Path, **options: Any) -> Any:
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(directory, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(plan: PlanDocument, directory: Path, budget_bytes: int = GIB, **options: Any) -> Held:
    return load_held(plan, directory, EmulatedDevice(budget_bytes), **options)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", ["resident", LAYERWISE], ids=["resident", "layerwise"])
@pytest.mark.parametrize("name", [*SIX_FAMILIES[:3], *slow(*SIX_FAMILIES[3:])])
def test_a_loaded_pipeline_gives_the_bits_of_the_library_s_own(name: str, strategy: Any, saved: Saved) -> None:
    pipeline = read_pipeline(saved(name))
    with held_by(pipeline, plan_for(pipeline)) as held:  # copied: mapped weights lie unaligned and may round otherwise
        wanted = generate(held, request_for(name)).digest
    with load(plan_for(pipeline, strategy), saved(name)) as held:
        assert type(held.pipeline) is type(pipeline)
        assert generate(held, request_for(name)).digest == wanted


def test_components_load_in_the_plan_s_order_and_each_is_placed_before_the_next(saved: Saved) -> None:
    pipeline = read_pipeline(saved("flux"))
    plan = plan_for(pipeline)
    plan = plan.model_copy(update={"load_order": ["transformer", "text_encoder_2", "vae", "text_encoder"]})
    device = EmulatedDevice(GIB)
    begun: list[tuple[str, int]] = []
    with load_held(plan, saved("flux"), device, on_component=lambda name: begun.append((name, device.used_bytes))):
        assert [name for name, _ in begun] == plan.load_order
        sizes = [weights_bytes(pipeline.components[name]) for name in plan.load_order]
        assert [used for _, used in begun] == [sum(sizes[:index]) for index in range(4)]
    assert device.used_bytes == 0


def test_weights_are_in_the_planned_dtype_and_what_a_class_keeps_in_float32_stays(saved: Saved) -> None:
    pipeline = read_pipeline(saved("wan2.2"), torch_dtype=torch.bfloat16)
    with load(plan_for(pipeline, "snapshot-offload"), saved("wan2.2")) as held:
        for name, module in pipeline.components.items():
            if isinstance(module, torch.nn.Module):
                wanted = {key: each.dtype for key, each in module.state_dict().items()}
                loaded = held.pipeline.components[name]
                assert {key: each.dtype for key, each in loaded.state_dict().items()} == wanted
                assert not loaded.training
        assert {each.dtype for each in held.pipeline.transformer.parameters()} == {torch.bfloat16, torch.float32}


def test_a_null_component_stays_absent(saved: Saved, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(saved("wan2.2"), tmp_path / "wan"))
    change_index(directory, transformer_2=[None, None], boundary_ratio=None)
    plan = plan_for(read_pipeline(directory), "snapshot-offload")
    assert "transformer_2" not in plan.components
    with load(plan, directory) as held:
        assert held.pipeline.transformer_2 is None
        stages = generate(held, request_for("wan2.2")).stages
    assert [stage.name for stage in stages] == ["text encode", "denoise", "decode"]


@pytest.fixture
def without_t5(saved: Saved, tmp_path: Path) -> Path:
    directory = Path(shutil.copytree(saved("sd3"), tmp_path / "sd3"))
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(directory / name)
    change_index(directory, text_encoder_3=[None, None], tokenizer_3=[None, None])
    return directory


def test_a_null_component_stays_absent_where_the_library_asks_for_it(without_t5: Path) -> None:
    plan = plan_for(read_pipeline(without_t5, text_encoder_3=None, tokenizer_3=None), "snapshot-offload")
    with load(plan, without_t5) as held:
        assert held.pipeline.text_encoder_3 is None
        assert {stage.component for stage in generate(held, request_for("sd3")).stages} == set(plan.components)
    trace = dry_run(
        without_t5, inspect_model(without_t5), tiny_workload("sd3"), load_class_facts(), tiny_options("sd3")
    )
    assert {use.component for use in trace.uses} == set(plan.components)


def test_an_index_that_lacks_a_component_is_one_line_with_the_remedy(without_t5: Path) -> None:
    plan = plan_for(read_pipeline(without_t5, text_encoder_3=None, tokenizer_3=None))
    change_index(without_t5, text_encoder_3=None)
    refused(without_t5, plan, InvalidFile, r'lacks text_encoder_3: .*"text_encoder_3": \[null, null\]')


def test_a_variant_is_taken_where_a_component_has_it(ltx: Path) -> None:
    weights = ltx / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    pipeline = read_pipeline(ltx, variant="fp16")
    plan = plan_for(pipeline)
    varied = plan.components["vae"].model_copy(update={"variant": "fp16"})
    plan = plan.model_copy(update={"components": {**plan.components, "vae": varied}})
    with load(plan, ltx) as held:
        for name, weight in held.pipeline.vae.named_parameters():
            assert torch.equal(weight, pipeline.vae.get_parameter(name))


def test_resident_weights_that_fit_in_no_way_are_out_of_memory_that_names_the_component(saved: Saved) -> None:
    pipeline = read_pipeline(saved("ltx"))
    with pytest.raises(OutOfMemory, match=r"^placing vae: .*emulated.*vram=") as caught:
        load(plan_for(pipeline), saved("ltx"), budget_bytes=1024)
    assert "\n" not in str(caught.value)


def test_a_load_that_fails_leaves_torch_s_default_dtype_alone(ltx: Path) -> None:
    plan = plan_for(read_pipeline(ltx, torch_dtype=torch.bfloat16))
    config = ltx / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": None}))
    try:
        refused(ltx, plan, InvalidFile, "transformer")
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_fsdp_plan_asks_for_torchrun(saved: Saved) -> None:
    with pytest.raises(UsageError, match="torchrun"):
        load(plan_for(read_pipeline(saved("ltx")), "fsdp"), saved("ltx"))


def change_index(directory: Path, **entries: object) -> None:
    path = directory / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refused(directory: Path, plan: PlanDocument, error: type[RoostError], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        load(plan, directory)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (["os", "system"], "component library 'os'"),
        (["my_code", "Model"], "component library 'my_code'"),
        (["diffusers.models", "AutoencoderKL"], "component library 'diffusers.models'"),
        (["__builtins__", "eval"], "component library '__builtins__'"),
        (["diffusers", "logging"], "'logging' is not a loadable class"),
        (["diffusers", "_Absent"], "'_Absent' is not a loadable class"),
        (["transformers", "AbsentModel\x1b[31m"], r"\\x1b"),
        (["diffusers", "UNet2DModel", "x"], "not \\[library, class\\]"),
        ([1, 2], "not \\[library, class\\]"),
    ],
)
def test_an_index_that_names_other_code_is_refused_before_anything_loads(entry: Any, named: str, ltx: Path) -> None:
    plan = plan_for(read_pipeline(ltx))
    change_index(ltx, scheduler=entry)
    refused(ltx, plan, InvalidFile, named)


def test_code_in_the_directory_is_not_run(ltx: Path, tmp_path: Path) -> None:
    plan = plan_for(read_pipeline(ltx))
    for place in (ltx / "vae" / "my_code.py", ltx / "my_code.py", ltx / "pipeline.py"):
        place.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\n")
    change_index(ltx, vae=["my_code", "Model"])
    refused(ltx, plan, InvalidFile, "component library 'my_code'")
    change_index(ltx, vae=["diffusers", "AutoencoderKLLTXVideo"], _class_name=["pipeline", "Model"])
    refused(ltx, plan, PlanMismatch, "make a plan for this model")
    assert not (tmp_path / "ran").exists()


def test_a_plan_for_an_unknown_pipeline_class_is_refused(ltx: Path) -> None:
    plan = plan_for(read_pipeline(ltx))
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"pipeline": "AutoencoderKL"})})
    change_index(ltx, _class_name="AutoencoderKL")
    refused(ltx, plan, InvalidFile, "'AutoencoderKL' is not a pipeline class")


def test_a_component_that_the_plan_does_not_place_is_refused(ltx: Path) -> None:
    plan = plan_for(read_pipeline(ltx))
    change_index(ltx, image_encoder=["transformers", "CLIPVisionModelWithProjection"])
    refused(ltx, plan, PlanMismatch, "'image_encoder' is in the model but not in the plan")


def weights_file(directory: Path) -> Path:
    return directory / "transformer" / "diffusion_pytorch_model.safetensors"


def drop_a_weight(directory: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights_file(directory))
    del tensors["proj_in.weight"]
    save_file(tensors, weights_file(directory))


def only_a_pickle(directory: Path) -> None:
    weights_file(directory).rename(directory / "transformer" / "diffusion_pytorch_model.bin")


def cut_short(directory: Path) -> None:
    weights_file(directory).write_bytes(weights_file(directory).read_bytes()[:-100])


def fewer_layers(directory: Path) -> None:
    path = directory / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": 1}))


def malformed_config(directory: Path) -> None:
    (directory / "transformer" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "error", "named"),
    [
        (drop_a_weight, InvalidFile, "'transformer': its files lack 1 weights .*'proj_in.weight'"),
        (only_a_pickle, InvalidFile, "component 'transformer' can't be loaded"),
        (cut_short, InvalidFile, "component 'transformer' can't be loaded"),
        (fewer_layers, PlanMismatch, "transformer: the stack 'transformer_blocks' is 1 blocks"),
        (malformed_config, InvalidFile, "component 'transformer' can't be loaded"),
    ],
)
def test_a_broken_component_is_one_line_that_names_it(
    harm: Callable[[Path], None], error: type[RoostError], named: str, ltx: Path
) -> None:
    plan = plan_for(read_pipeline(ltx))
    harm(ltx)
    refused(ltx, plan, error, named)


def test_loading_and_generating_print_nothing_and_leave_the_libraries_as_talkative_as_before(
    saved: Saved, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    plan = plan_for(read_pipeline(saved("ltx")))
    capfd.readouterr()
    with load(plan, saved("ltx")) as held:
        generate(held, request_for("ltx"))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
