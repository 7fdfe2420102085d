"""Which known model's component a file holds: its names and shapes beside those of every layout that is known."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from roost.facts.layouts import KnownLayout
from roost.probes.files.safe_files import quoted

Shapes = Mapping[str, tuple[int, ...]]

_NUMBER = re.compile(r"\.\d+(?=\.)")
# What a file may hold beside its component, and parts of one that files leave out as a whole.
_BESIDE = re.compile(
    r"(^|\.)(position_ids|lm_head\.weight|logit_scale|text_projection\.weight|text_projection|spiece_model|tekken_model|"
    r"encoder\.embed_tokens\.weight|rope_freqs\.weight|norm_final\.weight|num_batches_tracked|decay|num_updates)$"
    r"|^output\.weight$"
)
_APART = ("visual.", "vision_tower.", "multi_modal_projector.")
_PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "first_stage_model.",
    "vae.",
    "model.",
)
_FAR, _CLOSE = 0.5, 0.1
_ALIKE = 0.85  # of the names without their numbers
_MOST_NAMED = 2


@dataclass(frozen=True, slots=True)
class Match:
    """How a file compares with one layout: of ``of`` tensors in both together, so many aren't in both alike."""

    known: KnownLayout
    of: int
    other_shapes: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    only_names: bool = False  # the same names but for numbers of blocks, and other sizes
    prefix: str = ""

    @property
    def distance(self) -> float:
        return (len(self.other_shapes) + len(self.lacking) + len(self.more)) / max(1, self.of)

    @property
    def exact(self) -> bool:
        return not self.distance and not self.only_names

    def why(self) -> str:
        """What speaks for the layout's components, and what against them."""
        if self.only_names:
            return "the names agree, the sizes are another model's"
        if self.exact:
            return f"all {self.of} names and shapes agree"
        faults = (("has another shape of", self.other_shapes), ("lacks", self.lacking), ("has besides", self.more))
        said = [f"{word} {_listed(names)}" for word, names in faults if names]
        count = len(self.other_shapes) + len(self.lacking) + len(self.more)
        return f"{self.of - count} of {self.of} names and shapes agree; the file {', '.join(said)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(quoted(name) for name in names[:_MOST_NAMED]) + more


class KnownLayouts:
    """Every known layout, with what each file is compared with computed once."""

    def __init__(self, layouts: Sequence[KnownLayout]) -> None:
        self.all = tuple(layouts)
        self._patterns = [(each, _patterns(each.tensors)) for each in self.all]

    def matches(self, shapes: Shapes) -> list[Match]:
        """The closest layouts, best first; those that have only the names in common where none is close."""
        own = [name for name in shapes if not _BESIDE.search(name)]
        best: list[Match] = []
        for prefix in ("", *_PREFIXES):
            if own and all(name.startswith(prefix) for name in own):
                best += self._of({name.removeprefix(prefix): shape for name, shape in shapes.items()}, prefix)
        near = sorted((each for each in best if not each.only_names), key=lambda each: each.distance)
        if near and near[0].distance <= _FAR:
            return [each for each in near if each.distance <= max(near[0].distance, _CLOSE)]
        return [each for each in best if each.only_names]

    def _of(self, shapes: Shapes, prefix: str) -> list[Match]:
        patterns = _patterns(shapes)
        found = []
        for known, theirs in self._patterns:
            if not _share(patterns, theirs):
                continue
            match = _compared(shapes, known, prefix)
            if match.distance <= _FAR:
                found.append(match)
            elif _share(patterns, theirs) >= _ALIKE:
                found.append(Match(known, len(shapes), only_names=True, prefix=prefix))
        return found


def _patterns(names: Collection[str]) -> frozenset[str]:
    """Names without their numbers and without what files leave out as a whole."""
    return frozenset(_NUMBER.sub(".N", name) for name in names if not name.startswith(_APART))


def _share(ours: frozenset[str], theirs: frozenset[str]) -> float:
    return len(ours & theirs) / max(1, len(ours | theirs))


def _compared(shapes: Shapes, known: KnownLayout, prefix: str) -> Match:
    there = [start for start in _APART if any(name.startswith(start) for name in shapes)]
    left_out = tuple(start for start in _APART if start not in there)
    theirs = {name: shape for name, shape in known.tensors.items() if not (left_out and name.startswith(left_out))}
    both = shapes.keys() & theirs.keys()
    return Match(
        known,
        len(shapes.keys() | theirs.keys()),
        other_shapes=tuple(name for name in theirs if name in both and shapes[name] != theirs[name]),
        lacking=tuple(name for name in theirs if name not in both and not _BESIDE.search(name)),
        more=tuple(name for name in shapes if name not in both and not _BESIDE.search(name)),
        prefix=prefix,
    )
