"""The LoRAs that a plan was made with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def lora_files(loras: Iterable[PlannedLora]) -> tuple[LoraFile, ...]:
    """The files as a run is given them: entries of several components, one after another, are one file's."""
    groups: list[list[PlannedLora]] = []
    for lora in loras:
        last = groups[-1] if groups else []
        same = bool(last) and (last[0].path, last[0].sha256, last[0].scale) == (lora.path, lora.sha256, lora.scale)
        if same and lora.component not in {each.component for each in last}:
            last.append(lora)
        else:
            groups.append([lora])
    return tuple(map(_file, groups))


def _file(entries: Sequence[PlannedLora]) -> LoraFile:
    first, ways = entries[0], {each.fused for each in entries}
    return LoraFile(
        path=Path(first.path),
        scale=first.scale,
        component=first.component if len(entries) == 1 else None,
        sha256=first.sha256,
        fuse=first.fused if len(ways) == 1 else None,  # of several, only what nobody asked for differs
    )
