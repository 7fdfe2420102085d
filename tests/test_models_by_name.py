"""A model known by its name alone gives the inventory and plan of its directory, and its plan binds to it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from huggingface_hub.serialization import split_state_dict_into_shards_factory
from hypothesis import given
from hypothesis import strategies as st

from real_models import RealModel
from roost.api.models.inspect import inspect_model, structure_fingerprint
from roost.api.models.published import materialise_configs, write_model_directory
from roost.api.plans.plan import make_plan
from roost.api.plans.preflight import model_differences
from roost.api.runs import ready
from roost.cli.app import run
from roost.errors import InvalidFile, PlanMismatch, UsageError
from roost.facts.machine import HostFacts
from roost.facts.model import Inventory
from roost.pipelines.build import check_installed
from roost.plan import PlanDocument
from roost.profiles import published
from roost.profiles.models import load_model_profiles
from roost.profiles.published import expand, load_published_model, model_names
from tensor_trees import fold

EVERY_NAME = pytest.mark.parametrize("name", model_names())
CARD = {"gpu": "rtx-4090", "ram": "96GiB"}
MAX_PACKAGE_BYTES = 10**6


def _same_but_for_the_path(named: Inventory, found: Inventory) -> None:
    assert (named.path, named.source, found.source) == (None, "name", "directory")
    assert named.fingerprint == structure_fingerprint(found)
    for field in fields(Inventory):
        if field.name not in ("path", "source", "fingerprint"):
            assert getattr(named, field.name) == getattr(found, field.name), field.name


@EVERY_NAME
def test_a_name_gives_the_inventory_of_its_directory(name: str, real_model: RealModel) -> None:
    _same_but_for_the_path(inspect_model(name), inspect_model(real_model(name)))


def test_a_variant_of_a_name_gives_the_inventory_of_that_variant(real_model: RealModel) -> None:
    named = inspect_model("sdxl", variant="fp16")
    _same_but_for_the_path(named, inspect_model(real_model("sdxl"), variant="fp16"))
    assert {component.variant for component in named.components} == {"fp16"}


def _comparable(plan: PlanDocument) -> dict[str, object]:
    document = plan.model_dump(mode="json")
    for key in ("path", "source", "fingerprint", "files"):
        del document["model"][key]
    return document


@EVERY_NAME
def test_a_name_gives_the_rule_plan_of_its_directory(
    name: str, real_model: RealModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where neither has been dry-run
    named = make_plan(name, policy="rules", **CARD)
    assert _comparable(named) == _comparable(make_plan(real_model(name), policy="rules", **CARD))
    assert (named.model.path, named.model.files, named.model.family) == (None, {}, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "wan2.1-t2v-1.3b" else pytest.mark.slow, id=name)
        for name in model_names()
    ],
)
def test_a_name_gives_the_searched_plan_of_its_directory(name: str, real_model: RealModel) -> None:
    try:
        check_installed(json.loads(load_published_model(name).documents["model_index.json"]))
    except InvalidFile as missing:
        pytest.skip(str(missing))
    video = load_model_profiles()[name].task == "video"
    options = {**CARD, "size": "256x256", "steps": 2, **({"frames": 9} if video else {})}
    named, found = make_plan(name, **options), make_plan(real_model(name), **options)
    assert named.trace is not None
    assert named.trace.source == "dry-run"
    assert named.trace.uses
    one, other = _comparable(named), _comparable(found)
    for document in (one, other):
        document["trace"].pop("seconds")  # each was traced by itself
    assert one == other


def test_rules_by_name_need_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from roost.cli.app import run\n"
        "assert run(['plan', 'wan2.2-t2v-a14b', '--policy', 'rules', '--gpu', 'rtx-4090', '--ram', '96GiB']) == 0\n"
        "assert run(['models']) == 0\n"
        f"assert run(['model-dir', 'flux.1-dev', {str(tmp_path / 'flux')!r}, '--sparse']) == 0\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_an_existing_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "sdxl").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(["inspect", "sdxl"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_a_misspelt_name_gets_the_near_ones_in_one_line(capsys) -> None:
    assert run(["plan", "wan2.2-t2v-14b", "--gpu", "rtx-4090"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean wan2.2-t2v-a14b" in error
    assert inspect_model("WAN2.2-T2V-A14B").family == "wan2.2-t2v-a14b"


@pytest.fixture(scope="module")
def sdxl_plan() -> PlanDocument:
    return make_plan("sdxl", gpu="emulated", vram="24GiB", ram="64GiB", policy="rules")


def test_a_plan_by_name_binds_to_its_directory(
    sdxl_plan: PlanDocument, real_model: RealModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = HostFacts(available_bytes=2**40, pinnable_bytes=2**40, source="made up")
    monkeypatch.setattr(ready, "read_host", lambda **_: host)
    checked = ready.check_plan(sdxl_plan, model=str(real_model("sdxl")))
    assert (checked.model_dir, checked.changes) == (real_model("sdxl"), ())


def test_a_plan_by_name_binds_to_the_same_model_in_another_stored_dtype(
    sdxl_plan: PlanDocument, real_model: RealModel
) -> None:
    halved = inspect_model(real_model("sdxl"), variant="fp16")
    assert {component.load_dtype for component in halved.components} == {"float16"}
    assert model_differences(sdxl_plan, halved) == []


def test_a_plan_by_name_refuses_another_model_with_the_difference(
    sdxl_plan: PlanDocument, real_model: RealModel
) -> None:
    with pytest.raises(PlanMismatch, match="the plan is for a StableDiffusionXLPipeline, here is 'FluxPipeline'"):
        ready.check_plan(sdxl_plan, model=str(real_model("flux.1-dev")))


def test_a_plan_by_name_refuses_other_blocks_and_one_turned_tensor(real_model: RealModel, tmp_path: Path) -> None:
    plan = make_plan("wan2.1-t2v-14b", policy="rules", **CARD)
    assert model_differences(plan, inspect_model(real_model("wan2.1-t2v-1.3b"))) == [
        "transformer: blocks 40 'blocks' planned, 30 'blocks' found"
    ]
    directory = tmp_path / "turned"
    write_model_directory("wan2.1-t2v-14b", directory, sparse=True)
    with (directory / "vae" / "diffusion_pytorch_model.safetensors").open("r+b") as file:
        head = file.read(100_000)
        file.seek(head.index(b'"shape":[96,3,3,3,3]'))
        file.write(b'"shape":[3,96,3,3,3]')
    assert model_differences(plan, inspect_model(directory)) == [
        "its tensors differ from wan2.1-t2v-14b's in names or shapes"
    ]


def test_a_plan_by_name_asks_for_the_directory(sdxl_plan: PlanDocument) -> None:
    for model in (None, "sdxl"):
        with pytest.raises(UsageError, match="model="):
            ready.check_plan(sdxl_plan, model=model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flux.1-dev", "new"), "hf download black-forest-labs/FLUX.1-dev"),
        (("flux.1-dev", "full", "--sparse"), "not empty"),
        (("flux.1-dev", "file", "--sparse"), "can't write"),
        (("flux", "new", "--sparse"), "roost models lists them"),
    ],
)
def test_model_dir_refuses_in_one_line_and_writes_nothing(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(["model-dir", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_configs_alone_are_the_directory_without_weights(tmp_path: Path, real_model: RealModel) -> None:
    materialise_configs(load_published_model("wan2.1-i2v-14b"), tmp_path)
    whole = real_model("wan2.1-i2v-14b")
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    others = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()} - written.keys()
    assert all((whole / path).read_bytes() == content for path, content in written.items())
    assert {path.suffix for path in others} == {".safetensors"}


def test_models_json_lists_every_name_with_sizes_and_workload(capsys) -> None:
    assert run(["models", "--json"]) == 0
    models = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert tuple(models) == model_names()
    wan = models["wan2.2-t2v-a14b"]
    assert (wan["task"], wan["workload"]["frames"]) == ("video", 81)
    assert wan["bytes"] == pytest.approx(126.2e9, rel=0.001)
    assert {each["name"]: round(each["load_bytes"] / 1e9, 1) for each in wan["components"]} == {
        "text_encoder": 11.4,
        "transformer": 28.6,
        "transformer_2": 28.6,
        "vae": 0.5,
    }


def test_package_data_stays_small() -> None:
    folder = Path(published.__file__).parent
    files = [folder / "tensors.json", folder / "tokenizers.json", *(folder / "families").glob("*.json")]
    assert sum(path.stat().st_size for path in files) < MAX_PACKAGE_BYTES


def _block_counts(name: str, component: str) -> list[int]:
    return sorted(stack.count for stack in inspect_model(name).component(component).stacks)


def test_published_facts_hold() -> None:
    sd3 = inspect_model("sd3.5-large").component("transformer")
    assert {round(size / 1e6) for size in sd3.stacks[0].block_bytes} == {272, 426}
    assert sd3.stacks[0].block_bytes.index(min(sd3.stacks[0].block_bytes)) == 37
    assert dict(expand(published._tree("sd3.5-large", "transformer")))["pos_embed.pos_embed"] == [1, 192**2, 2432]
    assert _block_counts("hunyuanvideo", "transformer") == [2, 20, 40]
    assert _block_counts("z-image", "transformer") == [2, 2, 30]
    assert _block_counts("flux.1-dev", "transformer") == [19, 38]
    assert _block_counts("chroma", "transformer") == [5, 19, 38]
    assert _block_counts("flux.2-klein-9b", "transformer") == [8, 24]
    assert _block_counts("wan2.1-vace-1.3b", "transformer") == [15, 30]
    stored = {name: inspect_model(name).components for name in ("hunyuanvideo", "ltx-video")}
    assert {dtype for each in stored["hunyuanvideo"] for dtype in each.bytes_by_dtype} == {"BF16", "F16", "F32"}
    assert {dtype for each in stored["ltx-video"] for dtype in each.bytes_by_dtype} == {"F32"}
    assert "unused: 40 stored tensors" in inspect_model("wan2.1-i2v-14b").component("transformer").notes[0]


@pytest.mark.parametrize("name", ["qwen-image", "wan2.1-t2v-14b", "cogvideox-5b"])
def test_shards_are_split_as_huggingface_hub_splits_them(name: str) -> None:
    family = json.loads((Path(published.__file__).parent / "families" / f"{name}.json").read_text())
    item_bytes = {"F32": 4, "BF16": 2}[family["weights"]["transformer"][0]["dtype"]]
    shapes = dict(expand(published._tree(name, "transformer")))
    split = split_state_dict_into_shards_factory(
        shapes,
        get_storage_size=lambda shape: item_bytes * _product(shape),
        filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
        max_shard_size=family["weights"]["transformer"][0]["shard_bytes"],
    )
    index = load_published_model(name).documents["transformer/diffusion_pytorch_model.safetensors.index.json"]
    assert json.loads(index)["weight_map"] == split.tensor_to_filename


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


_PARTS = st.lists(st.sampled_from(["blocks", "attn", "0", "1", "2", "weight", "bias"]), min_size=1, max_size=5)


@given(st.lists(_PARTS, unique_by=".".join, max_size=30), st.integers(1, 3))
def test_a_folded_tree_expands_to_the_same_tensors_in_order(names: list[list[str]], size: int) -> None:
    tensors = [(".".join(parts), [size, len(parts)]) for parts in sorted(names)]
    assert list(expand(fold(tensors))) == tensors
