"""Tensors of a state folded into a tree that writes repeated blocks once: the inverse of ``roost``'s ``expand``."""

import re
from itertools import groupby
from typing import Any

Tensors = list[tuple[str, list[int]]]

_INDEX = re.compile(r"(.*?\.)(\d+)(\.)", re.ASCII)


def fold(tensors: Tensors) -> dict[str, Any]:
    """The shortest tree of neighbouring equal blocks; the order of the tensors is kept."""
    tree: dict[str, Any] = {}
    for entries in _entries(tensors):
        for key, value in entries:
            if key in tree:
                raise ValueError(f"{key} comes twice: its blocks are not neighbours.")
            tree[key] = value
    return tree


def _entries(tensors: Tensors) -> list[list[tuple[str, Any]]]:
    """The tree's entries, a list for each run of equal blocks or of tensors outside blocks."""
    found: list[list[tuple[str, Any]]] = []
    for head, members in groupby(tensors, key=lambda tensor: _head(tensor[0])):
        if head is None:
            found.append(list(members))
            continue
        blocks = [
            (index, fold([(name[len(f"{head}{index}.") :], shape) for name, shape in block]))
            for index, block in groupby(members, key=lambda tensor: _index(tensor[0]))
        ]
        found += _runs(head, blocks)
    return found


def _runs(head: str, blocks: list[tuple[int, dict[str, Any]]]) -> list[list[tuple[str, Any]]]:
    runs: list[tuple[int, int, dict[str, Any]]] = []
    for index, block in blocks:
        if runs and runs[-1][1] == index - 1 and list(runs[-1][2].items()) == list(block.items()):
            runs[-1] = (runs[-1][0], index, block)
        else:
            runs.append((index, index, block))
    return [
        [(f"{head}[{first}-{last}].", block)] if last > first else _inlined(f"{head}{first}.", block)
        for first, last, block in runs
    ]


def _inlined(prefix: str, block: dict[str, Any]) -> list[tuple[str, Any]]:
    """A block that stands alone: under its prefix once if that is shorter, else entry by entry."""
    if len(block) > 3:
        return [(prefix, block)]
    return [(prefix + key, value) for key, value in block.items()]


def _head(name: str) -> str | None:
    match = _INDEX.match(name)
    return match[1] if match else None


def _index(name: str) -> int:
    match = _INDEX.match(name)
    assert match is not None, name
    return int(match[2])
