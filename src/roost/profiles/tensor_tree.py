"""Names and shapes of a component's tensors, written with repeated blocks once: ``"blocks.[0-39].": {…}``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union

Shape: TypeAlias = Sequence[int]
# A name maps to a shape; a prefix with one range of indices maps to the tree of each block.
Tree: TypeAlias = Mapping[str, Union["Tree", Shape]]

_RANGE = re.compile(r"(.*)\[(\d+)-(\d+)\](\..*)", re.ASCII)


def expand(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Shape]]:
    """Every tensor of the tree with its shape, in the order of the class's own state."""
    for key, value in tree.items():
        for name in _names(key):
            if isinstance(value, Mapping):
                yield from expand(value, prefix + name)
            else:
                yield prefix + name, value


def _names(key: str) -> Iterator[str]:
    match = _RANGE.fullmatch(key)
    if match is None:
        yield key
        return
    before, first, last, after = match.groups()
    for index in range(int(first), int(last) + 1):
        yield f"{before}{index}{after}"
