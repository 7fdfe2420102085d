"""Which tensors the published models of a class have: what a directory's files can be compared with without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from roost.facts.model import ClassFacts
from roost.profiles.class_facts import load_class_facts
from roost.profiles.published import model_names, published_classes, published_tensors

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")
_FIRST_INDEX = re.compile(r"(.+?)\.(\d+)\.(.+)")

Blocks = Mapping[int, set[str]]  # index in its list -> names within the block


@dataclass(frozen=True, slots=True)
class UsualTensors:
    """Of one class: every name with its numbers left out, and (list, name within one of its blocks) that each has.

    ``unnumbered`` is empty for a class whose lists follow its config: any may have other names.
    """

    unnumbered: frozenset[str]
    in_each: frozenset[tuple[str, str]]

    def lacking(self, names: Collection[str]) -> list[str]:
        """Names that a block lacks and others of its list have, though published lists are alike in them."""
        return sorted(
            f"{stack}.{index}.{rest}"
            for stack, blocks in _lists(names).items()
            for rest in set.union(*blocks.values())
            if (stack, rest) in self.in_each
            for index, block in blocks.items()
            if rest not in block
        )

    def unusual(self, names: Collection[str]) -> list[str]:
        """Names that no published component of the class has."""
        known = self.unnumbered
        return sorted(each for each in names if _INDEX.sub("", each) not in known) if known else []


@cache
def usual_tensors(class_name: str) -> UsualTensors | None:
    """What the published models have of that class; None when none has it."""
    published = [
        _renamed(published_tensors(name, component), class_name)
        for name in model_names()
        for component, found in published_classes(name).items()
        if found == class_name
    ]
    if not published:
        return None
    lists = [blocks for names in published for blocks in _lists(names).values()]
    unnumbered = frozenset(_INDEX.sub("", each) for names in published for each in names)
    return UsualTensors(
        unnumbered=unnumbered if all(map(_alike, lists)) else frozenset(),
        in_each=frozenset.intersection(*map(_in_each_block, published)),
    )


def _renamed(names: Iterable[str], class_name: str) -> frozenset[str]:
    """The module's names of what the published files hold."""
    found = list(names)
    for pattern, replacement in load_class_facts().get(class_name, ClassFacts()).renames:
        rename = re.compile(pattern).sub
        found = [rename(replacement, each) for each in found]
    return frozenset(found)


def _lists(names: Collection[str]) -> dict[str, dict[int, set[str]]]:
    """The outermost lists of a module, by name."""
    found: dict[str, dict[int, set[str]]] = {}
    for match in filter(None, map(_FIRST_INDEX.fullmatch, names)):
        found.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(match[3])
    return found


def _in_each_block(names: Collection[str]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (stack, rest)
        for stack, blocks in _lists(names).items()
        if len(blocks) > 2 and _alike(blocks)
        for rest in set.intersection(*blocks.values())
    )


def _alike(blocks: Blocks) -> bool:
    """Whether all blocks have the same names, but for one at most."""
    return Counter(map(frozenset, blocks.values())).most_common(1)[0][1] >= len(blocks) - 1
