"""Answers are given to the very same calls alone, with the state that these left; records arrive as they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from any_bits import CPU, DTYPES, SHAPES, of_bits, sent
from roost.errors import RoostError
from roost.fleet.answers import Answer, Answers, Asked
from roost.fleet.tasks import Answered, Done, Onward, Part, Task
from roost.pipelines.calls import GenerationRequest
from roost.residency.engine.stages import StageRecord


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DTYPES), SHAPES, st.integers(0, 2**31))
def test_the_same_call_is_known_again_and_one_bit_more_or_less_is_another(dtype, shape, seed) -> None:
    tensor = of_bits(dtype, shape, seed)
    asked = Asked.of("text_encoder", "forward", [[tensor], {"scale": 0.5}])
    assert Asked.of("text_encoder", "forward", sent([[tensor], {"scale": 0.5}])) == asked
    assert Asked.of("text_encoder", "forward", [[tensor], {"scale": 0.25}]) != asked
    if tensor.numel() and dtype != torch.bool:
        raw = tensor.reshape(-1).view(torch.uint8).clone()
        raw[0] ^= 1
        other = raw.view(dtype).reshape(shape)
        assert Asked.of("text_encoder", "forward", [[other], {"scale": 0.5}]) != asked


def test_answers_are_given_in_their_order_and_only_to_their_calls() -> None:
    calls = [Asked.of("text_encoder", "forward", [[number], {}]) for number in range(3)]
    kept = Answers(CPU)
    for number, asked in enumerate(calls[:2]):
        kept.keep(asked, torch.full((2,), number), [])
    given_back = Answers(CPU, kept.all)
    assert given_back.give(calls[0], []).tolist() == [0, 0]
    assert (given_back.left, given_back.is_next(calls[1]), given_back.is_next(calls[2])) == (True, True, False)
    with pytest.raises(RoostError, match=r"the pipeline calls text_encoder.forward where .* or with other values"):
        given_back.give(calls[2], [])
    assert given_back.give(calls[1], []).tolist() == [1, 1]
    assert not given_back.left


def test_an_answer_takes_the_place_of_those_that_it_was_made_of() -> None:
    first, second, whole = (Asked(part, "forward", "0") for part in ("a", "b", "pipeline"))
    answers = Answers(CPU)
    answers.keep(first, 1, [])
    answers.keep(second, 2, [])
    answers.keep(whole, 3, [], first=1)
    assert [each.asked.part for each in answers.all] == ["a", "pipeline"]
    assert not answers.left


def test_a_call_leaves_random_state_behind_where_its_answer_is_opened() -> None:
    made, opened = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torch.rand(2)
        drawn = torch.rand(4, generator=made)
        answer = Answer.to(Asked("vae", "encode", "0"), drawn, [[made]], CPU)
        later = torch.rand(3), torch.rand(3, generator=made)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert torch.equal(answer.open([[opened]], CPU), drawn)
        assert torch.equal(torch.rand(3), later[0])
    assert torch.equal(torch.rand(3, generator=opened), later[1])


def test_a_call_with_what_can_t_be_sent_is_refused_by_name() -> None:
    with pytest.raises(RoostError) as refused:
        Asked.of("text_encoder", "forward", [[lambda: 1], {}])
    assert str(refused.value).startswith(
        "text_encoder.forward is given a function, which can't be sent to another worker"
    )


STAGE = StageRecord(name="decode", component="vae", phase="decode", seconds=0.25, peak_bytes=7)
ANSWER = Answer(Asked("vae", "encode", "0f"), b"\x00\xff")
CALL = GenerationRequest(prompt="a fox", seed=7, steps=3, more={"image": torch.ones(2), "width": 64})


@pytest.mark.parametrize(
    "record",
    [
        Task(
            call=CALL, key="k", shown="seed 7", outputs=["a.png", None], answers=[ANSWER], latents=b"\1", through=True
        ),
        Onward(
            component="vae",
            decodes=True,
            through=False,
            answers=[ANSWER],
            latents=b"",
            stages=[STAGE],
            nan_components=["unet"],
        ),
        Answered(payload=b"\2", stages=[STAGE], nan_components=[]),
        Done(
            parts=[Part(digest="d", has_nan=False, files=[("a.png", b"\3"), ("a.json", b"")])],
            latent_digest=None,
            seconds=0.5,
            stages=[STAGE],
            nan_components=[],
            resumed=("decode", 3),
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_records_arrive_as_they_were(record) -> None:
    again = type(record).unpack(record.pack())
    assert again.pack() == record.pack()
    if isinstance(record, Task):
        assert torch.equal(again.call.more["image"], CALL.more["image"])
        assert (again.call.prompt, again.answers, again.latents) == ("a fox", [ANSWER], b"\1")
    else:
        assert again == record
