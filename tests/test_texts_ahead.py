"""Texts of many generations are encoded first, and every picture has the bits that it has alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from live_pipelines import STRATEGIES, held_by, own_pipeline, request_for, state_of
from plans import LAYERWISE, plan_for
from roost.pipelines.calls import GenerationRequest
from roost.residency.hold.attach import Held
from roost.residency.run import texts_ahead
from roost.residency.run.generate import generate
from roost.residency.run.texts_ahead import TextsAhead, Unkeepable, keep

PROMPTS = ("a fox", "a red goose in the snow", "a fox")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def _requests(name: str) -> list[GenerationRequest]:
    first = request_for(name)
    return [replace(first, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]


def _alone(pipeline: Any, plan: Any, requests: list[GenerationRequest]) -> list[str]:
    digests = []
    for request in requests:
        with held_by(pipeline, plan) as held:
            digests.append(generate(held, request).digest)
    return digests


@contextmanager
def _counted(held: Held) -> Iterator[list[str]]:
    """The stages that components enter, in their order."""
    entered: list[str] = []
    held.recorder.on_event = lambda event: entered.append(event.component) if event.what == "begin" else None
    yield entered


@pytest.mark.dealt(2)
@pytest.mark.parametrize(
    "name",
    [
        *("wan2.2", "flux", "sdxl", "qwen-image", "hunyuanvideo"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("sd3", "ltx", "cogvideox", "z-image")),
    ],
)
def test_every_generation_has_the_bits_that_it_has_alone(name: str) -> None:
    pipeline = own_pipeline(name)
    plan, requests = plan_for(pipeline, LAYERWISE), _requests(name)
    alone = _alone(pipeline, plan, requests)
    assert len(set(alone)) == len(alone)
    with held_by(pipeline, plan) as held, TextsAhead(held, requests) as texts, _counted(held) as entered:
        digests = []
        for index, request in enumerate(requests):
            texts.reach(index)
            before = len(entered)
            digests.append(generate(held, request).digest)
            assert not [each for each in entered[before:] if each.startswith("text_encoder")]
    assert texts.why_not is None
    assert digests == alone
    assert texts.stages
    assert all(each.name == "text encode" for each in texts.stages)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_texts_come_first_under_every_strategy(strategy: str) -> None:
    pipeline = own_pipeline("flux")
    plan, requests = plan_for(pipeline, STRATEGIES[strategy]), _requests("flux")[:2]
    alone = _alone(pipeline, plan, requests)
    before = state_of(pipeline)
    with held_by(pipeline, plan) as held, TextsAhead(held, requests) as texts:
        texts.reach(0)
        resident = {name for name, each in held.runtime.components.items() if each.resident}
        present = {name for name, each in held.runtime.components.items() if each.present}
        assert present <= resident
        assert [generate(held, request).digest for request in requests] == alone
    assert state_of(pipeline) == before


def test_more_texts_than_memory_may_hold_are_encoded_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_ahead, "_MOST_BYTES", 1)
    pipeline = own_pipeline("flux")
    plan, requests = plan_for(pipeline, LAYERWISE), _requests("flux")
    alone = _alone(pipeline, plan, requests)
    with held_by(pipeline, plan) as held, TextsAhead(held, requests) as texts:
        digests = []
        for index, request in enumerate(requests):
            texts.reach(index)
            digests.append(generate(held, request).digest)
    assert digests == alone
    assert len([each for each in texts.stages if each.component == "text_encoder"]) == len(PROMPTS)


def _sets_an_attribute(pipeline: Any) -> str:
    encode = pipeline.encode_prompt

    def encode_prompt(prompt: Any, **options: Any) -> Any:
        pipeline._last = object()
        return encode(prompt=prompt, **options)

    pipeline.encode_prompt = encode_prompt
    return "'_last'"


def _returns_something_else(pipeline: Any) -> str:
    encode = pipeline.encode_prompt
    pipeline.encode_prompt = lambda prompt, **options: _Embeddings(encode(prompt=prompt, **options))
    return "_Embeddings"


def _is_given_something_else(pipeline: Any) -> str:
    encode = pipeline.encode_prompt
    pipeline.encode_prompt = lambda prompt, extra=object(), **options: encode(prompt=prompt, **options)  # noqa: B008
    return "object"


def _decodes_first(pipeline: Any) -> str:
    check = pipeline.check_inputs

    def check_inputs(*args: Any, **options: Any) -> None:
        pipeline.vae.decode(torch.zeros(1, 4, 8, 8))
        check(*args, **options)

    pipeline.check_inputs = check_inputs
    return "other components"


class _Embeddings(tuple):
    """Of a type that nobody knows."""


@pytest.mark.dealt(2)
@pytest.mark.parametrize(
    "spoil", [_sets_an_attribute, _returns_something_else, _is_given_something_else, _decodes_first]
)
def test_texts_that_can_t_be_kept_exactly_are_encoded_with_each_and_the_reason_is_said(spoil: Any) -> None:
    pipeline = own_pipeline("flux")
    plan, requests = plan_for(pipeline, LAYERWISE), _requests("flux")
    alone = _alone(pipeline, plan, requests)
    said = spoil(pipeline)
    with held_by(pipeline, plan) as held, TextsAhead(held, requests) as texts, _counted(held) as entered:
        texts.reach(0)
        assert texts.why_not is not None
        assert said in texts.why_not
        assert [generate(held, request).digest for request in requests] == alone
    assert len([each for each in entered if each == "text_encoder"]) >= len(PROMPTS)


def test_a_pipeline_without_encode_prompt_says_so() -> None:
    pipeline = own_pipeline("flux")
    pipeline.encode_prompt = None
    with held_by(pipeline, plan_for(pipeline)) as held, TextsAhead(held, _requests("flux")) as texts:
        texts.reach(0)
        assert texts.why_not == "FluxPipeline has no encode_prompt"


def test_what_is_kept_is_copied_out_as_it_lay_and_edits_of_it_stay_out() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    view = whole[1:, 2:].T
    give, size = keep([(view, None), {"mask": torch.ones(2, dtype=torch.bool)}])
    whole.zero_()
    for _ in range(2):
        (copy, none), masks = give()
        assert torch.equal(copy, torch.arange(24.0).reshape(4, 6)[1:, 2:].T)
        assert (copy.stride(), copy.storage_offset(), none) == (view.stride(), view.storage_offset(), None)
        assert masks["mask"].all()
        copy.fill_(7)
    assert size == 24 * 4 + 2


def test_what_can_t_be_copied_is_refused_by_its_type() -> None:
    with pytest.raises(Unkeepable, match="object"):
        keep([object()])
