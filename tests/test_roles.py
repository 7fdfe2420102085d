"""Roles load their own modules and the extras that the family needs; unknown weights go everywhere, with a warning."""

from __future__ import annotations

import pytest

from roost.errors import UsageError
from roost.planner.by_rules import plan_by_rules
from roost.planner.rules.roles import parse_role, role_of, view
from worlds import component, inventory, machine, profile, question

MODEL = inventory(
    component("transformer", 100, blocks=2),
    component("transformer_2", 100, blocks=2, position=1),
    component("text_encoder", 50, position=2),
    component("vae", 7, position=3),
    weightless=("scheduler", "tokenizer", "tokenizer_2", "guider"),
)


@pytest.mark.parametrize(
    ("text", "role"),
    [("Encode", "encoder"), ("denoising", "denoiser"), ("DECODE", "decoder"), (" monolithic ", "monolithic")],
)
def test_aliases_in_any_case(text: str, role: str) -> None:
    assert parse_role(text) == role


def test_unknown_role_lists_the_valid_ones() -> None:
    with pytest.raises(UsageError, match="monolithic, encoder, denoiser, decoder"):
        parse_role("trainer")


@pytest.mark.parametrize(
    ("module", "role"),
    [
        ("text_encoder_2", "encoder"),
        ("tokenizer_3", "encoder"),
        ("transformer_2", "denoiser"),
        ("controlnet_1", "denoiser"),
        ("audio_vae", "decoder"),
        ("vae_2", "decoder"),
        ("scheduler", None),
        ("transformers", None),
    ],
)
def test_longest_matching_key_decides(module: str, role: str | None) -> None:
    assert role_of(module) == role


@pytest.mark.parametrize(
    ("role", "loads", "keeps"),
    [
        ("monolithic", ("transformer", "transformer_2", "text_encoder", "vae"), MODEL.weightless),
        ("encoder", ("text_encoder",), MODEL.weightless),
        ("denoiser", ("transformer", "transformer_2"), ("scheduler", "guider")),
        ("decoder", ("vae",), ("scheduler", "guider")),
        ("encoder-decoder", ("text_encoder", "vae"), MODEL.weightless),
    ],
)
def test_each_role_loads_its_own_modules(role, loads, keeps) -> None:
    found = view(MODEL, profile(), role)
    assert (found.loads, found.keeps) == (loads, keeps)
    assert set(found.skips) == {*loads, *MODEL.weightless, "transformer", "transformer_2", "text_encoder", "vae"} - {
        *loads,
        *keeps,
    }


def test_family_extras_add_modules_to_a_role() -> None:
    found = view(MODEL, profile(role_extras={"encoder": ("vae", "transformer")}), "encoder")
    assert found.loads == ("transformer", "transformer_2", "text_encoder", "vae")


def test_unknown_component_with_weights_is_loaded_by_every_role_and_costed() -> None:
    model = inventory(*MODEL.components, component("mystery", 4096, position=9))
    found = view(model, profile(), "decoder")
    assert "mystery" in found.loads
    assert found.load_bytes == 4096 + 7
    assert any("mystery" in each and "4.00 KiB" in each for each in found.warnings)


def test_a_role_plan_places_and_orders_only_what_it_loads() -> None:
    plan = plan_by_rules(question(MODEL, machine(24), role="denoiser"))
    assert plan.load_order == ["transformer_2", "transformer"]
    assert set(plan.components) == {"transformer", "transformer_2"}
    assert plan.role.stages == ("denoise",)
