"""What a file is: by names and shapes beside the known models', by a decisive key where none of them fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from directories import Tensors, safetensors, write
from roost.api.models.files.inspect_files import InspectedFile, inspect_file
from roost.facts.layouts import KnownLayout
from roost.probes.recognition.known import KnownLayouts
from roost.probes.recognition.weights import FileContent, common_stem, recognise_weights
from roost.profiles.layouts import known_layouts

Shapes = Mapping[str, tuple[int, ...]]
KNOWN = KnownLayouts(known_layouts())
EVERY = {f"{each.components[0][0]}/{each.components[0][1]}/{each.layout}": each for each in KNOWN.all}


def shapes_of(model: str, component: str = "transformer", layout: str = "original") -> dict[str, tuple[int, ...]]:
    return dict(
        next(each for each in KNOWN.all if (model, component) in each.components and each.layout == layout).tensors
    )


def recognised(shapes: Shapes) -> FileContent:
    return recognise_weights(shapes, KNOWN)


def prefixed(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize("key", EVERY)
def test_every_known_layout_is_found_again_with_all_that_share_it(key: str) -> None:
    known: KnownLayout = EVERY[key]
    found = recognised(known.tensors)
    assert found.layout == known.layout
    exact = {(each.model, each.component) for each in found.candidates if each.why.startswith("all ")}
    assert exact >= set(known.components[:5])
    assert found.component in {component for _, component in known.components} | {"text_encoder", "transformer", "vae"}
    assert not [each for each in found.warnings if "exactly" in each and "no known" in each]


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "transformer."])
def test_a_prefix_of_all_names_is_no_part_of_them(prefix: str) -> None:
    found = recognised(prefixed(prefix, shapes_of("flux.1-dev")))
    assert (found.layout, found.component) == ("original", "transformer")
    assert ("flux.1-dev", "transformer") in {(each.model, each.component) for each in found.candidates}
    assert found.candidates[0].why == "all 780 names and shapes agree"


def test_the_names_that_comfyui_shares_with_diffusers_are_comfyuis_behind_its_prefix() -> None:
    shapes = shapes_of("qwen-image", layout="diffusers")
    assert recognised(shapes).layout == "diffusers"
    assert recognised(prefixed("model.diffusion_model.", shapes)).layout == "comfy"


def test_one_missing_tensor_leaves_a_candidate_and_a_doubt() -> None:
    shapes = shapes_of("flux.1-dev")
    del shapes["guidance_in.in_layer.weight"]
    found = recognised({**shapes, "img_in.weight": (3072, 384), "more.weight": (3,)})
    candidate = next(each for each in found.candidates if each.model == "flux.1-dev")
    assert candidate.why == (
        "778 of 781 names and shapes agree; the file has another shape of 'img_in.weight', lacks"
        " 'guidance_in.in_layer.weight', has besides 'more.weight'"
    )


def test_other_sizes_and_depths_keep_the_architecture() -> None:
    shapes = {name: tuple(min(each, 8) for each in shape) for name, shape in shapes_of("wan2.1-t2v-1.3b").items()}
    small = {name: shape for name, shape in shapes.items() if not name.startswith("blocks.") or ".1." in name[:9]}
    found = recognised(small)
    assert (found.layout, found.family, found.component) == ("original", "wan", "transformer")
    assert any("sizes are no known model's" in each for each in found.warnings)


def test_high_and_low_noise_are_asked_for_and_never_guessed() -> None:
    found = recognised(shapes_of("wan2.2-i2v-a14b"))
    own = [each.component for each in found.candidates if each.model == "wan2.2-i2v-a14b"]
    assert own == ["transformer", "transformer_2"]
    assert (found.family, found.component) == ("wan2.2-i2v-a14b", "transformer")
    assert "only the file's name tells them apart" in found.warnings[0]
    assert recognised(shapes_of("wan2.2-ti2v-5b")).warnings == ()


@pytest.mark.parametrize(
    ("beside", "left_out"),
    [
        ({"lm_head.weight": (152064, 3584)}, ()),
        ({}, ("visual.",)),
        ({"spiece_model": (4000,)}, ()),
    ],
)
def test_what_encoders_have_or_lack_as_a_whole_changes_nothing(beside: Shapes, left_out: tuple[str, ...]) -> None:
    shapes = {
        name: shape
        for name, shape in shapes_of("qwen-image", "text_encoder", "diffusers").items()
        if not (left_out and name.startswith(left_out))
    }
    found = recognised({**shapes, **beside})
    assert (found.component, found.warnings) == ("text_encoder", ())
    assert found.candidates[0].model.startswith("qwen-image")
    assert found.candidates[0].why.startswith("all ")


def test_an_encoder_that_many_models_share_is_named_after_itself() -> None:
    found = recognised(shapes_of("flux.1-dev", "text_encoder_2", "llama.cpp"))
    assert (found.layout, found.family, found.component) == ("llama.cpp", "t5", "text_encoder")
    assert {("flux.1-dev", "text_encoder_2"), ("sd3.5-large", "text_encoder_3")} <= {
        (each.model, each.component) for each in found.candidates
    }


def test_parts_of_an_all_in_one_checkpoint_are_named_by_their_prefixes() -> None:
    shapes = {
        **prefixed("model.diffusion_model.", shapes_of("sdxl", "unet")),
        **prefixed("first_stage_model.", shapes_of("sdxl", "vae")),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
        "conditioner.embedders.1.model.ln_final.weight": (1280,),
    }
    found = recognised(shapes)
    assert (found.layout, found.family, found.component) == ("original", "sdxl", "checkpoint")
    assert [(each.component, each.prefix) for each in found.parts] == [
        ("unet", "model.diffusion_model."),
        ("vae", "first_stage_model."),
        ("text_encoder", "conditioner.embedders.0."),
        ("text_encoder_2", "conditioner.embedders.1."),
    ]
    assert [(each.model, each.component) for each in found.candidates] == [("sdxl", "unet")]


@pytest.mark.parametrize(
    ("name", "title", "component"),
    [
        ("distilled_guidance_layer.in_proj.bias", "Chroma", "transformer"),
        ("double_stream_blocks.0.block.adaLN_modulation.1.bias", "HiDream", "transformer"),
        ("control_model.x", "ControlNet", "controlnet"),
        ("decoder.middle.0.residual.0.gamma", "VAE", "vae"),
    ],
)
def test_a_decisive_key_tells_where_no_known_model_fits(name: str, title: str, component: str) -> None:
    found = recognised({name: (8,)})
    assert (found.layout, found.component) == ("original", component)
    assert title in (found.title or "")
    assert title in found.warnings[0]


def test_nothing_is_said_of_tensors_of_no_kind() -> None:
    found = recognised({"a": (1,), "b": (2, 3)})
    assert (found.layout, found.family, found.component, found.candidates) == (None, None, None, ())
    assert "of no kind that is known" in found.warnings[0]


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (["wan2.2-t2v-a14b"], "wan2.2-t2v-a14b"),
        (["wan2.1-t2v-14b", "wan2.2-t2v-a14b"], "wan"),
        (["wan2.1-t2v-14b", "wan2.1-t2v-1.3b"], "wan2.1-t2v"),
        (["flux.1-dev", "flux.1-fill-dev"], "flux.1"),
        (["ltx-video", "ltx-video-0.9.7"], "ltx-video"),
        (["sdxl", "z-image"], None),
        (["1a", "2b"], None),
    ],
)
def test_models_share_the_words_with_which_all_begin(names: list[str], stem: str | None) -> None:
    assert common_stem(names) == stem


RANK = 4


def kohya(shapes: Shapes, modules: list[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for module in modules:
        rows, columns = shapes[f"{module}.weight"][:2]
        flat = f"lora_unet_{module.replace('.', '_')}"
        found |= {
            f"{flat}.lora_down.weight": (RANK, columns),
            f"{flat}.lora_up.weight": (rows, RANK),
            f"{flat}.alpha": (),
        }
    return found


def of_peft(shapes: Shapes, modules: list[str], prefix: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for module in modules:
        rows, columns = shapes[f"{module}.weight"][:2]
        found |= {f"{prefix}{module}.lora_A.weight": (RANK, columns), f"{prefix}{module}.lora_B.weight": (rows, RANK)}
    return found


@pytest.mark.parametrize(
    ("model", "layout", "module", "spelling"),
    [
        ("flux.1-dev", "original", "double_blocks.3.img_attn.qkv", "kohya"),
        ("flux.1-dev", "diffusers", "single_transformer_blocks.7.attn.to_q", "transformer."),
        ("qwen-image", "diffusers", "transformer_blocks.59.attn.to_q", "transformer."),
        ("wan2.1-t2v-14b", "original", "blocks.39.self_attn.q", "diffusion_model."),
        ("wan2.1-t2v-1.3b", "original", "blocks.29.self_attn.q", "diffusion_model."),
    ],
)
def test_a_lora_names_its_base_in_every_spelling(model: str, layout: str, module: str, spelling: str) -> None:
    shapes = shapes_of(model, layout=layout)
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (RANK, 768)}
    found = recognised(
        {**kohya(shapes, [module]), **text} if spelling == "kohya" else of_peft(shapes, [module], spelling)
    )
    assert (found.component, found.layout) == ("lora", layout)
    owners = {each.model for each in found.candidates}
    assert model in owners
    assert "sdxl" not in owners


def test_a_lora_of_another_size_names_no_base() -> None:
    found = recognised({"diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": (RANK, 99)})
    assert (found.component, found.family, found.candidates) == ("lora", None, ())
    assert found.warnings


def of(tensors: Tensors, folder: Path) -> InspectedFile:
    return inspect_file(write(folder / "x.safetensors", safetensors(tensors)))


def test_plain_and_cast_weights_are_sized_as_they_load_and_quantised_ones_as_stored(tmp_path: Path) -> None:
    plain = of({"a.weight": ("F32", (8, 8)), "b.weight": ("F8_E4M3", (8, 8))}, tmp_path)
    assert (plain.stored_bytes, plain.load_bytes, plain.quantisation.method) == (320, 256, "float8-cast")
    scaled = of({"b.weight": ("F8_E4M3", (8, 8)), "b.scale_weight": ("F32", ())}, tmp_path)
    assert (scaled.stored_bytes, scaled.load_bytes) == (68, 68)
