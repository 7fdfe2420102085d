"""Higher-order operators, such as flex attention, are watched and dry-run as the operations that they are made of."""

from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention

from plans import GIB
from roost.probes.dry_run.recorder import Recorder
from roost.probes.dry_run.world import FakeWorld
from roost.residency.device.emulated import EmulatedDevice

SHAPE = (1, 2, 128, 16)
SCORE_BYTES = 4 * 2 * 128 * 128


def causal(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
    return query >= key


def attend(query: torch.Tensor) -> torch.Tensor:
    mask = flex_attention.create_block_mask(causal, None, None, 128, 128, device="cpu")
    return flex_attention.flex_attention(query, query, query, block_mask=mask)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_flex_attention_under_the_watch_has_its_bits_and_its_scores_count(mode: Any) -> None:
    with mode(), EmulatedDevice(GIB, count_activations=True) as device:
        query = torch.randn(SHAPE)
        right = attend(query)
        with device.counting_activations():
            assert torch.equal(attend(query), right)
        assert device.peak_bytes >= SCORE_BYTES


def test_flex_attention_is_dry_run_with_its_scores_and_work() -> None:
    world = FakeWorld()
    query = world.empty(SHAPE, (2 * 128 * 16, 128 * 16, 16, 1), torch.float32)
    recorder = Recorder([], [query])
    world.observer = recorder
    with torch.no_grad(), world:
        assert attend(query).shape == SHAPE
    assert recorder.activation_bytes().peak_bytes >= SCORE_BYTES
    assert recorder.frames[0].work.by_class["matmul"][0] == 2 * (2 * 2 * 128 * 128 * 16)
    assert not flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG


def test_torch_still_has_the_two_names_that_the_dry_run_exchanges() -> None:
    assert flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG is False
    assert isinstance(flex_attention.flex_attention_hop, torch._ops.HigherOrderOperator)
