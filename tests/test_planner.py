"""Kinds, load order, selectors, explicit options, placements and budgets, each by its behaviour on made-up models."""

from __future__ import annotations

import pytest

from roost.errors import UsageError
from roost.facts.request import Choices
from roost.planner.by_rules import plan_by_rules
from roost.planner.rules.names import base_name, kind_of, load_order, suffix
from roost.planner.rules.selectors import parse_selectors, parse_set
from roost.units import GiB, MiB
from worlds import component, inventory, machine, profile, question

WAN = (
    component("transformer", 28 * GiB, blocks=40),
    component("transformer_2", 28 * GiB, blocks=40, position=1),
    component("text_encoder", 10 * GiB, blocks=24, position=2),
    component("vae", GiB // 2, blocks=4, position=3),
)


def plan_of(*options: str, free_gib: float = 24, components=WAN, choices: Choices | None = None, **changes):
    sets = tuple(parse_set(option) for option in options)
    chosen = choices or Choices(sets=sets)
    return plan_by_rules(question(inventory(*components), machine(free_gib), chosen, **changes))


@pytest.mark.parametrize(
    ("name", "class_name", "library", "kind"),
    [
        ("transformer_2", "Whatever", "diffusers", "dit"),
        ("unet", "UNet2DConditionModel", "diffusers", "dit"),
        ("text_encoder_3", "T5EncoderModel", "transformers", "text_encoder"),
        ("byt5_text_encoder", "Whatever", "x", "text_encoder"),
        ("vision_language_encoder", "Whatever", "transformers", "text_encoder"),
        ("spatial_upsampler", "Whatever", "diffusers", "vae"),
        ("controlnet", "SD3ControlNetModel", "diffusers", "other"),
        ("safety_checker", "StableDiffusionSafetyChecker", "stable_diffusion", "other"),
        ("mllm", "Qwen2_5_VLForConditionalGeneration", "transformers", "text_encoder"),
        ("eyes", "SiglipVisionModel", "transformers", "image_encoder"),
        ("eyes", "CLIPVisionModelWithProjection", "transformers", "image_encoder"),
        ("words", "CLIPTextModel", "transformers", "text_encoder"),
        ("denoiser", "FluxTransformer2DModel", "diffusers", "dit"),
        ("pixels", "AutoencoderKL", "diffusers", "vae"),
        ("connectors", "LTX2TextConnectors", "diffusers", "other"),
    ],
)
def test_kind_is_by_base_name_then_by_class(name: str, class_name: str, library: str, kind: str) -> None:
    assert kind_of(component(name, 1, class_name=class_name, library=library)) == kind


def test_base_name_drops_one_trailing_number() -> None:
    assert (base_name("text_encoder_2"), suffix("text_encoder_2")) == ("text_encoder", 2)
    assert (base_name("vae"), suffix("vae")) == ("vae", None)
    assert base_name("a_1_2") == "a_1"


def test_heaviest_loads_first_then_risk_then_higher_number_then_index() -> None:
    same = [
        component("vae", 5, position=0),
        component("text_encoder", 5, position=1),
        component("transformer", 5, position=2),
        component("transformer_2", 5, position=3),
        component("image_encoder", 9, position=4),
    ]
    assert load_order(same) == ("image_encoder", "transformer_2", "transformer", "text_encoder", "vae")


def test_unknown_sizes_sort_by_risk_behind_known_ones() -> None:
    parts = [component("vae", 7), component("text_encoder", 0), component("transformer", 0), component("controlnet", 0)]
    assert load_order(parts) == ("vae", "transformer", "text_encoder", "controlnet")


def test_selectors_are_normalised_and_none_stands_alone() -> None:
    assert parse_selectors(" DiT, text-encoder,dit", "x") == ("dit", "text_encoder")
    assert parse_selectors("none", "x") == ()
    with pytest.raises(UsageError, match="none stands alone"):
        parse_selectors("none,vae", "x")
    with pytest.raises(UsageError, match="empty selector"):
        parse_selectors("vae,,dit", "x")


def test_exact_name_beats_group_beats_all_on_one_level() -> None:
    plan = plan_of("all=component-offload", "dit=layerwise-offload", "transformer_2=resident")
    strategies = {name: each.strategy for name, each in plan.components.items()}
    assert strategies == {
        "transformer": "layerwise-offload",
        "transformer_2": "resident",
        "text_encoder": "component-offload",
        "vae": "component-offload",
    }
    assert plan.components["transformer_2"].decided_by == "flag:--set transformer_2=resident"


def test_two_strategies_for_one_component_on_one_level_are_refused_naming_both() -> None:
    with pytest.raises(UsageError, match=r"set='vae=resident' and set='vae=component-offload' disagree"):
        plan_of("vae=resident", "vae=component-offload")


def test_higher_level_wins_and_the_lower_option_is_listed_as_blocked() -> None:
    choices = Choices(
        sets=(parse_set("dit=resident"),),
        layerwise_components=("dit", "vae"),
        dit_layerwise_offload=True,
        cpu_offload={"dit": True},
    )
    plan = plan_of(choices=choices)
    assert plan.components["transformer"].strategy == "resident"
    blocked = {(each.id, each.by) for each in plan.policy.blocked}
    assert blocked >= {
        ("--layerwise-offload-components dit,vae", "--set dit=resident"),
        ("--dit-layerwise-offload", "--set dit=resident"),
        ("--dit-cpu-offload", "--set dit=resident"),
    }


def test_a_group_named_in_the_selection_covers_every_member() -> None:
    encoders = (*WAN[:2], component("text_encoder", GiB, blocks=2), component("text_encoder_2", GiB, blocks=2))
    plan = plan_of(components=encoders, choices=Choices(layerwise_components=("text_encoder",)))
    assert plan.components["text_encoder_2"].strategy == "layerwise-offload"
    assert plan.policy.layerwise_groups == ["text_encoder"]


@pytest.mark.parametrize(
    ("typed", "blocks_ahead"),
    [(1, 1), (4, 4), (100, 40), (0, 1), (0.5, 21), (0.25, 11), (1.0, 1), (0.999, 40)],
)
def test_typed_prefetch_counts_blocks_or_is_a_fraction_of_the_others(typed: float, blocks_ahead: int) -> None:
    plan = plan_of("dit=layerwise-offload", choices=Choices(dit_layerwise_offload=True, prefetch=typed))
    assert plan.components["transformer"].prefetch == blocks_ahead
    assert plan.components["text_encoder"].prefetch == 1


def test_slots_never_exceed_the_streamed_blocks() -> None:
    plan = plan_of("dit=layerwise-offload,resident_blocks=39,prefetch=3")
    assert plan.components["transformer"].slots == 1


def test_more_resident_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 40"):
        plan_of("dit=layerwise-offload,resident_blocks=41")


def test_pinned_masters_go_to_the_most_stepped_component_first() -> None:
    host_poor = machine(24, ram_gib=40)
    chosen = Choices(dit_layerwise_offload=True)
    plan = plan_by_rules(question(inventory(*WAN[1:]), host_poor, chosen))
    dit, text = plan.components["transformer_2"].master, plan.components["text_encoder"].master
    assert dit.pinned == 40
    assert text.pinned < 24
    assert text.pinned + text.pageable + text.mapped == 24


def test_a_chunked_vae_is_held() -> None:
    held = plan_of(profile=profile(chunked_vae=True)).components["vae"]
    streamed = plan_of().components["vae"]
    assert (held.hold, streamed.hold) == (True, False)


def test_stage_weights_are_trunk_residents_and_slots() -> None:
    plan = plan_of("dit=layerwise-offload,resident_blocks=10", "text_encoder=component-offload", "vae=resident")
    block = 28 * GiB * 9 // 10 // 40
    trunk = 28 * GiB - 40 * block
    stages = {each.name: each.components for each in plan.budget.stages}
    assert stages["denoise (transformer)"] == {"transformer": trunk + 12 * block, "vae": GiB // 2}
    assert stages["text encode (text_encoder)"] == {"text_encoder": 10 * GiB, "vae": GiB // 2}


def test_too_small_a_budget_says_by_how_much() -> None:
    plan = plan_of("all=resident", free_gib=24)
    assert not plan.fits
    assert plan.budget.deficit_bytes == sum(each.load_bytes for each in WAN) - 23 * GiB
    assert plan.budget.verdict.startswith("does not fit")


def test_host_memory_that_is_short_is_a_warning_with_the_deficit() -> None:
    plan = plan_by_rules(question(inventory(*WAN), machine(24, ram_gib=16)))
    assert plan.budget.host_deficit_bytes > 0
    assert any("host memory is" in each for each in plan.warnings)


def test_speed_on_two_gpus_shards_the_dits_of_a_family_that_allows_it() -> None:
    plan = plan_of(choices=Choices(mode="speed", num_gpus=2))
    assert plan.components["transformer"].strategy == "fsdp"
    assert plan.components["vae"].strategy == "resident"
    refused = plan_of(choices=Choices(mode="speed", num_gpus=2), profile=profile(fsdp=False))
    assert refused.components["transformer"].strategy == "resident"


def test_linger_only_for_a_single_offloaded_dit() -> None:
    one = plan_of(components=WAN[1:])
    two = plan_of()
    assert one.components["transformer_2"].linger
    assert not two.components["transformer"].linger


def test_unknown_selector_is_refused_with_a_near_name() -> None:
    with pytest.raises(UsageError, match="did you mean transformer"):
        plan_of("transfromer=resident")


@pytest.mark.parametrize(
    "text",
    [
        "vae",
        "=resident",
        "vae=fast",
        "vae=resident,prefetch=1",
        "none=resident",
        "vae=layerwise-offload,prefetch=0",
        "vae=layerwise-offload,prefetch=1,prefetch=2",
        "vae=layerwise-offload,resident_policy=random",
        "a,b=resident",
    ],
)
def test_malformed_set_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"^set="):
        parse_set(text)


def test_each_decision_names_who_decided_it() -> None:
    plan = plan_of("vae=resident")
    for each in plan.components.values():
        assert each.decided_by.split(":")[0] in ("flag", "rule", "default")
        assert each.why
    manual = plan_of(choices=Choices(mode="manual"))
    assert {each.decided_by for each in manual.components.values()} == {"default"}


def test_units_are_binary_and_decimal_as_documented() -> None:
    from roost.units import format_bytes, parse_bytes

    assert parse_bytes("24G", "x") == parse_bytes("24GiB", "--x") == 24 * GiB
    assert parse_bytes("24GB", "x") == 24 * 10**9
    assert parse_bytes("1.5MiB", "x") == 3 * MiB // 2
    assert format_bytes(GiB * 142 // 10) == "14.2 GiB"
    assert format_bytes(-GiB * 142 // 10) == "−14.2 GiB"


@pytest.mark.parametrize("typed", [{"dit": False}, {}])
def test_fsdp_beats_an_option_that_keeps_the_dit_resident_and_says_so(typed: dict) -> None:
    plan = plan_of(choices=Choices(fsdp=True, num_gpus=2, cpu_offload=typed))
    assert plan.components["transformer"].strategy == plan.components["transformer_2"].strategy == "fsdp"
    blocked = {(each.id, each.by) for each in plan.policy.blocked}
    assert (("--no-dit-cpu-offload", "--fsdp") in blocked) == bool(typed)


def test_a_rule_whose_groups_are_all_decided_is_blocked_by_who_decided_them() -> None:
    groups = ("dit", "text_encoder", "image_encoder", "vae")
    plan = plan_of(choices=Choices(cpu_offload=dict.fromkeys(groups, True)))
    blocked = [each.by for each in plan.policy.blocked if each.id == "HELPERS-LAYERWISE"]
    assert blocked == [f"--{each.replace('_', '-')}-cpu-offload" for each in groups[1:]]


def test_a_typed_option_for_a_group_without_members_counts_as_typed() -> None:
    plan = plan_of(choices=Choices(cpu_offload={"image_encoder": True}))
    assert "EXPLICIT" in {each.id for each in plan.policy.fired}


@pytest.mark.parametrize(
    ("task", "total_gib", "moved"), [("video", 80, True), ("image", 24, True), ("image", 80, False)]
)
def test_an_image_encoder_moves_by_itself_for_videos_and_on_small_cards(task: str, total_gib: int, moved: bool) -> None:
    parts, choices = (*WAN[:1], component("image_encoder", GiB, position=1)), Choices(layerwise_components=("dit",))
    made = question(inventory(*parts), machine(20, total_gib), choices, profile=profile(task=task))
    encoder = plan_by_rules(made).components["image_encoder"]
    assert encoder.strategy == ("component-offload" if moved else "resident")


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (Choices(mode="manual"), "mode manual moves only what is typed."),
        (Choices(mode="speed"), "mode speed keeps everything resident that isn't typed."),
        (Choices(platform="rocm"), "rules move weights on CUDA only."),
    ],
)
def test_why_nothing_moves(choices: Choices, reason: str) -> None:
    assert {each.why for each in plan_of(choices=choices).components.values()} == {reason}


def test_what_stays_on_the_device_takes_no_host_memory_from_the_masters_of_the_rest() -> None:
    """The encoder's masters fill the host memory; those of what is resident would leave nothing for them."""
    encoder = component("text_encoder", 10 * GiB, blocks=24)
    parts = (component("transformer", 28 * GiB), encoder)
    made = question(inventory(*parts), machine(60, ram_gib=12), Choices(sets=(parse_set("dit=resident"),)))
    master = plan_by_rules(made).components["text_encoder"].master
    assert (master.mapped, master.pinned + master.pageable) == (0, 24)
