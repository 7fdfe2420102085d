"""NaN in what a generation gives is told, once, and recorded."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_more_image_pipelines  # noqa: F401, only makes sure that the module is there
from live_pipelines import STRATEGIES, bare_digest, held_by, own_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.cli.app import run
from roost.residency.generate import generate
