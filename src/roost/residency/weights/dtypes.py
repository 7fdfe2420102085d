"""A component's weights in every dtype that someone made it change to, so that going back and forth packs nothing.

SDXL's pipelines raise a half-precision VAE to float32 for each decode and lower it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from roost.pipelines.internals.of_torch import buffers_of, parameters_of
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit

_COMPARED = 4 * 1024**2  # elements at a time, so that the comparison needs no second copy of a weight


@dataclass(frozen=True, slots=True)
class Image:
    """The units of a component in one dtype, with their masters, and the places of its parameters and buffers."""

    units: dict[str, Unit]
    parameters: frozenset[tuple[int, str, int]]
    buffers: list[tuple[dict[str, Any], str, torch.Tensor | None]]  # conversions put new objects into these

    @classmethod
    def of(cls, module: torch.nn.Module, units: Mapping[str, Unit]) -> Image:
        """The component as it is now."""
        parts = list(module.modules())
        return cls(
            dict(units),
            frozenset((id(vars(part)), key, id(each)) for part in parts for key, each in parameters_of(part).items()),
            [(buffers_of(part), key, each) for part in parts for key, each in buffers_of(part).items()],
        )

    @property
    def bytes(self) -> int:
        return sum(unit.bytes for unit in self.units.values())

    @property
    def dtype(self) -> torch.dtype | None:
        """The one of all weights that have a floating point; None when there are several."""
        found = {
            span.dtype for unit in self.units.values() for span in unit.layout.spans if span.dtype.is_floating_point
        }
        return found.pop() if len(found) == 1 else None

    def shows(self, other: Image) -> bool:
        """Whether it has just the bytes that ``other`` would have after a conversion to its dtype.

        People change weights in place, so that is looked at every time; it is still faster than packing them.
        """
        return (
            self.parameters == other.parameters
            and [(id(table), key) for table, key, _ in self.buffers]
            == [(id(table), key) for table, key, _ in other.buffers]
            and all(_shows(mine, theirs) for mine, theirs in zip(self._tensors(), other._tensors(), strict=True))
        )

    def put(self) -> None:
        """Makes the module have these units' weights."""
        for table, key, each in self.buffers:
            table[key] = each
        for unit in self.units.values():
            assert unit.master is not None, "what is not on the device has a master"
            unit.move_to(unit.master)

    def _tensors(self) -> Iterator[tuple[list[str], torch.Tensor]]:
        for unit in self.units.values():
            views = [] if unit.master is None else unit.master.views
            yield from ((entry.names, view) for entry, view in zip(unit.entries, views, strict=True))


class Images:
    """The images of one component that are worth keeping, within the host memory that the plan leaves.

    ``planned_bytes`` of host memory are the plan's own for the component.
    """

    def __init__(self, name: str, transfers: Transfers, planned_bytes: int) -> None:
        self._name, self._transfers, self._planned_bytes = name, transfers, planned_bytes
        self._kept: dict[torch.dtype, Image] = {}
        self._reserved_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def find(self, dtype: torch.dtype, now: Image) -> Image | None:
        """The image that a conversion of ``now`` to ``dtype`` would give."""
        kept = self._kept.get(dtype)
        return kept if kept is not None and kept.shows(now) else None

    def keep(self, before: Image, now: Image) -> list[Unit]:
        """Keeps both, where host memory is left for more than the plan's own; returns the units that aren't kept."""
        wanted = self._kept | {image.dtype: image for image in (before, now) if image.dtype is not None}
        left = [*self._kept.values(), before]
        needed = sum(image.bytes for image in wanted.values()) - self._planned_bytes - self._reserved_bytes
        if self._transfers.reserve_host(needed):
            self._reserved_bytes += needed
            self._kept = wanted
        else:
            self.drop()
            self._say_once(
                f"{self._name}: its weights are packed anew at every change of dtype, because host memory is too short "
                "for both"
            )
        staying = {*now.units.values(), *(unit for image in self._kept.values() for unit in image.units.values())}
        return [unit for image in left for unit in image.units.values() if unit not in staying]

    def _say_once(self, change: str) -> None:
        if change not in self._transfers.changes:
            self._transfers.changes.append(change)

    def drop(self) -> list[Unit]:
        """Keeps none any more; returns their units."""
        units = [unit for image in self._kept.values() for unit in image.units.values()]
        self._transfers.reserve_host(-self._reserved_bytes)
        self._kept, self._reserved_bytes = {}, 0
        return units


def _shows(mine: tuple[list[str], torch.Tensor], theirs: tuple[list[str], torch.Tensor]) -> bool:
    (names, kept), (other_names, now) = mine, theirs
    if names != other_names or (kept.shape, kept.stride()) != (now.shape, now.stride()):
        return False
    if now.is_complex() or (not now.is_floating_point() and now.dtype != kept.dtype):
        return False
    extent = 1 + sum((size - 1) * stride for size, stride in zip(now.shape, now.stride(), strict=True))
    flat, wanted = (each.as_strided((extent if each.numel() else 0,), (1,)) for each in (now, kept))
    pieces = zip(torch.split(flat, _COMPARED), torch.split(wanted, _COMPARED), strict=True)
    # As bytes: a NaN equals itself there, and zero its negative does not.
    return all(torch.equal(a.to(b.dtype).view(torch.uint8), b.view(torch.uint8)) for a, b in pieces)
