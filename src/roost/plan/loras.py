"""The LoRAs that a plan was made with."""

from __future__ import annotations

from pathlib import Path

from roost.facts.limits import Bytes, Finite, Name, Sha256
from roost.facts.loras import LoraFile
from roost.plan.fields import Strict


class PlannedLora(Strict):
    """A LoRA of one component, by its file: ``fused`` into the weights, or beside them in so many ``bytes``.

    A file for several components has an entry for each.
    """

    path: str
    sha256: Sha256
    scale: Finite
    component: Name
    fused: bool
    bytes: Bytes = 0

    @property
    def file(self) -> LoraFile:
        """The file as a run is given it."""
        return LoraFile(
            path=Path(self.path), scale=self.scale, component=self.component, sha256=self.sha256, fuse=self.fused
        )
