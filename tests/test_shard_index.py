"""A shard index against the headers of its shards: every tensor listed once, where it is, and none that is nowhere."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from roost.errors import InvalidFile
from roost.probes.files.headers import Header
from roost.probes.model.shard_index import check_against_headers, read_index

PLACES = {"a.weight": "one.safetensors", "b.weight": "one.safetensors", "c.weight": "two.safetensors"}


def header(*names: str) -> Header:
    sizes: Mapping[str, Mapping[str, int]] = {"BF16": dict.fromkeys(names, 2)} if names else {}
    return Header(sizes=sizes, metadata={}, payload_bytes=2 * len(names), file_bytes=0, sha256="")


def check(places: Mapping[str, str], **shards: Header) -> None:
    index = read_index("transformer/x.safetensors.index.json", {"metadata": {}, "weight_map": places}, ".safetensors")
    check_against_headers(index, {f"{name}.safetensors": each for name, each in shards.items()})


def test_an_index_that_lists_just_what_its_shards_hold_passes() -> None:
    check(PLACES, one=header("a.weight", "b.weight"), two=header("c.weight"))


@pytest.mark.parametrize("absent", PLACES)
def test_a_listed_tensor_that_no_shard_holds_is_named_with_the_shard_that_should(absent: str) -> None:
    held = {name: [each for each in PLACES if PLACES[each] == name and each != absent] for name in PLACES.values()}
    with pytest.raises(InvalidFile, match=rf"'?{PLACES[absent]}'? holds '{absent}', which it doesn't"):
        check(PLACES, one=header(*held["one.safetensors"]), two=header(*held["two.safetensors"]))


@pytest.mark.parametrize("places", [{**PLACES, "c.weight": "one.safetensors"}, {"a.weight": "one.safetensors"}])
def test_a_tensor_that_lies_elsewhere_or_is_not_listed_is_refused(places: dict[str, str]) -> None:
    with pytest.raises(InvalidFile, match=r"holds '(b|c)\.weight', which .* (places in|doesn't list)"):
        check(places, one=header("a.weight", "b.weight"), two=header("c.weight"))


def test_a_tensor_in_two_shards_is_refused() -> None:
    with pytest.raises(InvalidFile, match=r"two\.safetensors.? holds 'a\.weight'"):
        check(PLACES, one=header("a.weight", "b.weight"), two=header("c.weight", "a.weight"))
