"""One component that FSDP shards: built without values, split, and filled with this rank's rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from roost.blocks import block_names
from roost.pipelines.entries import entry_methods
from roost.pipelines.internals.of_torch import buffers_of, parameters_of, unfiled_names
from roost.plan import ComponentPlan
from roost.residency.device.interface import Device
from roost.residency.sharded.rows import rows_of
from roost.residency.sharded.values import Values

_ALIGNED_BYTES = 256  # each shard's beginning in its buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedComponent:
    """A component whose weights FSDP gathers and frees; Residency moves none of it."""

    name: str
    module: torch.nn.Module
    plan: ComponentPlan

    @property
    def planned(self) -> ComponentPlan:
        """What was planned of it, which nothing lowers."""
        return self.plan


def split(module: torch.nn.Module, plan: ComponentPlan, mesh: DeviceMesh) -> None:
    """Has FSDP shard each of the plan's blocks, then the rest. Afterwards the module has no values, and wants none.

    Its weights are frozen before: FSDP takes those that train in one dtype only.
    """
    _empty(module)
    whole = {each for each in module.parameters() if not each.ndim}  # nothing to split
    for name in block_names(tuple(each.stack for each in plan.stacks)):
        _shard(module.get_submodule(name), mesh, whole)
    _shard(module, mesh, whole)
    for method in entry_methods(module):
        if method != "forward":
            register_fsdp_forward_method(module, method)


def _shard(module: torch.nn.Module, mesh: DeviceMesh, whole: set[torch.nn.Parameter]) -> None:
    """Has FSDP shard what no module in it has sharded. All is freed after use, roots too: another may be used next."""
    kind = type(module)
    fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # FSDP gives it a class of another name, and libraries find by its name what a class can do: transformers, whether
    # it gives hidden states.
    for name in ("__module__", "__name__", "__qualname__"):
        setattr(type(module), name, getattr(kind, name))


def _empty(module: torch.nn.Module) -> None:
    """Takes the values of all weights away, and keeps which are the same one."""
    empty: dict[int, torch.nn.Parameter] = {}
    kept = []  # while an identity stands for a weight, nothing else may have it
    for part in module.modules():
        for name, weight in parameters_of(part).items():
            if weight is not None:
                kept.append(weight)
                made = torch.nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
                parameters_of(part)[name] = empty.setdefault(id(weight), made)


def shard_bytes(module: torch.nn.Module) -> int:
    """What this rank's shards of a split module take in one buffer."""
    return sum(_room(_local(each)) for each in module.parameters())


def fill(module: torch.nn.Module, values: Values, device: Device, mesh: DeviceMesh) -> None:
    """Gives a split module this rank's rows, in one buffer of the device that is never freed.

    Raises torch.OutOfMemoryError where it doesn't fit. What the module has beside weights is read whole.
    """
    buffer = device.allocate(shard_bytes(module))
    filled: dict[int, torch.nn.Parameter] = {}
    kept, offset = [], 0
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, weight in parameters_of(part).items():
            if weight is None:
                continue
            kept.append(weight)
            if id(weight) not in filled:
                room = _room(_local(weight))
                memory = buffer[offset : offset + room]
                filled[id(weight)] = _filled(weight, prefix + name, memory, values, mesh)
                offset += room
            parameters_of(part)[name] = filled[id(weight)]
        _read_buffers(part, prefix, values)


def _filled(
    weight: torch.nn.Parameter, name: str, memory: torch.Tensor, values: Values, mesh: DeviceMesh
) -> torch.nn.Parameter:
    empty = _local(weight)
    local = memory[: empty.nbytes].view(weight.dtype).view(empty.shape)
    first, end = rows_of(mesh.get_local_rank(), mesh.size(), weight.shape[0]) if weight.ndim else (0, 1)
    if empty.numel():
        local.copy_(values.rows(name, first, end))
    if not isinstance(weight, DTensor):
        return torch.nn.Parameter(local, requires_grad=False)
    spread = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride())
    return torch.nn.Parameter(spread, requires_grad=False)


def _local(weight: torch.Tensor) -> torch.Tensor:
    """This rank's part."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _room(shard: torch.Tensor) -> int:
    return -(-shard.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES


def _read_buffers(part: torch.nn.Module, prefix: str, values: Values) -> None:
    for name, each in buffers_of(part).items():
        if each is not None and name not in unfiled_names(part):
            each.copy_(values.rows(prefix + name, 0, each.shape[0] if each.ndim else 1))
