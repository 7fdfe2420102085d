"""Shard indexes, shards and links that are wrong, as (damage, what the error must name) by name of the case."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from directories import safetensors, weights
from malformed_directories import Cases, Damage, content, fifo, keys, link
from small_model import SHARD_INDEX, SHARDS, VAE_WEIGHTS, edit_json

_TENSOR = "blocks.0.attn.weight"


def _edited(change: Callable[[dict[str, Any]], object]) -> Damage:
    return lambda model: edit_json(model / SHARD_INDEX, change)


def _placed(shard: object, tensor: str = "blocks.0.x") -> Damage:
    """Lets the index place a tensor in ``shard``."""
    return _edited(lambda index: index["weight_map"].update({tensor: shard}))


def _shard(number: int, raw: bytes) -> Damage:
    return content(f"transformer/{SHARDS[number]}", raw)


SHARD_INDEXES: Cases = {
    "not JSON": (content(SHARD_INDEX, b"<"), SHARD_INDEX),
    "empty": (content(SHARD_INDEX, b""), SHARD_INDEX),
    "a list": (content(SHARD_INDEX, b"[]"), "must be an object"),
    "a web page": (content(SHARD_INDEX, b"<html>"), "web page"),
    "a FIFO": (fifo(SHARD_INDEX), "is a FIFO"),
    "no weight_map": (_edited(lambda index: index.pop("weight_map")), "no weight_map"),
    "weight_map is null": (keys(SHARD_INDEX, weight_map=None), "no weight_map"),
    "weight_map is a list": (keys(SHARD_INDEX, weight_map=list(SHARDS)), "no weight_map"),
    "weight_map is empty": (keys(SHARD_INDEX, weight_map={}), "no weight_map"),
    "no metadata": (_edited(lambda index: index.pop("metadata")), "no metadata"),
    "metadata is a number": (keys(SHARD_INDEX, metadata=5), "no metadata"),
    "a shard is a number": (_placed(5), "isn't a file name"),
    "a shard is null": (_placed(None), "isn't a file name"),
    "a shard is a list": (_placed([SHARDS[0]]), "isn't a file name"),
    "a shard is empty": (_placed(""), "isn't a plain file name"),
    "a shard is the folder": (_placed("."), "isn't a plain file name"),
    "a shard is the folder above": (_placed(".."), "isn't a plain file name"),
    "a shard in another folder": (_placed(f"../{VAE_WEIGHTS}"), "isn't a plain file name"),
    "a shard far above": (_placed("../../../etc/passwd"), "'../../../etc/passwd'"),
    "an absolute shard": (_placed("/etc/passwd"), "'/etc/passwd'"),
    "a shard below": (_placed("a/b.safetensors"), "'a/b.safetensors'"),
    "a shard of Windows": (_placed("C:\\weights.safetensors"), "isn't a plain file name"),
    "a shard on a drive": (_placed("C:weights.safetensors"), "isn't a plain file name"),
    "a shard with a NUL": (_placed(f"{SHARDS[0]}\0.safetensors"), "\\x00"),
    "a shard with a terminal code": (_placed("\x1b[2J.safetensors"), "\\x1b[2J.safetensors"),
    "a pickled shard": (_placed("pytorch_model.bin"), "isn't a .safetensors file"),
    "a shard that is the index": (_placed(Path(SHARD_INDEX).name), "isn't a .safetensors file"),
    "a shard that isn't there": (_placed("extra.safetensors"), "transformer/extra.safetensors"),
    "a shard of 5000 letters": (_placed("s" * 5000 + ".safetensors"), "missing"),
    "a tensor in the other shard": (_placed(SHARDS[1], _TENSOR), repr(_TENSOR)),
    "a tensor in no shard": (_placed(SHARDS[0]), "'blocks.0.x'"),
    "a tensor that isn't listed": (_edited(lambda index: index["weight_map"].pop(_TENSOR)), repr(_TENSOR)),
    "a tensor in both shards": (_shard(1, safetensors(weights(4))), SHARDS[1]),
    "shards in each other's place": (_shard(0, safetensors(weights(2, first=2))), SHARDS[0]),
    "an empty shard": (_shard(1, b""), SHARDS[1]),
    "a shard without tensors": (_shard(1, safetensors({})), "'blocks.2.attn.weight'"),
    "a shard cut short": (lambda model: os.truncate(model / "transformer" / SHARDS[0], 340), "short of what"),
    "a shard is a FIFO": (fifo(f"transformer/{SHARDS[0]}"), "is a FIFO"),
    "a shard links to the index": (link(f"transformer/{SHARDS[0]}", Path(SHARD_INDEX).name), SHARDS[0]),
    "weights are a FIFO": (fifo(VAE_WEIGHTS), "is a FIFO"),
    "weights link to a device": (link(VAE_WEIGHTS, "/dev/zero"), "link that leads outside"),
    "weights link to a secret": (link(VAE_WEIGHTS, "/etc/passwd"), "link that leads outside"),
    "weights link to a folder": (link(VAE_WEIGHTS, "../transformer"), "is a directory"),
    "weights link to nothing": (link(VAE_WEIGHTS, "gone"), "vae/ has no weights"),
    "aria2 has not finished": (content(f"{VAE_WEIGHTS}.aria2", bytes(8)), f"{VAE_WEIGHTS} is an unfinished download"),
    "weights link to themselves": (link(VAE_WEIGHTS, Path(VAE_WEIGHTS).name), "vae/ has no weights"),
    "weights link out by a detour": (link(VAE_WEIGHTS, f"{'../' * 30}etc/passwd"), "link that leads outside"),
}


def miss_many_shards(model: Path) -> None:
    """Lets the index name thousands of shards that aren't there."""
    names = {f"blocks.{number}.x": f"model-{number:05}-of-09999.safetensors" for number in range(9999)}
    edit_json(model / SHARD_INDEX, {"weight_map": names})
