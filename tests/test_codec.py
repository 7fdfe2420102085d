"""What goes to another worker arrives with every bit, lying as it lay; what can't be sent or read is one line."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy
import pytest
import torch
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from transformers.modeling_outputs import BaseModelOutputWithPooling

from any_bits import CPU, DTYPES, SHAPES, bits_of, of_bits, sent
from roost.errors import RoostError
from roost.fleet.codec import packed, unpacked
from roost.pipelines.described_values import Unkeepable, Unsent

LAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.transpose(0, -1) if tensor.ndim else tensor,
    "sliced": lambda tensor: tensor[1:] if tensor.ndim else tensor,
    "every other": lambda tensor: tensor[..., ::2] if tensor.ndim else tensor,
    "expanded": lambda tensor: tensor.unsqueeze(0).expand(3, *tensor.shape),
    "channels last": lambda tensor: (
        tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 and tensor.dtype.itemsize < 16 else tensor
    ),
    "windows": lambda tensor: tensor.reshape(-1).unfold(0, 2, 1) if tensor.numel() > 1 else tensor,
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DTYPES), SHAPES, st.sampled_from(sorted(LAYS)), st.integers(0, 2**31))
def test_a_tensor_arrives_with_every_bit_and_lies_as_it_lay(dtype, shape, lay, seed) -> None:
    tensor = LAYS[lay](of_bits(dtype, shape, seed))
    found = sent(tensor)
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert (found.stride(), found.storage_offset()) == (tensor.stride(), tensor.storage_offset())
    assert bits_of(found) == bits_of(tensor)


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.floats(), st.binary(max_size=5), st.just(b"\0")
)
VALUES = st.recursive(
    PLAIN | st.sampled_from(DTYPES) | st.builds(torch.ones, SHAPES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bits_of(one) == bits_of(other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if isinstance(one, float):
        return one.hex() == other.hex()
    return bool(one == other)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_nested_values_arrive_as_they_were(value) -> None:
    assert same(sent(value), value)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype=numpy.float16).reshape(2, 3).T,
        numpy.asfortranarray(numpy.arange(6, dtype=numpy.uint16).reshape(2, 3)),
        numpy.arange(6)[::-2],
        numpy.zeros((0, 3)),
        numpy.array(2.5),
        numpy.array([1 + 2j]),
    ],
    ids=str,
)
def test_arrays_arrive(array) -> None:
    found = sent(array)
    assert (type(found), found.dtype, found.shape) == (numpy.ndarray, array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert found.strides == numpy.array(array).strides


@pytest.mark.parametrize("value", [numpy.float32(1 / 3), numpy.int64(-5), numpy.bool_(True), numpy.complex128(1j)])
def test_numbers_of_numpy_keep_their_type(value) -> None:
    found = sent(value)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_arrive(mode) -> None:
    picture = Image.effect_mandelbrot((5, 3), (-2, -1, 1, 1), 50).convert(mode)
    found = sent([picture])[0]
    assert (found.mode, found.size, found.tobytes()) == (mode, (5, 3), picture.tobytes())


def test_outputs_of_the_libraries_arrive_as_their_classes() -> None:
    decoded, encoded = sent((DecoderOutput(sample=torch.ones(2)), BaseModelOutputWithPooling(pooler_output=(1,))))
    assert (type(decoded), decoded.sample.tolist()) == (DecoderOutput, [1, 1])
    assert (type(encoded), encoded.pooler_output, encoded.last_hidden_state) == (BaseModelOutputWithPooling, (1,), None)


def test_a_distribution_draws_there_what_it_would_draw_here() -> None:
    distribution = DiagonalGaussianDistribution(torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0)))
    drawn = [each.sample(torch.Generator().manual_seed(1)) for each in (distribution, sent(distribution))]
    assert torch.equal(*drawn)
    assert torch.equal(sent(distribution).mode(), distribution.mode())


def test_a_generator_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    found = unpacked(packed([generator]), CPU, iter([torch.Generator()]))[0]
    assert torch.equal(torch.rand(9, generator=found), torch.rand(9, generator=generator))


# What can't be sent.


class Cache:
    """What no other process can have."""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (lambda: 1, "function"),
        (Cache(), "Cache"),
        ({1, 2}, "set"),
        (OrderedDict(a=1), "OrderedDict"),
        ({True: 1}, "dict"),
        (1j, "complex"),
        (torch.eye(2).to_sparse(), "Tensor"),
        (torch.ones(2, device="meta"), "tensor of torch.float32 on meta"),
        (torch.ones(2).as_subclass(type("Packed", (torch.Tensor,), {})), "Packed"),
        (numpy.array(["a"]), "numpy array of <U1"),
        (numpy.array([object()]), "numpy array of object"),
        (numpy.arange(3, dtype=">f4"), "numpy array of >f4"),
        (numpy.ma.array([1, 2], mask=[0, 1]), "MaskedArray"),
        (Image.new("P", (2, 2)), "Image"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_can_t_be_sent_names_its_type_however_deep_it_is(value, named) -> None:
    with pytest.raises(Unkeepable) as refused:
        packed({"a": [1, (value,)]})
    assert str(refused.value) == named


def test_a_part_of_a_result_that_can_t_be_sent_is_missed_only_by_who_uses_it() -> None:
    found = unpacked(packed({"hidden": torch.ones(1), "cache": Cache()}, Unsent.describe), CPU)
    assert found["hidden"].item() == 1
    uses: list[Callable[[Any], Any]] = [
        lambda cache: cache.layers,
        lambda cache: cache[0],
        lambda cache: cache(),
        list,
    ]
    for use in uses:
        with pytest.raises(RoostError, match="a Cache can't be sent from one worker to another"):
            use(found["cache"])


# Bytes that nobody packed.

GOOD = packed({"a": torch.ones(3), "b": [1, torch.zeros(2, 2)]})
LAY = {"name": "a", "stride": [1], "offset": 0, "on_host": True}


def of_text(text: str) -> bytes:
    return save({"a": torch.ones(2)}, metadata={"roost": text})


def of_header(**tensor: Any) -> bytes:
    raw = json.dumps({"__metadata__": {"roost": "null"}, "a": tensor}).encode()
    return len(raw).to_bytes(8, "little") + raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        GOOD[:5],
        GOOD[:30],
        GOOD[:-3],
        GOOD + b"xx",
        (1 << 63).to_bytes(8, "little") + GOOD[8:],
        save({"a": torch.ones(2)}),
        of_header(dtype="F32", shape=[1 << 40], data_offsets=[0, 1 << 42]),
        of_header(dtype="F99", shape=[], data_offsets=[0, 0]),
        *map(of_text, ("[1, 2", "[" * 100_000, '{"list":' * 50_000, "[]", "{}", "1e999", '{"a": 1, "b": 2}')),
        *map(of_text, ('{"list": null}', '{"dict": [[1]]}', '{"dict": [[{}, 2]]}', '{"nothing": 1}', '{"float": 1}')),
        *map(of_text, ('{"dtype": "system"}', '{"dtype": 3}', '{"device": "nowhere"}', '{"output": [1]}')),
        of_text('{"output": ["os", "system", {"command": "true"}]}'),
        of_text('{"output": ["diffusers.models.autoencoders.vae", "DecoderOutput", {"nothing": 1}]}'),
        of_text(json.dumps({"generator": LAY})),
        *(
            of_text(json.dumps({"tensor": {**LAY, **changed}}))
            for changed in (
                {"name": "b"},
                {"stride": [1, 1]},
                {"stride": [-1]},
                {"stride": [10**20]},
                {"stride": [math.inf]},
                {"offset": -5},
                {"offset": 10**15},
                {"bytes_of": ["torch.complex128", 1]},
                {"bytes_of": ["os", 1]},
            )
        ),
    ],
)
def test_bytes_that_nobody_packed_are_one_line(raw) -> None:
    with pytest.raises(RoostError, match="what another worker sent can't be read") as refused:
        unpacked(raw, CPU)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_raise_nothing_else(changes) -> None:
    raw = bytearray(GOOD)
    for place, value in changes:
        raw[place] = value
    with suppress(RoostError):
        unpacked(bytes(raw), CPU)
