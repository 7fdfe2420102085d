"""Model profiles: every file is complete, families are recognised by structure, and rule facts are the table's."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.facts.model import ModelProfile
from roost.facts.request import GROUPS
from roost.profiles import models
from roost.profiles.models import fallback_profile, load_model_profiles, recognise

PROFILES = load_model_profiles()
FOLDER = Path(models.__file__).with_name("models")

TRANSFORMER = ["diffusers", "WanTransformer3DModel"]
NULL = [None, None]


def wan_index(pipeline: str = "WanPipeline", **entries: object) -> dict[str, object]:
    return {"_class_name": pipeline, "transformer": TRANSFORMER, "vae": ["diffusers", "AutoencoderKLWan"], **entries}


EXPERTS = {"transformer_2": TRANSFORMER, "boundary_ratio": 0.875}
TI2V = {"transformer_2": NULL, "boundary_ratio": None, "expand_timesteps": True}


@pytest.mark.parametrize(
    ("index", "configs", "key"),
    [
        (wan_index(), {"transformer": {"num_attention_heads": 12}}, "wan2.1-t2v-1.3b"),
        (wan_index(), {"transformer": {"num_attention_heads": 40}}, "wan2.1-t2v-14b"),
        (wan_index(transformer_2=NULL, expand_timesteps=False), {}, "wan2.1-t2v-14b"),
        (wan_index("WanImageToVideoPipeline"), {}, "wan2.1-i2v-14b"),
        (wan_index(**EXPERTS), {"transformer": {"num_layers": 40}}, "wan2.2-t2v-a14b"),
        (wan_index(**EXPERTS), {"transformer": {"num_layers": 8, "num_attention_heads": 12}}, "wan2.2-t2v-a14b"),
        (wan_index("WanImageToVideoPipeline", **EXPERTS), {}, "wan2.2-i2v-a14b"),
        (wan_index(**TI2V), {"transformer": {"num_attention_heads": 24}}, "wan2.2-ti2v-5b"),
        (wan_index(**TI2V), {"transformer": {"num_attention_heads": 12}}, "wan2.2-ti2v-5b"),
        ({"_class_name": "MOVA"}, {}, "mova"),
        ({"_class_name": ["pipeline_mova", "MOVAPipeline"]}, {}, "mova"),
        ({"_class_name": "FluxPipeline"}, {"transformer": {"guidance_embeds": True}}, "flux.1-dev"),
        ({"_class_name": "FluxPipeline"}, {"transformer": {"guidance_embeds": False}}, "flux.1-schnell"),
        ({"_class_name": "FluxPipeline"}, {}, "flux.1-schnell"),
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": True}, {}, "flux.2-klein"),
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": False}, {}, "flux.2-klein-base"),
        ({"_class_name": "QwenImagePipeline"}, {}, "qwen-image"),
        ({"_class_name": "QwenImageEditPlusPipeline"}, {}, "qwen-image-edit-plus"),
        ({"_class_name": "StableDiffusionPipeline"}, {}, "sd1.5"),
        ({"_class_name": "StableDiffusionXLPipeline"}, {}, "sdxl"),
        ({"_class_name": "StableDiffusion3Pipeline"}, {"transformer": {"qk_norm": None}}, "sd3-medium"),
        (
            {"_class_name": "StableDiffusion3Pipeline"},
            {"transformer": {"qk_norm": "rms_norm", "dual_attention_layers": []}},
            "sd3.5-large",
        ),
        (
            {"_class_name": "StableDiffusion3Pipeline"},
            {"transformer": {"qk_norm": "rms_norm", "dual_attention_layers": [0, 1]}},
            "sd3.5-medium",
        ),
        (
            {"_class_name": "CogVideoXPipeline"},
            {"transformer": {"use_rotary_positional_embeddings": True, "patch_size_t": None}},
            "cogvideox-5b",
        ),
    ],
)
def test_a_family_is_recognised_by_its_structure(index, configs, key):
    found = recognise(index, configs)
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize("index", [{}, {"_class_name": "SomethingNewPipeline"}, {"_class_name": None}])
def test_an_unknown_pipeline_has_no_family(index):
    assert recognise(index, {"transformer": {"num_attention_heads": 12}}) is None


def test_two_experts_without_a_boundary_are_no_wan_family():
    assert recognise(wan_index(transformer_2=TRANSFORMER), {}) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
PIPELINES = st.sampled_from(["WanPipeline", "StableDiffusion3Pipeline", "FluxPipeline"])


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=5), ANYTHING), st.dictionaries(st.text(max_size=5), ANYTHING))
def test_documents_of_any_shape_never_raise(index, configs):
    recognise(index, configs)


@given(PIPELINES, ANYTHING, ANYTHING, ANYTHING)
def test_malformed_values_of_a_known_pipeline_never_raise(pipeline, first, second, config):
    index = {"_class_name": pipeline, "transformer_2": first, "boundary_ratio": second, "expand_timesteps": second}
    recognise(index, {"transformer": config})


@pytest.mark.parametrize("name", [["WanPipeline"], [None, 3], [], {"WanPipeline": 1}, 7])
def test_a_class_name_of_another_type_does_not_raise(name):
    found = recognise({"_class_name": name, **EXPERTS}, {})
    assert (found is not None) == (name == ["WanPipeline"])


# Threshold in GiB, groups kept, modes that stream the DiT with blocks ahead, FSDP: the specification's table.
WAN_2_1 = (60, ("dit",), {"memory": 1}, True)
A14B = (120, ("dit",), {"memory": 1, "auto": 2}, True)
HELPERS = (70, ("text_encoder", "vae"), {}, False)
OTHER_IMAGE, OTHER_VIDEO = (45, ("vae",), {}, False), (120, ("vae",), {}, False)
RULE_FACTS = {
    "wan2.1-t2v-1.3b": WAN_2_1,
    "wan2.1-t2v-14b": WAN_2_1,
    "wan2.1-i2v-14b": WAN_2_1,
    "wan2.2-ti2v-5b": (60, ("dit", "vae"), {"memory": 1}, True),
    "wan2.2-t2v-a14b": A14B,
    "wan2.2-i2v-a14b": A14B,
    "mova": (130, ("dit", "vae"), {"memory": 1}, True),
    "hunyuanvideo": (60, ("dit", "vae"), {}, True),
    "ltx-2": (70, ("dit",), {}, False),
    "qwen-image": HELPERS,
    "qwen-image-edit": HELPERS,
    "longcat-image": HELPERS,
    "other-image": OTHER_IMAGE,
    "other-video": OTHER_VIDEO,
    "flux.1-dev": OTHER_IMAGE,
    "sdxl": OTHER_IMAGE,
    "ltx-video": OTHER_VIDEO,
    "cogvideox-5b": OTHER_VIDEO,
}


@pytest.mark.parametrize(("key", "expected"), RULE_FACTS.items())
def test_rule_facts_are_those_of_the_table(key, expected):
    found = PROFILES[key]
    facts = (
        found.keep_resident_free_gib,
        found.keep_resident_groups,
        found.dit_layerwise_prefetch,
        found.fsdp,
    )
    assert facts == expected


ROLE_EXTRAS = {
    "flux.2-dev": {"encoder": ("vae",)},
    "flux.2-klein": {"encoder": ("vae",)},
    "qwen-image-edit": {"encoder": ("vae",)},
    "qwen-image-edit-plus": {"encoder": ("vae",)},
    "qwen-image-layered": {"encoder": ("vae", "transformer")},
    "glm-image": {"encoder": ("vae", "transformer")},
    "wan2.1-i2v-14b": {"encoder": ("vae",), "denoiser": ("vae",)},
    "wan2.2-i2v-a14b": {"encoder": ("vae",), "denoiser": ("vae",)},
    "mova": {"encoder": ("video_vae", "audio_vae")},
    "ltx-2-i2v": {"denoiser": ("vae", "audio_vae")},
    "wan2.2-t2v-a14b": {},
    "qwen-image": {},
}


@pytest.mark.parametrize(("key", "expected"), ROLE_EXTRAS.items())
def test_role_extras_are_those_of_the_pipelines(key, expected):
    assert PROFILES[key].role_extras == expected


def test_wan_loads_its_vae_in_float32_and_decodes_in_chunks():
    wans = [each for key, each in PROFILES.items() if key.startswith("wan")]
    assert len(wans) >= 7
    assert all(each.load_dtypes == {"vae": "float32"} and each.chunked_vae for each in wans)
    assert not PROFILES["qwen-image"].chunked_vae  # its VAE is causal too, but has one frame to decode


def test_workloads_are_the_published_ones():
    a14b, dev = PROFILES["wan2.2-t2v-a14b"].workload, PROFILES["flux.1-dev"].workload
    assert (a14b.width, a14b.height, a14b.frames, a14b.steps, a14b.guidance) == (1280, 720, 81, 40, 4.0)
    assert (dev.width, dev.height, dev.frames, dev.steps, dev.guidance) == (1024, 1024, None, 28, 3.5)


def test_only_mova_is_plan_only_and_qwen_image_names_its_guidance():
    assert [key for key, each in PROFILES.items() if each.plan_only] == ["mova"]
    assert PROFILES["qwen-image"].guidance_argument == "true_cfg_scale"


@pytest.mark.parametrize(
    ("pipeline", "classes", "key"),
    [
        ("NewVideoPipeline", {"vae": "AutoencoderKL"}, "other-video"),
        ("NewPipeline", {"vae": "AutoencoderKLWan"}, "other-video"),
        ("NewPipeline", {"vae": "AutoencoderKL", "transformer": "WanTransformer3DModel"}, "other-image"),
        (None, {"video_vae": "AutoencoderKLCogVideoX"}, "other-video"),
        (None, {}, "other-image"),
    ],
)
def test_an_unknown_family_is_video_by_its_pipeline_or_vae_class(pipeline, classes, key):
    assert fallback_profile(pipeline, classes).key == key


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_is_plausible(profile: ModelProfile):
    general = profile.key in {"other-image", "other-video"}
    assert general == (not profile.match)
    assert general or profile.match["index._class_name"]
    operators = {each for value in profile.match.values() if hasattr(value, "keys") for each in value}
    assert operators <= {"present", "absent", "not"}
    assert (profile.workload.frames is not None) == (profile.task == "video")
    assert profile.workload.width % 8 == 0
    assert profile.workload.height % 8 == 0
    assert set(profile.keep_resident_groups) <= set(GROUPS)
    assert set(profile.dit_layerwise_prefetch) <= {"auto", "memory"}
    assert set(profile.load_dtypes.values()) <= {"float32", "bfloat16", "float16"}
    assert set(profile.role_extras) <= {"encoder", "denoiser", "decoder"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_where_its_facts_come_from(path: Path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["source"]
