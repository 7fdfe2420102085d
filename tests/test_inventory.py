"""The inventory: load dtype and bytes, stacks, notes, the fingerprint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from directories import (
    BLOCK_ELEMENTS,
    DIT,
    SINGLE,
    VAE,
    dit_of,
    inspect,
    safetensors,
    weights,
    with_dit,
    write,
    write_pipeline,
)
from roost.errors import UsageError
from roost.facts.model import ClassFacts, ModelProfile
from roost.facts.request import Workload
from roost.probes.model.components import Wanted
from roost.probes.model.inventory import read_inventory

TENSORS = 4 * BLOCK_ELEMENTS


@pytest.mark.parametrize(
    ("stored", "asked", "load_dtype", "load_bytes"),
    [
        ("F32", None, "bfloat16", 2 * TENSORS),
        ("BF16", None, "bfloat16", 2 * TENSORS),
        ("F16", None, "float16", 2 * TENSORS),
        ("BF16", "float32", "float32", 4 * TENSORS),
        ("F32", "float16", "float16", 2 * TENSORS),
        ("I64", "float16", "float16", 8 * TENSORS),
        ("F8_E4M3", None, "bfloat16", 2 * TENSORS),
        ("F8_E5M2", "float16", "float16", 2 * TENSORS),
        ("F8_E4M3", "float32", "float32", 4 * TENSORS),
    ],
)
def test_weights_are_sized_at_their_load_dtype(
    stored: str, asked: str | None, load_dtype: str, load_bytes: int, tmp_path: Path
) -> None:
    component = dit_of(inspect(with_dit(tmp_path, weights(dtype=stored)), dtype=asked))
    assert (component.load_dtype, component.load_bytes) == (load_dtype, load_bytes)
    assert sum(stack.bytes for stack in component.stacks) == load_bytes


def test_mixed_weights_load_as_what_most_bytes_are(tmp_path: Path) -> None:
    assert dit_of(inspect(with_dit(tmp_path, weights(3, "F16") | weights(1, "F32", first=3)))).load_dtype == "float16"
    assert dit_of(inspect(with_dit(tmp_path, weights(1, "F16") | weights(3, "F32", first=1)))).load_dtype == "bfloat16"


PROFILE = ModelProfile(
    key="wan",
    title="Wan",
    task="video",
    match={},
    workload=Workload(width=8, height=8, frames=1, steps=1, batch=1, guidance=None),
    keep_resident_free_gib=1,
    keep_resident_groups=(),
    dit_layerwise_prefetch={},
    fsdp=False,
    load_dtypes=MappingProxyType({"vae": "float32"}),
    chunked_vae=False,
    guidance_argument="guidance_scale",
    role_extras={},
    frame_chunk=1,
    frames_per_s=16,
    plan_only=False,
)


def test_a_profiles_load_dtype_is_by_base_name_and_an_asked_one_beats_it(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"vae_2": VAE, "transformer": DIT})
    for name in ("vae_2", "transformer"):
        write(tmp_path / name / SINGLE, safetensors(weights()))
    inventory = inspect(tmp_path, profile=PROFILE)
    assert inventory.family == "wan"
    assert [each.load_dtype for each in inventory.components] == ["float32", "bfloat16"]
    assert [each.load_dtype for each in inspect(tmp_path, profile=PROFILE, dtype="float16").components] == [
        "float16"
    ] * 2


@pytest.mark.parametrize("stored", ["F32", "BF16", "F16"])
@pytest.mark.parametrize(("asked", "kept"), [("bfloat16", 1), ("float16", 2), ("float32", 4)])
def test_modules_kept_in_float32_count_four_bytes_an_element(
    stored: str, asked: str, kept: int, tmp_path: Path
) -> None:
    tensors = weights(1, stored) | {
        "norm.weight": (stored, (10,)),
        "wo.weight": (stored, (10,)),
        "x_wo.a": (stored, (10,)),
    }
    facts = {DIT[1]: ClassFacts(keep_in_float32=("norm",), keep_in_float32_for_float16=("wo",))}
    component = dit_of(inspect(with_dit(tmp_path, tensors), dtype=asked, facts=facts))
    elements, all_in_float32 = BLOCK_ELEMENTS + 30, kept == 4
    assert component.load_bytes == (4 * elements if all_in_float32 else 2 * elements + kept * 20)


def test_integers_are_never_cast_not_even_in_kept_modules(tmp_path: Path) -> None:
    tensors = weights(1) | {"norm.ids": ("I64", (10,)), "norm.mask": ("U8", (3,))}
    facts = {DIT[1]: ClassFacts(keep_in_float32=("norm",))}
    assert dit_of(inspect(with_dit(tmp_path, tensors), facts=facts)).load_bytes == 2 * BLOCK_ELEMENTS + 83


def test_quantised_components_keep_their_stored_bytes(tmp_path: Path) -> None:
    with_dit(tmp_path, weights(dtype="F32"))
    write(tmp_path / "transformer" / "config.json", {"quantization_config": {"quant_method": "torchao"}})
    component = dit_of(inspect(tmp_path))
    assert (component.quantization, component.load_bytes) == ("torchao", 4 * TENSORS)


def test_dropped_tensors_are_stored_and_not_loaded(tmp_path: Path) -> None:
    tensors = weights() | {"lm_head.weight": ("BF16", (100,)), "blocks.0.norm_added_q.weight": ("BF16", (5,))}
    facts = {DIT[1]: ClassFacts(ignored=(r"^lm_head\.", "norm_added_q"))}
    component = dit_of(inspect(with_dit(tmp_path, tensors), facts=facts))
    assert (component.bytes, component.load_bytes) == (2 * TENSORS + 210, 2 * TENSORS)
    assert component.notes == ("unused: 2 stored tensors (210 B) that its class drops",)
    assert component.tensors == 10


def test_stacks_are_found_under_module_names(tmp_path: Path) -> None:
    tensors = {f"text_model.{name}": each for name, each in weights().items()}
    facts = {DIT[1]: ClassFacts(renames=((r"^text_model\.(.+)", r"\1"),), keep_in_float32=("text_model",))}
    component = dit_of(inspect(with_dit(tmp_path, tensors), facts=facts))
    assert [stack.name for stack in component.stacks] == ["blocks"]
    assert component.load_bytes == 2 * TENSORS


def test_renames_that_would_merge_two_tensors_are_left_out(tmp_path: Path) -> None:
    facts = {DIT[1]: ClassFacts(renames=((r".*", "same"),))}
    assert dit_of(inspect(with_dit(tmp_path, weights()), facts=facts)).load_bytes == 2 * TENSORS


@pytest.mark.parametrize(("second", "load_bytes"), [(None, 200), ((50, 2), 200), ((50, 3), 500)])
def test_a_shared_embedding_is_loaded_once(second: tuple[int, int] | None, load_bytes: int, tmp_path: Path) -> None:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"shared.weight": ("BF16", (50, 2))}
    if second:
        tensors["encoder.embed_tokens.weight"] = ("BF16", second)
    component = dit_of(inspect(with_dit(tmp_path, tensors), facts={DIT[1]: ClassFacts()}))
    assert component.load_bytes == load_bytes
    assert any("tied" in note for note in component.notes) == (second == (50, 2))


def test_an_unknown_class_is_reported_as_uncertain(tmp_path: Path) -> None:
    root = with_dit(tmp_path, weights())
    assert any("uncertain" in note for note in dit_of(inspect(root)).notes)
    assert dit_of(inspect(root, facts={DIT[1]: ClassFacts()})).notes == ()


def test_what_streams_is_split_where_a_block_is_too_large(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"transformer": DIT})
    # Headers alone are read, so the data may be a hole.
    tensors = {f"down.{i}.inner.{j}.attn.weight": ("BF16", (2**14, 2**14)) for i in range(2) for j in range(3)}
    content = safetensors(dict.fromkeys(tensors, ("BF16", ())))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for position, entry in enumerate(header.values()):
        entry |= {"shape": [2**14, 2**14], "data_offsets": [position * 2**29, (position + 1) * 2**29]}
    text = json.dumps(header).encode()
    path = write(tmp_path / "transformer" / SINGLE, len(text).to_bytes(8, "little") + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + 6 * 2**29)
    component = dit_of(inspect(tmp_path))
    assert [(stack.name, stack.count) for stack in component.stacks] == [("down", 2)]
    assert [(unit.name, unit.count) for unit in component.units] == [("down.0.inner", 3), ("down.1.inner", 3)]


def test_the_fingerprint_follows_what_a_loader_reads_and_nothing_else(tmp_path: Path) -> None:
    root = with_dit(tmp_path, weights(), scheduler=["diffusers", "DDIMScheduler"])
    scheduler = root / "scheduler" / "scheduler_config.json"
    write(scheduler, {"shift": 3})
    seen = [inspect(root).fingerprint]
    assert set(inspect(root).files) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        f"transformer/{SINGLE}",
    }
    write(root / "README.md", "words")
    write(root / "flux.safetensors", b"not read")
    assert inspect(root).fingerprint == seen[0]
    write(scheduler, {"shift": 5})
    seen.append(inspect(root).fingerprint)
    write(root / "transformer" / "config.json", {"dim": 2})
    seen.append(inspect(root).fingerprint)
    write(root / "transformer" / SINGLE, safetensors(weights(3)))
    seen.append(inspect(root).fingerprint)
    assert len(set(seen)) == 4


def test_the_fingerprint_is_the_same_wherever_the_model_lies(tmp_path: Path) -> None:
    first, second = (with_dit(tmp_path / name, weights()) for name in ("a", "b"))
    assert inspect(first).fingerprint == inspect(second).fingerprint


def test_an_unknown_load_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float32, bfloat16, float16"):
        inspect(with_dit(tmp_path, weights()), dtype="int8")


def test_profiles_are_recognised_by_index_and_configs(tmp_path: Path) -> None:
    root = with_dit(tmp_path, weights())
    write(root / "transformer" / "config.json", {"dim": 5})
    seen = []

    def recognise(index: object, configs: object) -> ModelProfile:
        seen.append((index, configs))
        return replace(PROFILE, key="five")

    inventory = read_inventory(root, Wanted(variant=None, dtype=None), class_facts={}, recognise=recognise)
    assert seen == [({"_class_name": "WanPipeline", "transformer": DIT}, {"transformer": {"dim": 5}})]
    assert inventory.family == "five"
