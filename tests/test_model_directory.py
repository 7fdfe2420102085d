"""Which files of a component count: each library's own order, variants, shards and their index."""

from __future__ import annotations

from pathlib import Path

import pytest

from directories import (
    DIT,
    ENCODER,
    VAE,
    inspect,
    safetensors,
    weights,
    write,
    write_pipeline,
    write_sharded,
)
from roost.errors import InvalidFile, UsageError

DIFFUSERS_ORDER = [
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
]
TRANSFORMERS_ORDER = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
]


def _write_weights(folder: Path, name: str) -> str:
    """Weights that the file ``name`` leads to; the file that holds them."""
    if name.endswith(".index.json"):
        shard = f"shard-of-{name.partition('.')[0]}" + (".bin" if ".bin." in name else ".safetensors")
        write(folder / name, {"metadata": {}, "weight_map": dict.fromkeys(weights(), shard)})
        write(folder / shard, safetensors(weights()))
        return shard
    write(folder / name, safetensors(weights()))
    return name


@pytest.mark.parametrize(("declared", "order"), [(DIT, DIFFUSERS_ORDER), (ENCODER, TRANSFORMERS_ORDER)])
def test_each_library_takes_what_it_looks_for_first(declared: list[str], order: list[str], tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"part": declared})
    holders = {name: _write_weights(tmp_path / "part", name) for name in order}
    for name in order:
        (component,) = inspect(tmp_path).components
        assert component.files == (f"part/{holders[name]}",)
        (tmp_path / "part" / name).unlink()
    with pytest.raises(InvalidFile, match=r"^part/ has no weights to load: it holds shard-of-.*'s library looks for "):
        inspect(tmp_path)


def test_a_pipelines_own_module_follows_the_library_that_its_files_are_named_by(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"a": ["stable_diffusion", "SafetyChecker"], "b": ["ltx2", "LTX2TextConnectors"]})
    write(tmp_path / "a" / "model.safetensors", safetensors(weights()))
    write(tmp_path / "b" / "diffusion_pytorch_model.safetensors", safetensors(weights()))
    assert [each.files for each in inspect(tmp_path).components] == [
        ("a/model.safetensors",),
        ("b/diffusion_pytorch_model.safetensors",),
    ]


def test_pickled_weights_are_sized_and_never_opened(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"transformer": DIT})
    write(tmp_path / "transformer" / "diffusion_pytorch_model.bin", b"\x80\x02not even a pickle")
    inventory = inspect(tmp_path)
    (component,) = inventory.components
    assert (component.bytes, component.load_bytes, component.tensors, component.stacks) == (19, 19, None, ())
    assert any("pickled" in warning for warning in inventory.warnings)


def _variant_pipeline(root: Path) -> Path:
    write_pipeline(root, {"transformer": DIT, "text_encoder": ENCODER, "vae": VAE})
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        write(root / "transformer" / name, safetensors(weights(dtype="F16" if "fp16" in name else "F32")))
    for name in ("model.safetensors", "model.fp16.safetensors"):
        write(root / "text_encoder" / name, safetensors(weights(dtype="F16" if "fp16" in name else "F32")))
    write(root / "vae" / "diffusion_pytorch_model.safetensors", safetensors(weights(dtype="F32")))
    return root


def test_a_variant_is_taken_where_there_is_one_and_the_plain_files_elsewhere(tmp_path: Path) -> None:
    inventory = inspect(_variant_pipeline(tmp_path), variant="fp16")
    assert [each.variant for each in inventory.components] == ["fp16", "fp16", None]
    assert [each.load_dtype for each in inventory.components] == ["float16", "float16", "bfloat16"]
    assert inventory.warnings == ("no fp16 files for vae: the plain ones are loaded",)


def test_without_a_variant_the_plain_files_are_taken(tmp_path: Path) -> None:
    inventory = inspect(_variant_pipeline(tmp_path))
    assert [(each.variant, dict(each.bytes_by_dtype)) for each in inventory.components] == [(None, {"F32": 576})] * 3
    assert inventory.warnings == ()


@pytest.mark.parametrize("variant", ["fp8", "fp", "../fp16", "fp16.safetensors", ""])
def test_a_variant_that_no_component_has_is_an_error_that_lists_those_there_are(variant: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no component has such files; there are: fp16"):
        inspect(_variant_pipeline(tmp_path), variant=variant)


@pytest.mark.parametrize(
    ("declared", "stem", "index", "shard"),
    [
        (DIT, "diffusion_pytorch_model", "{}.safetensors.index.fp16.json", "{}.fp16-0000{}-of-00002.safetensors"),
        (DIT, "diffusion_pytorch_model", "{}.safetensors.fp16.index.json", "{}-0000{}-of-00002.fp16.safetensors"),
        (ENCODER, "model", "{}.safetensors.index.fp16.json", "{}.fp16-0000{}-of-00002.safetensors"),
    ],
    ids=["diffusers", "diffusers, old", "transformers"],
)
def test_sharded_variants_are_found_by_either_spelling(
    declared: list[str], stem: str, index: str, shard: str, tmp_path: Path
) -> None:
    write_pipeline(tmp_path, {"part": declared})
    write_sharded(tmp_path / "part", stem, {f"{stem}-00001-of-00001.safetensors": weights(dtype="F32")})
    shards = {shard.format(stem, 1): weights(2), shard.format(stem, 2): weights(2, first=2)}
    write_sharded(tmp_path / "part", stem, shards, index.format(stem))
    inventory = inspect(tmp_path, variant="fp16")
    (component,) = inventory.components
    assert component.variant == "fp16"
    assert component.files == tuple(f"part/{name}" for name in shards)
    assert component.tensors == 8
    assert bool(inventory.warnings) == (".fp16.index" in index)
    with pytest.raises(UsageError, match="there are: fp16"):
        inspect(tmp_path, variant="bf16")


def test_all_missing_shards_are_listed_at_once(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"transformer": DIT, "text_encoder": ENCODER})
    for name, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        shards = {f"{stem}-0000{index}-of-00003.safetensors": weights(1, first=index) for index in range(3)}
        write_sharded(tmp_path / name, stem, shards)
        (tmp_path / name / f"{stem}-00001-of-00003.safetensors").unlink()
    (tmp_path / "text_encoder" / "model-00002-of-00003.safetensors").unlink()
    (tmp_path / "text_encoder" / "model-00002-of-00003.safetensors").symlink_to("gone")
    with pytest.raises(InvalidFile) as error:
        inspect(tmp_path)
    assert "transformer/diffusion_pytorch_model-00001-of-00003.safetensors" in str(error.value)
    assert "text_encoder/model-00001-of-00003.safetensors" in str(error.value)
    assert "text_encoder/model-00002-of-00003.safetensors" in str(error.value)
    assert "00000-of" not in str(error.value)


INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARD = "a.safetensors"


def _indexed(root: Path, index: object) -> Path:
    write_pipeline(root, {"transformer": DIT})
    write(root / "transformer" / SHARD, safetensors(weights(1)))
    write(root / "outside.safetensors", safetensors(weights(1)))
    return write(root / "transformer" / INDEX, index)  # type: ignore[arg-type]


NAMES = list(weights(1))


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"metadata": {}}, "has no weight_map"),
        ({"metadata": {}, "weight_map": {}}, "has no weight_map"),
        ({"metadata": {}, "weight_map": [NAMES]}, "has no weight_map"),
        ({"weight_map": dict.fromkeys(NAMES, SHARD)}, "has no metadata"),
        ({"metadata": None, "weight_map": dict.fromkeys(NAMES, SHARD)}, "has no metadata"),
        ({"metadata": {}, "weight_map": {name: [SHARD] for name in NAMES}}, "isn't a file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, None)}, "isn't a file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "../outside.safetensors")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "/etc/passwd")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "..\\outside.safetensors")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "C:outside.safetensors")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "a.safetensors\0")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "..")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "")}, "isn't a plain file name"),
        ({"metadata": {}, "weight_map": dict.fromkeys(NAMES, "a.bin")}, "isn't a .safetensors file"),
        ({"metadata": {}, "weight_map": dict.fromkeys([*NAMES, "more"], SHARD)}, "holds 'more', which it doesn't"),
        ({"metadata": {}, "weight_map": {NAMES[0]: SHARD}}, f"holds '{NAMES[1]}', which .* doesn't list"),
        ('{"metadata":{},"weight_map":{"a":"b.safetensors","a":"c.safetensors"}}', "duplicate key 'a'"),
        ("[]", "must be an object"),
        ("", "it is empty"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_wrong_index_is_refused_with_its_reason(index: object, reason: str, tmp_path: Path) -> None:
    _indexed(tmp_path, index)
    with pytest.raises(InvalidFile, match=reason) as error:
        inspect(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("transformer/")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    _indexed(tmp_path, {"metadata": {}, "weight_map": {NAMES[0]: SHARD, NAMES[1]: "b.safetensors"}})
    write(tmp_path / "transformer" / "b.safetensors", safetensors({NAMES[1]: ("BF16", (4,))}))
    with pytest.raises(InvalidFile, match=f"{SHARD} holds '{NAMES[1]}', which .* places in b.safetensors"):
        inspect(tmp_path)
