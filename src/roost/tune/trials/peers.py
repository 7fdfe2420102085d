"""diffusers' own ways to run a pipeline that doesn't fit, as candidates beside Roost's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from roost.facts.machine import DeviceKind
from roost.pipelines.internals.of_diffusers import takes_group_offload

# Puts the way in force on a pipeline whose weights are in host memory; the device is a torch.device.
Place = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way: ``place`` puts it in force, with ``params`` of diffusers' call. All of them need a CUDA device."""

    name: str
    strategy: str
    place: Place
    params: Mapping[str, object] = field(default_factory=dict)

    def why_not(self, device_kind: DeviceKind) -> str | None:
        """Why it can't be measured on such a device; None when it can."""
        if device_kind == "cuda":
            return None
        return "diffusers moves weights between the host and a CUDA device; on the CPU it would move nothing"


def offload_models(pipeline: Any, device: Any) -> None:
    """One whole component at a time on the device; it is moved back before the next comes in."""
    pipeline.enable_model_cpu_offload(device=device)


def offload_sequentially(pipeline: Any, device: Any) -> None:
    """One layer at a time on the device."""
    pipeline.enable_sequential_cpu_offload(device=device)


def offload_groups(pipeline: Any, device: Any, **params: object) -> None:
    """One block or layer at a time on the device, and with ``use_stream`` the next ahead of its use.

    Components that refuse it stay on the device, as diffusers' users have to do it.
    """
    refusing = [name for name, each in pipeline.components.items() if not takes_group_offload(each)]
    pipeline.enable_group_offload(onload_device=device, exclude_modules=refusing, **params)


def peer_named(name: str) -> Peer:
    """The peer of that name; KeyError when there is none."""
    return _BY_NAME[name]


def _group_peers() -> tuple[Peer, ...]:
    """Blocks and layers; without a stream, with one, and with one whose tensors the allocator is told of."""
    levels: dict[str, dict[str, object]] = {
        "block": {"offload_type": "block_level", "num_blocks_per_group": 1},
        "leaf": {"offload_type": "leaf_level"},
    }
    streams: dict[str, dict[str, object]] = {
        "": {},
        "+stream": {"use_stream": True},
        "+record_stream": {"use_stream": True, "record_stream": True},
    }
    return tuple(
        Peer(
            name=f"diffusers group offload {level}{stream}",
            strategy="group-offload",
            place=partial(offload_groups, **of_level, **of_stream),
            params={**of_level, **of_stream},
        )
        for level, of_level in levels.items()
        for stream, of_stream in streams.items()
    )


PEERS = (
    Peer(name="diffusers model offload", strategy="model-offload", place=offload_models),
    Peer(name="diffusers sequential offload", strategy="sequential-offload", place=offload_sequentially),
    *_group_peers(),
)
_BY_NAME = {peer.name: peer for peer in PEERS}
