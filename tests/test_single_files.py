"""A component of one original file is, tensor by tensor, what diffusers makes of it."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import torch
from diffusers import GGUFQuantizationConfig

import stored_weights
from single_file_worlds import LAYOUTS, World, matrices, of_module, recipe_of, scaled_fp8, stored, world

BLOCKS = ("Q4_0", "Q5_1", "Q8_0", "BF16")
K_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")


@pytest.fixture(scope="module", params=LAYOUTS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(request.param, tmp_path_factory.mktemp(request.param.replace(".", "-")))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world("qwen-image", tmp_path_factory.mktemp("qwen"))


def test_a_plain_original_file_gives_the_bits_that_diffusers_gives(family: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", family.original)
    recipe = recipe_of(family.component, stored(path))
    assert recipe.method is None
    assert recipe.unused == ()
    assert sorted(each.name for each in recipe.targets) == sorted(family.module.state_dict())
    _assert_same(family.load(stored(path)).state_dict(), family.by_diffusers(path), family.module.state_dict())


def test_half_precision_loads_with_what_the_class_keeps_in_float32(family: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", family.original)
    made, loaded = family.load(stored(path), "bfloat16").state_dict(), family.by_diffusers(path, "bfloat16")
    kept = set(family.component.facts.keep_in_float32)
    for name, each in made.items():
        wide = bool(kept & set(name.split(".")))
        assert each.dtype == (torch.float32 if wide else torch.bfloat16), name
        assert torch.equal(each, family.module.state_dict()[name] if wide else loaded[name]), name


def test_names_of_diffusers_need_no_conversion(family: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", family.module.state_dict())
    _assert_same(family.load(stored(path)).state_dict(), family.module.state_dict())


def test_a_ggufs_layers_are_those_of_diffusers_bit_by_bit(family: World, tmp_path: Path) -> None:
    if family.component.name == "unet":
        pytest.skip("diffusers converts a UNet's names only with the prefix that no GGUF has")
    names = matrices(family.original)
    assert len(names) >= 4
    kinds = {name: BLOCKS[index % len(BLOCKS)] for index, name in enumerate(names)}
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "any", family.original, kinds)
    made = family.load(stored(path), "bfloat16")
    config = GGUFQuantizationConfig(compute_dtype=torch.bfloat16)
    loaded = family.by_diffusers(path, "bfloat16", quantization_config=config)
    quantised = 0
    for name, each in made.state_dict(keep_vars=True).items():
        theirs = loaded[name]
        kind = getattr(theirs, "quant_type", None)
        if kind is not None and kind.name == "BF16":
            theirs = theirs.as_tensor().view(torch.bfloat16)  # which Roost holds as what it is
        elif kind is not None:
            assert each.quant_type == kind
            quantised += 1
        assert torch.equal(torch.Tensor(each.detach()), torch.Tensor(theirs).to(each.dtype)), name
    assert quantised >= 3


@pytest.mark.parametrize("kind", [*BLOCKS[:3], *K_BLOCKS])
def test_a_layer_of_blocks_computes_what_diffusers_computes(qwen: World, tmp_path: Path, kind: str) -> None:
    """Also after an embedding or a norm of such blocks was decoded as it loaded."""
    module = _wide_qwen(qwen, tmp_path)
    state = module.original
    kinds = dict.fromkeys(matrices(state, 256), kind)
    assert len(kinds) > 3
    path = stored_weights.write_gguf(tmp_path / "m.gguf", "qwen_image", state, kinds)
    config = GGUFQuantizationConfig(compute_dtype=torch.bfloat16)
    loaded = type(module.module).from_single_file(
        str(path),
        config=str(tmp_path),
        subfolder="transformer",
        torch_dtype=torch.bfloat16,
        quantization_config=config,
    )
    made = module.load(stored(path), "bfloat16")
    for name in kinds:
        ours, theirs = (each.get_submodule(name.removesuffix(".weight")) for each in (made, loaded))
        assert type(ours) is type(theirs)
        inputs = torch.randn(2, ours.in_features, dtype=torch.bfloat16)
        assert torch.equal(ours(inputs).nan_to_num(), theirs(inputs).nan_to_num())


def _wide_qwen(qwen: World, folder: Path) -> World:
    """Qwen-Image with matrices of 256 columns, which K-quants need."""
    config = dict(qwen.module.config) | {"attention_head_dim": 128, "num_attention_heads": 2, "num_layers": 1}
    config["axes_dims_rope"] = (16, 56, 56)
    module = type(qwen.module).from_config(config)
    module.save_config(folder / "transformer")
    return World(of_module("transformer", module, folder), module, dict(module.state_dict()), folder)


def test_views_of_the_file_are_taken_and_cannot_change_it(qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", qwen.original)
    before = path.read_bytes()
    made = qwen.load(stored(path))
    with torch.no_grad():
        for each in made.parameters():
            each.add_(1)
    assert path.read_bytes() == before


def test_without_data_the_structure_is_the_same(family: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", _scaled(family.original))
    made, bare = (family.load(stored(path), "bfloat16", with_data=with_data) for with_data in (True, False))
    forms = [
        [(name, type(part)) for name, part in each.named_modules()]
        + [(name, each.dtype, each.shape) for name, each in each.state_dict().items()]
        for each in (made, bare)
    ]
    assert forms[0] == forms[1]


def test_scaled_weights_are_values_times_their_scale_in_float32_rounded_once(family: World, tmp_path: Path) -> None:
    state = _scaled(family.original)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
    component, file = family.at("bfloat16"), stored(path)
    recipe = recipe_of(component, file)
    assert recipe.method == "scaled"
    assert "scaled_fp8" in recipe.unused
    exact = {
        name: each.float() * state[f"{name.removesuffix('weight')}scale_weight"] if each.dtype.itemsize == 1 else each
        for name, each in state.items()
        if not name.endswith(("scale_weight", "scaled_fp8"))
    }
    plain = stored_weights.write_safetensors(tmp_path / "plain.safetensors", exact)
    wanted = family.load(stored(plain), "bfloat16")
    made = family.load(file, "bfloat16")
    packed = 0
    for name, part in made.named_modules():
        if hasattr(part, "packed"):
            packed += 1
            assert part.packed.dtype == torch.float8_e4m3fn
            assert torch.equal(part.decoded(), wanted.get_submodule(name).weight), name
            inputs = torch.randn(3, part.in_features, dtype=torch.bfloat16)
            assert torch.equal(part(inputs), wanted.get_submodule(name)(inputs))
        elif isinstance(part, torch.nn.Linear):
            assert torch.equal(part.weight, wanted.get_submodule(name).weight), name
    assert packed >= 4
    assert recipe.bytes == sum(each.nbytes for each in made.state_dict().values())


def test_plain_fp8_streams_a_byte_and_has_the_bits_of_the_cast(qwen: World, tmp_path: Path) -> None:
    names = matrices(qwen.original)
    state = {name: each.to(torch.float8_e4m3fn) if name in names else each for name, each in qwen.original.items()}
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
    made, loaded = qwen.load(stored(path), "bfloat16"), qwen.by_diffusers(path, "bfloat16")
    for name in names:
        part = made.get_submodule(name.removesuffix(".weight"))
        assert part.packed.nbytes == part.packed.numel()
        assert torch.equal(part.decoded(), loaded[name])


def test_packed_layers_survive_a_copy(qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", _scaled(qwen.original))
    made = qwen.load(stored(path), "bfloat16")
    twin = copy.deepcopy(made)
    _assert_same(twin.state_dict(), made.state_dict())


def test_the_weight_of_a_packed_layer_says_its_dtype_and_is_no_number(qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", _scaled(qwen.original))
    part = next(each for each in qwen.load(stored(path), "bfloat16").modules() if hasattr(each, "packed"))
    assert part.weight.dtype == torch.bfloat16
    assert part.weight.shape == (part.out_features, part.in_features)
    assert part.weight.isnan().all()
    assert "weight" not in dict(part.named_parameters())


def _scaled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Comfy's older files: eight-bit values and a scale for each matrix, and one marker."""
    made = dict(_pairs(state))
    return made | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}


def _pairs(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    names = set(matrices(state))
    for name, each in state.items():
        if name not in names:
            yield name, each
            continue
        values, scale = scaled_fp8(each)
        yield name, values
        yield f"{name.removesuffix('weight')}scale_weight", scale


def _assert_same(made: dict[str, torch.Tensor], *others: dict[str, torch.Tensor]) -> None:
    for other in others:
        assert made.keys() == other.keys()
        assert all(torch.equal(made[name], other[name]) for name in made)
