"""diffusers' own offloads as peers: each is put in force the way diffusers takes it, and changes no picture."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import torch
from diffusers import DiffusionPipeline

from live_pipelines import bare_digest, digest_without_plan, own_pipeline
from roost.tune.trials.peers import PEERS, Peer, peer_named

CPU = torch.device("cpu")
STREAMED = [each for each in PEERS if each.params.get("use_stream")]
# accelerate's sequential hooks can't tell weights that are used twice from each other when nothing moves.
NEED_CUDA = [*STREAMED, peer_named("diffusers sequential offload")]
ON_CPU = [each for each in PEERS if each not in NEED_CUDA]


def names(peers: list[Peer]) -> list[str]:
    return [each.name for each in peers]


def test_the_peers_are_all_of_diffusers_ways() -> None:
    assert names(list(PEERS)) == [
        "diffusers model offload",
        "diffusers sequential offload",
        "diffusers group offload block",
        "diffusers group offload block+stream",
        "diffusers group offload block+record_stream",
        "diffusers group offload leaf",
        "diffusers group offload leaf+stream",
        "diffusers group offload leaf+record_stream",
    ]


@pytest.mark.parametrize("peer", PEERS, ids=names(list(PEERS)))
def test_without_cuda_a_peer_says_why_it_is_skipped(peer: Peer) -> None:
    assert peer.why_not("cuda") is None
    assert "on the CPU it would move nothing" in str(peer.why_not("emulated"))


@pytest.mark.parametrize("peer", PEERS, ids=names(list(PEERS)))
def test_diffusers_takes_the_call_of_every_peer(peer: Peer) -> None:
    pipeline = create_autospec(DiffusionPipeline, instance=True)
    pipeline.components = {}
    peer.place(pipeline, CPU)
    (call,) = pipeline.method_calls
    assert call.kwargs.items() >= peer.params.items()
    assert CPU in call.kwargs.values()


def test_components_that_refuse_groups_stay_on_the_device() -> None:
    pipeline = create_autospec(DiffusionPipeline, instance=True)
    refusing = torch.nn.Linear(1, 1)
    refusing._supports_group_offloading = False
    pipeline.components = {"vae": refusing, "transformer": torch.nn.Linear(1, 1), "scheduler": object()}
    peer_named("diffusers group offload leaf").place(pipeline, CPU)
    assert pipeline.enable_group_offload.call_args.kwargs["exclude_modules"] == ["vae"]


@pytest.mark.dealt(2)
@pytest.mark.parametrize("peer", ON_CPU, ids=names(ON_CPU))
@pytest.mark.parametrize("family", ["wan2.2", "sdxl"])
def test_a_peer_changes_no_bit_of_the_first_and_the_second_picture(family: str, peer: Peer) -> None:
    pipeline = own_pipeline(family)
    peer.place(pipeline, CPU)
    assert [digest_without_plan(pipeline, family) for _ in range(2)] == [bare_digest(family)] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("peer", PEERS, ids=names(list(PEERS)))
def test_on_cuda_a_peer_gives_the_picture_and_keeps_fewer_weights_there(peer: Peer) -> None:
    cuda = torch.device("cuda")
    plain = own_pipeline("flux").to(cuda)
    expected = digest_without_plan(plain, "flux")
    resident_bytes = torch.cuda.memory_allocated()
    del plain
    pipeline = own_pipeline("flux")
    peer.place(pipeline, cuda)
    assert digest_without_plan(pipeline, "flux") == expected
    assert torch.cuda.memory_allocated() < resident_bytes
