"""A component's tensors as they are: every one once, in the block or trunk that moves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from roost.blocks import TRUNK, home_unit
from roost.errors import UsageError
from roost.pipelines.formats.packed_tensors import dotted, is_packed, parts_of
from roost.pipelines.internals.of_torch import BUFFERS, PARAMETERS


@dataclass(slots=True, eq=False)
class Entry:
    """One piece of memory with every parameter or buffer object that stands for it, and all their dotted names.

    The objects themselves stay for good: only their ``data`` is bound to other memory. Where they are parts of packed
    weights, ``held_as`` has the names of those, and ``wholes`` those that begin here.
    """

    objects: list[torch.Tensor]
    names: list[str] = field(default_factory=list)
    held_as: list[str] = field(default_factory=list)
    wholes: list[torch.Tensor] = field(default_factory=list)

    @property
    def tensor(self) -> torch.Tensor:
        return self.objects[0]

    @property
    def extent(self) -> int:
        """Elements from the first to the last one in memory; gaps of a strided tensor included."""
        tensor = self.tensor
        if tensor.numel() == 0:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))

    @property
    def address(self) -> int:
        return self.tensor.data_ptr()


def take_census(module: torch.nn.Module, blocks: Iterable[str]) -> dict[str, list[Entry]]:
    """Every tensor of ``module`` by the unit it moves with: the trunk first, then the blocks.

    A tensor that several blocks share, or a block and the rest, or whose memory overlaps that of another unit, belongs
    to the trunk: it must outlive each of them. So does all of a packed weight of which the first part is such a tensor.
    Raises UsageError for one that can't be moved.
    """
    units: dict[str, list[Entry]] = {name: [] for name in (TRUNK, *blocks)}
    entries: dict[object, Entry] = {}
    homes: dict[object, str] = {}
    joined: list[list[object]] = []  # the parts of each packed weight
    for name, tensor in named_tensors(module):
        keys, parts = [], parts_of(tensor)
        for suffix, part in parts:
            _check_movable(module, dotted(name, suffix), part)
            keys.append(_note(part, name, suffix, entries))
            home = home_unit(name, units)
            homes[keys[-1]] = home if homes.get(keys[-1], home) == home else TRUNK
        if parts[0][1] is not tensor:
            _add(entries[keys[0]].wholes, tensor)
        if len(keys) > 1:
            joined.append(keys)
    _join_overlapping(entries, homes)
    homes |= {key: TRUNK for keys in joined if homes[keys[0]] == TRUNK for key in keys}
    for key, entry in entries.items():
        units[homes[key]].append(entry)
    return units


def _note(part: torch.Tensor, held_as: str, suffix: str, entries: dict[object, Entry]) -> object:
    """Puts the part into the entry of its memory; returns that one's key."""
    key = _memory(part)
    entry = entries.setdefault(key, Entry([]))
    entry.names.append(dotted(held_as, suffix))
    entry.held_as.append(held_as)
    _add(entry.objects, part)
    return key


def _add(tensors: list[torch.Tensor], tensor: torch.Tensor) -> None:
    if all(each is not tensor for each in tensors):
        tensors.append(tensor)


def named_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers with their dotted names; shared ones once for each name."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def attribute_tensors(part: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that a module keeps beside its parameters and buffers, directly or in a list or a dict."""
    for attribute, value in vars(part).items():
        if attribute in (PARAMETERS, BUFFERS):
            continue
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        yield from ((attribute, each) for each in values if isinstance(each, torch.Tensor))


def _join_overlapping(entries: Mapping[object, Entry], homes: dict[object, str]) -> None:
    """Sends overlapping pieces of memory to the trunk when they are seen by different units."""
    last: object = None
    end = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1].address):
        if entry.extent == 0:
            continue
        if last is not None and entry.address < end and homes[key] != homes[last]:
            homes[key] = homes[last] = TRUNK
        reach = entry.address + entry.extent * entry.tensor.element_size()
        if reach > end:
            last, end = key, reach


def _check_movable(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    known = type(tensor) in (torch.Tensor, torch.nn.Parameter) or is_packed(tensor)
    if known and not tensor.is_meta and tensor.layout == torch.strided:
        return
    problem = "was never loaded" if tensor.is_meta else f"is a {type(tensor).__name__}"
    raise UsageError(
        f"{type(module).__name__}: weight {name!r} {problem}, which can't be moved between host and device; "
        "load the component's plain, unquantised weights."
    )


def same_memory(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both are the same bytes seen the same way, wherever they are."""
    return (
        tensor.data_ptr() == other.data_ptr()
        and tensor.dtype == other.dtype
        and tensor.shape == other.shape
        and tensor.stride() == other.stride()
    )


def _memory(tensor: torch.Tensor) -> object:
    """Equal for tensors that are the same bytes seen the same way."""
    if tensor.numel() == 0:
        return id(tensor)
    return (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
