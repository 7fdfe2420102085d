"""The index of a sharded checkpoint: which file holds which tensor, checked against the files themselves."""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from roost.errors import InvalidFile
from roost.probes.files.headers import Header
from roost.probes.files.safe_files import quoted, shown

_ONE_REVISION = "Fetch the index and its shards again, from one revision."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """An index's file name, its map from tensor names to shards, and the shards in order."""

    name: str
    weight_map: Mapping[str, str]
    shards: tuple[str, ...]


def read_index(name: str, content: Mapping[str, Any], extension: str) -> ShardIndex:
    """The index in ``content``. Shards are plain names with ``extension``; anything else is InvalidFile."""
    where = shown(name)
    weight_map = content.get("weight_map")
    if type(weight_map) is not dict or not weight_map:
        raise InvalidFile(f"{where} has no weight_map, an object from tensor names to file names. {_ONE_REVISION}")
    if type(content.get("metadata")) is not dict:
        raise InvalidFile(
            f'{where} has no metadata, which the libraries need to load it. Add "metadata": {{"total_size": 0}} to it,'
            " as who wrote it should have."
        )
    if set(map(type, weight_map.values())) != {str}:
        raise InvalidFile(f"{where} maps a tensor to something that isn't a file name. {_ONE_REVISION}")
    shards = tuple(sorted(set(weight_map.values())))
    for shard in shards:
        if not is_plain(shard):
            raise InvalidFile(
                f"{where} names {quoted(shard)}, which isn't a plain file name in its own folder. "
                "Don't load this model: such an index reads files from elsewhere."
            )
        if not shard.endswith(extension):
            raise InvalidFile(f"{where} names {quoted(shard)}, which isn't a {extension} file. {_ONE_REVISION}")
    return ShardIndex(name=name, weight_map=weight_map, shards=shards)


def is_plain(shard: str) -> bool:
    """Whether it names a file in the folder that it is looked up in, on every system."""
    if not shard.isprintable() or shard in ("", ".", ".."):
        return False
    return ntpath.basename(shard) == shard == posixpath.basename(shard)


def check_against_headers(index: ShardIndex, headers: Mapping[str, Header]) -> None:
    """InvalidFile unless the shards (by file name) hold just the tensors that the index says, each once."""
    tensors = 0
    for shard, header in headers.items():
        for sizes in header.sizes.values():
            tensors += len(sizes)
            if set(map(index.weight_map.get, sizes)) != {shard}:
                _raise_unlisted(index, shard, sizes)
    if tensors < len(index.weight_map):
        _raise_absent(index, headers)


def _raise_unlisted(index: ShardIndex, shard: str, names: Iterable[str]) -> NoReturn:
    name = next(each for each in names if index.weight_map.get(each) != shard)
    listed = index.weight_map.get(name)
    what = f"places in {shown(listed)}" if listed else "doesn't list"
    where = shown(index.name[: index.name.rfind("/") + 1] + shard)
    raise InvalidFile(f"{where} holds {quoted(name)}, which {shown(index.name)} {what}. {_ONE_REVISION}")


def _raise_absent(index: ShardIndex, headers: Mapping[str, Header]) -> NoReturn:
    for name, shard in index.weight_map.items():
        if not any(name in sizes for sizes in headers[shard].sizes.values()):
            raise InvalidFile(
                f"{shown(index.name)} says that {shown(shard)} holds {quoted(name)}, which it doesn't. {_ONE_REVISION}"
            )
    raise AssertionError("fewer tensors than listed, and none of the listed ones absent")
