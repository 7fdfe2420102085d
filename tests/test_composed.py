"""What a component takes of a file that holds others, too."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import roost
from field_files import sdxl_checkpoint
from roost.api.models.inspect import inspect_model
from roost.api.plans.export.exported import common_notes

PLANNED = {"gpu": "rtx-3060", "ram": "32GiB", "policy": "rules", "measured": False}


def test_a_checkpoints_bytes_are_counted_once_over_its_components(tmp_path: Path) -> None:
    path = sdxl_checkpoint(tmp_path / "sd_xl_base_1.0.safetensors")
    inventory = inspect_model(path)
    stored_bytes = [each.bytes for each in inventory.components]
    assert 0.99 * path.stat().st_size < sum(stored_bytes) <= path.stat().st_size
    assert inventory.component("unet").bytes > 2 * inventory.component("text_encoder_2").bytes


def test_an_export_says_which_weights_the_target_does_not_take(tmp_path: Path) -> None:
    plan = roost.make_plan(sdxl_checkpoint(tmp_path / "x.safetensors"), **PLANNED)
    notes = list(common_notes("unet", plan.components["unet"]))
    assert any(note.startswith("unet: Roost takes its weights from ") and "x.safetensors" in note for note in notes)
