"""Components loaded as shards: by rows from their files, or whole where a library makes something else of those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh

from roost.plan import ComponentPlan
from roost.residency.engine.initial_placement import Placer
from roost.residency.sharded.component import ShardedComponent, fill, shard_bytes, split
from roost.residency.sharded.values import FileRows, LoadedRows, Values, places_in
from roost.residency.weights.mapped_masters import StoredTensor
from roost.residency.weights.transfers import Transfers


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSource:
    """How a component can be made: ``shell`` builds it without values, ``load`` loads it whole.

    ``files`` are the tensors of its files; ``why_whole`` says why its values aren't those, if they aren't.
    """

    shell: Callable[[], torch.nn.Module]
    load: Callable[[], torch.nn.Module]
    files: Iterable[StoredTensor] = ()
    why_whole: str | None = None


def load_shards(
    name: str, plan: ComponentPlan, source: ShardSource, mesh: DeviceMesh, placer: Placer, transfers: Transfers
) -> ShardedComponent:
    """The component with this rank's shards on the device, for as long as that is open.

    Host memory peaks at the largest tensor's rows; where the component is loaded whole, at all of it, and a change
    says why. Raises OutOfMemory where the shards don't fit and nothing can give way.
    """
    with _values(name, source, transfers.changes) as (module, values):
        split(module, plan, mesh)
        placer.place_apart(name, lambda: fill(module, values, transfers.device, mesh), lambda: shard_bytes(module))
    return ShardedComponent(name=name, module=module, plan=plan)


@contextmanager
def _values(name: str, source: ShardSource, changes: list[str]) -> Iterator[tuple[torch.nn.Module, Values]]:
    """The module to split, and where its values are."""
    why = source.why_whole
    if why is None:
        module = source.shell()
        places = places_in(source.files, module)
        missing = next((each for each in module.state_dict(keep_vars=True) if each not in places), None)
        if missing is None:
            with FileRows(places) as rows:
                yield module, rows
            return
        why = f"its files have no {missing!r} as it loads"
        del module
    changes.append(f"{name}: every rank loaded it whole before it was sharded, because {why}")
    module = source.load()
    with LoadedRows(module) as loaded:
        yield module, loaded
