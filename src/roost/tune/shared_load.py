"""How a trial's process gets its components: from the memory files that the trials of a bench share, else by itself.

What a component's first load took is kept with it, and counts in every later trial as if it had loaded it itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.plan import ComponentPlan
from roost.tune.host_peak import HostPeak

if TYPE_CHECKING:
    from roost.residency.loader import LoadComponent
    from roost.residency.shared_weights import SharedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCosts:
    """What one component's load took, and with its packing into masters: seconds, and host memory at its most."""

    read_s: float
    packed_s: float
    read_bytes: int
    packed_bytes: int


class SharedLoad:
    """Makes components, as ``load`` does, in this process or an earlier one; ``files`` are descriptors by component.

    ``packs`` says whether the trial would pack masters if nothing was shared.
    """

    def __init__(self, load: LoadComponent, files: Mapping[str, int], host: HostPeak, *, packs: bool) -> None:
        self._load, self._files, self._host, self._packs = load, files, host, packs
        self.owed_s = 0.0  # to be added to what loading took here, for what it would take alone
        self.unshared: dict[str, str] = {}  # components that could not be shared, and why

    def __call__(self, name: str, plan: ComponentPlan, model_dir: Path) -> Any:
        """The component, in host memory; raises what ``load`` does."""
        if name not in self._files or (plan.master is not None and plan.master.mapped):
            return self._load(name, plan, model_dir)  # masters in checkpoint files are made from those
        from roost.residency.shared_weights import NotShareable, SharedFile  # imported here: it brings torch

        file = SharedFile(self._files[name])
        began_s, before_bytes = time.perf_counter(), self._host.begin_phase()
        try:
            taken = file.take()
        except (NotShareable, OSError) as error:
            self.unshared[name] = str(error)
            return self._load(name, plan, model_dir)
        if taken is not None:
            module, costs = taken[0], LoadCosts(**taken[1])
        else:
            module = self._load(name, plan, model_dir)
            try:
                costs = self._fill(file, module, began_s, before_bytes)
            except (NotShareable, OSError) as error:
                self.unshared[name] = str(error)
                return module
        self._host.end_phase(before_bytes + (costs.packed_bytes if self._packs else costs.read_bytes))
        self.owed_s += (costs.packed_s if self._packs else costs.read_s) - (time.perf_counter() - began_s)
        return module

    def _fill(self, file: SharedFile, module: Any, began_s: float, before_bytes: int) -> LoadCosts:
        """Lets later trials have the module, which then reads the file's memory."""
        read_s, read_bytes = time.perf_counter() - began_s, self._host.phase_bytes() - before_bytes
        filling = file.pack(module)
        packed_s, packed_bytes = time.perf_counter() - began_s, self._host.phase_bytes() - before_bytes
        costs = LoadCosts(read_s=read_s, packed_s=packed_s, read_bytes=read_bytes, packed_bytes=packed_bytes)
        filling.publish(asdict(costs))
        return costs
