"""Misuse of a held pipeline is loud, in one line, and costs nothing: the next call is exact."""

import copy
import io
import pickle
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from live_pipelines import STRATEGIES, bare_digest, held_by, live_pipeline, own_pipeline, request_for, state_of
from plans import LAYERWISE, plan_for
from roost.errors import RoostError
from roost.residency.run.generate import generate
from toy_pipelines import state, toy_pipeline

MISUSES: dict[str, Callable[[Any], Any]] = {
    "pipeline.to": lambda pipeline: pipeline.to("cpu"),
    "pipeline.enable_model_cpu_offload": lambda pipeline: pipeline.enable_model_cpu_offload(),
    "pipeline.enable_sequential_cpu_offload": lambda pipeline: pipeline.enable_sequential_cpu_offload(),
    "pipeline.enable_group_offload": lambda pipeline: pipeline.enable_group_offload(torch.device("cpu")),
    "pipeline.remove_all_hooks": lambda pipeline: pipeline.remove_all_hooks(),
    "transformer.enable_group_offload": lambda pipeline: pipeline.transformer.enable_group_offload(torch.device("cpu")),
    "vae.enable_layerwise_casting": lambda pipeline: pipeline.vae.enable_layerwise_casting(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("strategy", ["resident", LAYERWISE], ids=["resident", "layerwise"])
def test_other_ways_of_moving_weights_are_refused_and_nothing_is_lost(strategy: Any) -> None:
    pipeline = live_pipeline("flux")
    assert bare_digest("flux")  # a first call leaves settings of its own on a pipeline
    before = state_of(pipeline)
    with held_by(pipeline, plan_for(pipeline, strategy)) as held:
        for name, misuse in MISUSES.items():
            with pytest.raises(RoostError, match=rf"^{name}\(\) can't be used while a Roost plan holds"):
                misuse(pipeline)
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
    assert state_of(pipeline) == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_saving_between_generations_writes_the_weights_and_the_next_one_is_exact(strategy: str, tmp_path: Path) -> None:
    pipeline = own_pipeline("flux")
    pipeline.transformer.save_pretrained(tmp_path / "before")
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        generate(held, request_for("flux"))
        pipeline.transformer.save_pretrained(tmp_path / "held")
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
    wanted, saved = (next((tmp_path / name).glob("*.safetensors")) for name in ("before", "held"))
    assert wanted.read_bytes() == saved.read_bytes()
    assert load_file(saved)


def test_saving_during_a_call_is_refused() -> None:
    pipeline = toy_pipeline()
    caught: list[str] = []

    def save(*_: object) -> None:
        try:
            pipeline.transformer.state_dict()
        except RoostError as error:
            caught.append(str(error))

    with torch.no_grad(), held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        right = pipeline.transformer(state())
        handle = pipeline.transformer.blocks[2].register_forward_hook(save)
        assert torch.equal(pipeline.transformer(state()), right)
        handle.remove()
    assert caught == ["transformer.state_dict() can't be read while it runs; save it after the call."]


def from_another_thread(work: Callable[[], object]) -> list[str]:
    """What ``work`` raises in a thread of its own."""
    raised: list[str] = []

    def run() -> None:
        try:
            with torch.no_grad():
                work()
        except RoostError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_a_second_thread_can_neither_call_nor_end_a_generation_meanwhile() -> None:
    pipeline = toy_pipeline()
    raised: list[str] = []
    with torch.no_grad(), held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        right = pipeline.transformer(state())

        def intrude(*_: object) -> None:
            raised.extend(from_another_thread(lambda: pipeline.vae(state())))
            raised.extend(from_another_thread(held.runtime.end_call))

        handle = pipeline.transformer.blocks[2].register_forward_hook(intrude)
        assert torch.equal(pipeline.transformer(state()), right)
        handle.remove()
        assert from_another_thread(lambda: pipeline.transformer(state())) == []
    assert raised == ["another thread is running this pipeline; call it from one thread at a time."] * 2


def test_training_and_running_statistics_are_refused() -> None:
    pipeline = toy_pipeline()
    pipeline.vae.norm = torch.nn.BatchNorm1d(8)
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        pipeline.transformer.train()
        with pytest.raises(RoostError, match="transformer is in training mode"):
            pipeline.transformer(state())
        pipeline.transformer.eval()
        with torch.no_grad():
            right = pipeline.transformer(state())
            pipeline.vae.train()
            with pytest.raises(RoostError, match="running statistics change; call eval"):
                pipeline.vae(state())
            pipeline.vae.eval()
            assert torch.equal(pipeline.transformer(state()), right)
            pipeline.vae(right)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_helper_called_with_gradients_enabled_works_as_without_a_plan(
    strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = own_pipeline("flux")
    for name in ("text_encoder", "text_encoder_2"):
        getattr(pipeline, name).requires_grad_(True)
    with torch.no_grad():  # where gradients are on, attention takes another kernel
        right = pipeline.encode_prompt("a fox", "a fox", max_sequence_length=16)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        for _ in range(2):
            encoded = pipeline.encode_prompt("a fox", "a fox", max_sequence_length=16)
            assert all(map(torch.equal, encoded, right))
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
    (notice,) = caplog.records
    assert "runs as inside torch.no_grad()" in notice.getMessage()
    assert pipeline.text_encoder(torch.tensor([[1, 2]])).last_hidden_state.requires_grad


def test_gradients_that_are_asked_for_are_refused_unless_they_are_right() -> None:
    pipeline = toy_pipeline()
    wanted = state().requires_grad_(True)
    (right,) = torch.autograd.grad(pipeline.transformer(wanted).sum(), wanted)
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)):
        for inputs in ((wanted,), (wanted * 2,)):
            with pytest.raises(RoostError, match=r"input that requires them; .*torch\.no_grad\(\)"):
                pipeline.transformer(*inputs)
        with torch.no_grad():
            pipeline.transformer(wanted)
        assert not pipeline.transformer(state()).requires_grad
    with held_by(pipeline, plan_for(pipeline, "resident")):
        (found,) = torch.autograd.grad(pipeline.transformer(wanted).sum(), wanted)
        assert torch.equal(found, right)
        pipeline.transformer.requires_grad_(True)
        with pytest.raises(RoostError, match="input that requires them"):
            pipeline.transformer(wanted)


COPIES: dict[str, Callable[[Any], object]] = {
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle.dumps": pickle.dumps,
    "torch.save": lambda each: torch.save(each, io.BytesIO()),
}


@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_what_is_held_are_refused_in_one_line_and_work_afterwards(copied: str) -> None:
    pipeline = own_pipeline("flux")
    parts: dict[str, Any] = {
        "the pipeline": pipeline,
        "transformer": pipeline.transformer,
        "text_encoder_2": pipeline.text_encoder_2,
        "transformer.transformer_blocks.1": pipeline.transformer.transformer_blocks[1],
        "vae.decoder.conv_in": pipeline.vae.decoder.conv_in,
    }
    with held_by(pipeline, plan_for(pipeline, LAYERWISE)) as held:
        for name, part in parts.items():
            with pytest.raises(RoostError, match=rf"^{re.escape(name)} can't be copied or pickled .*detach") as refused:
                COPIES[copied](part)
            assert "\n" not in str(refused.value)
        torch.save(pipeline.transformer.state_dict(), io.BytesIO())
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
    for name in ("transformer", "transformer.transformer_blocks.1", "vae.decoder.conv_in"):
        COPIES[copied](parts[name])
