"""Plans with LoRAs: bytes as the runtime has them, work and activations above what is measured, one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import roost
from live_pipelines import live_pipeline
from plans import LAYERWISE, plan_for
from roost.api.models.inspect import inspect_model
from roost.api.models.loras import with_loras
from roost.blocks import block_names
from roost.cli.app import run
from roost.facts.loras import LoraFile
from roost.planner.buffers import block_buffers
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.side_paths import with_work
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.loader import Source, load_held
from roost.residency.run.loras import LoraLoader
from tiny_loras import lora_file
from tiny_models import build
from traces import trace_of  # noqa: F401

pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")

SMALL = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--size", "64x64", "--steps", "2", "--no-measured")
