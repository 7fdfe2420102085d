"""From loaded tensors to masters: each source is let go the moment its bytes are taken."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Mapping

import torch

from roost.blocks import TRUNK
from roost.facts.request import Tier
from roost.pipelines.formats.packed_tensors import parts_of
from roost.pipelines.internals.of_torch import as_engine, buffers_of, parameters_of
from roost.plan import ComponentPlan
from roost.residency.weights.census import Entry, take_census
from roost.residency.weights.dtypes import Image, Images
from roost.residency.weights.host_masters import AbsentMaster, Master
from roost.residency.weights.mapped_masters import Checkpoint, MappedMaster
from roost.residency.weights.objects.parameter_tables import kept_aside
from roost.residency.weights.rungs import Rungs
from roost.residency.weights.shared.component import SharedComponent
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit

Places = frozenset[tuple[int, str, int, int]]

_TRIM_BYTES = 32 * 1024**2


class Packer:
    """Keeps a component's units, and a master for each, true to what its module is."""

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        plan: ComponentPlan,
        transfers: Transfers,
        checkpoint: Checkpoint | None = None,
        share: SharedComponent | None = None,
    ) -> None:
        self.units: dict[str, Unit] = {}
        self._name, self._module, self._transfers, self._checkpoint = name, module, transfers, checkpoint
        self._share = share
        self._late = checkpoint is not None and checkpoint.late  # masters in host memory wait for ``make_masters``
        self._tiers = _tiers(plan)
        self._places: Places = frozenset()  # as they were when the units were made
        self._names = Rungs(plan).names
        self._images = Images(name, transfers, 0 if plan.strategy == "resident" else plan.load_bytes)
        self.renew()
        if share is not None:
            share.announce(module)
            if share.trouble is not None:
                transfers.changes.append(f"{name}: its host copy is not shared, because {share.trouble}")

    def is_fresh(self) -> bool:
        """Whether the module still has just the tensors that the units know, reading what they were bound to."""
        return self._places == _places(self._module) and all(map(_is_current, self.units.values()))

    def renew(self) -> None:
        """Takes in what changed since the last time: converted, fused or added weights. Everything is on the host."""
        if self.units and self.is_fresh():
            return
        self._unpin(self._images.drop())
        self._take_in(_new_units(self._module, self._names, self.units), keep=False)

    def recast(self, dtype: torch.dtype, change: Callable[[], object]) -> None:
        """Changes the weights' dtype, by ``change`` unless their masters in ``dtype`` are still there."""
        self.renew()
        before = Image.of(self._module, self.units)
        kept = self._images.find(dtype, before)
        if kept is not None:
            kept.put()
            self.units.update(kept.units)
            self._places = _places(self._module)
            return
        change()
        self._take_in(_new_units(self._module, self._names, self.units), keep=True)
        self._unpin(self._images.keep(before, Image.of(self._module, self.units)))

    def suspect(self) -> None:
        """Someone may edit any weight."""
        for unit in self.units.values():
            unit.suspect()

    def unpin(self) -> None:
        """Leaves every weight in plain host memory, and only in its present dtype."""
        self._unpin([*self._images.drop(), *self.units.values()])
        self._leave()

    def make_masters(self) -> None:
        """Makes the masters in host memory that were put off, of the weights as the library left or now loads them."""
        if self._checkpoint is not None:
            self._checkpoint.check_unchanged()
        self._late = False
        renewed = self.units
        if self._checkpoint is not None and self._checkpoint.fill is not None:
            self._checkpoint.fill(self._module)
            renewed = _new_units(self._module, self._names, {})
        for unit in renewed.values():
            if self._tiers.get(unit.name) != "mapped" and isinstance(unit.master, MappedMaster):
                unit.master = None
        self._take_in(renewed, keep=False)

    def give_back(self) -> None:
        """Frees all masters; the weights are gone for good, and what reads one finds NaN."""
        self.unpin()
        for unit in self.units.values():
            unit.master = unit.spare = None
            unit.bind([nothing_like(view) for view in unit.bound])

    def forget(self) -> None:
        """Gives up the masters; the device has the only copies now."""
        for unit in self.units.values():
            unit.spare = unit.writable if self._images else None
            unit.master = None
        self._leave()

    def _take_in(self, renewed: dict[str, Unit], *, keep: bool) -> None:
        """Makes ``renewed`` the units, and masters for those that have none; pinned old ones stay so for ``keep``."""
        if not keep:
            self._unpin(unit for name, unit in self.units.items() if renewed[name] is not unit)
        self.units.update(renewed)
        self._places = _places(self._module)
        with as_engine():
            self._make_masters([unit for unit in renewed.values() if unit.master is None])

    def _make_masters(self, fresh: list[Unit]) -> None:
        absent = self._late and self._checkpoint is not None and self._checkpoint.fill is not None
        for unit in fresh:
            if absent and unit.bytes:
                views = [entry.tensor.detach() for entry in unit.entries]
                unit.adopt(AbsentMaster(self._label(unit), unit.layout, views))
            elif self._tiers.get(unit.name) == "mapped" and unit.bytes:
                self._map(unit)
            elif self._late and unit.bytes and all(entry.tensor.is_contiguous() for entry in unit.entries):
                unit.adopt(MappedMaster(unit.layout, [entry.tensor.detach() for entry in unit.entries]))
        _pack(self._memory_for([unit for unit in fresh if unit.master is None]))
        for unit in fresh:
            if self._tiers.get(unit.name) == "pinned" and isinstance(unit.master, Master) and unit.bytes:
                self._transfers.pin(unit.master, self._label(unit))

    def _memory_for(self, fresh: list[Unit]) -> dict[Unit, Master]:
        """Masters to be filled, in common memory if others are to have them, for units that have none there yet."""
        built: Mapping[Unit, Master] = {}
        if self._share is not None:
            fresh = [unit for unit in fresh if not self._share.adopt(unit)]
            built = self._share.build(fresh)
        return {unit: built.get(unit) or Master(unit.layout) for unit in fresh}

    def _leave(self) -> None:
        """Others don't find the masters here any more."""
        if self._share is not None:
            self._share.close()
            self._share = None

    def _unpin(self, units: Iterable[Unit]) -> None:
        for unit in units:
            if isinstance(unit.master, Master):
                self._transfers.unpin(unit.master)

    def _map(self, unit: Unit) -> None:
        master = None if self._checkpoint is None else self._checkpoint.master(unit.entries, unit.layout)
        if master is not None:
            unit.move_to(master)
            return
        why = "no checkpoint is known" if self._checkpoint is None else "the checkpoint stores other bytes"
        self._transfers.changes.append(
            f"{self._label(unit)}: its host copy is pageable instead of mapped, because {why}"
        )

    def _label(self, unit: Unit) -> str:
        return f"{self._name}.{unit.name}" if unit.name != TRUNK else f"{self._name} outside its blocks"


def _tiers(plan: ComponentPlan) -> dict[str, Tier]:
    """The tier of every unit's master; streamed blocks take the fastest, and the trunk the one that all blocks have."""
    if plan.master is None:
        return {}
    kinds = Rungs(plan).kinds()
    names = sorted(kinds, key=lambda name: kinds[name] == "resident")  # stable: each kind in its order
    tiers: list[Tier] = ["pinned"] * plan.master.pinned
    tiers += ["pageable"] * plan.master.pageable
    tiers += ["mapped"] * plan.master.mapped
    found = dict(zip(names, tiers, strict=False))
    if len(set(tiers)) == 1 and len(tiers) >= len(names):
        found[TRUNK] = tiers[0]
    return found


def _new_units(module: torch.nn.Module, blocks: tuple[str, ...], old: dict[str, Unit]) -> dict[str, Unit]:
    """The module's units as they are now, trunk first; those of ``old`` that nothing changed are kept with masters."""
    units = {}
    aside = kept_aside(module)
    with as_engine():
        found = take_census(module, blocks)
    for name, entries in found.items():
        before = old.get(name)
        if before is not None and _is_current(before) and _objects(before.entries) == _objects(entries):
            units[name] = before
        else:
            units[name] = Unit(name, entries)
        units[name].find_tables(module, [each for entry in entries for each in entry.held_as], aside)
    return units


def _is_current(unit: Unit) -> bool:
    """Whether the unit's master has what its objects read."""
    edited = unit.lent and unit.master is not None and unit.master.tier == "mapped"  # in memory, not in the file
    return unit.is_intact() and not edited


def nothing_like(view: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """A tensor of the same shape that takes no memory; in the host's, unless there is a ``device``."""
    value = torch.nan if view.dtype.is_floating_point else 0
    with torch.inference_mode(False), torch.no_grad():
        return torch.full((), value, dtype=torch.float32, device=device).to(view.dtype).expand(view.shape)


def _pack(masters: Mapping[Unit, Master]) -> None:
    """Fills the masters of units and binds them.

    Host memory grows by one source at a time: entries are taken in the order of their addresses, so that a checkpoint
    file's mapping goes as soon as all that it holds was taken.
    """
    work = [(entry, unit, index) for unit in masters for index, entry in enumerate(unit.entries)]
    taken_bytes = 0
    for entry, unit, index in sorted(work, key=lambda item: item[0].address):
        master = masters[unit]
        master.fill(index, entry.tensor)
        for each in entry.objects:
            each.data = master.views[index]
        taken_bytes += entry.tensor.nbytes
        if taken_bytes >= _TRIM_BYTES:
            _return_freed_memory()
            taken_bytes = 0
    for unit, master in masters.items():
        unit.adopt(master)


def _return_freed_memory() -> None:
    """Weights that a library converted lie in the C heap, and glibc keeps what is freed in its middle."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _places(module: torch.nn.Module) -> Places:
    """Which tensor objects are where in which modules."""
    return frozenset(
        (id(vars(owner)), name, id(tensor), id(part))
        for owner in module.modules()
        for name, tensor in (*parameters_of(owner).items(), *buffers_of(owner).items())
        if tensor is not None
        for _, part in parts_of(tensor)
    )


def _objects(entries: Iterable[Entry]) -> frozenset[int]:
    return frozenset(id(each) for entry in entries for each in (*entry.objects, *entry.wholes))
