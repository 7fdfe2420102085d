"""How a directory's quantised component is stored, and whether its library's loader gives what is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roost.errors import InvalidFile
from roost.facts.weight_files import StoredTensor, WeightFile
from roost.facts.weight_formats import directory_method
from roost.probes.files.formats.summary import Quantisation, quantisation_of
from roost.probes.files.formats.torchao import torchao_config_runs, torchao_dtypes

TORCHAO = "torchao"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryWeights:
    """``why_not`` completes "which Roost plans but can't run: "; None where it runs, at ``load_dtype`` alone."""

    why_not: str | None
    load_dtype: str | None = None
    packed: frozenset[str] = frozenset()  # tensors that are parts of quantised weights, by their names in the files


def directory_weights(
    method: str, files: Sequence[WeightFile], settings: Mapping[str, Any], where: str
) -> DirectoryWeights:
    """What the files and the config's ``quantization_config`` say; ``files`` are looked at for torchao alone.

    Raises InvalidFile for what torchao couldn't read.
    """
    found = directory_method(method)
    if method != TORCHAO or not found.runs:
        return DirectoryWeights(why_not=f"it {found.why}; what would work: {found.instead}")
    whole = as_one(files)
    quantisation = quantisation_of(whole, where)
    why = quantisation.why_not(in_directory=True)
    names = _weights_of(quantisation, whole)
    dtypes = torchao_dtypes(whole, names, where)
    if why is None and not torchao_config_runs(settings):
        why = "its config names another kind of torchao; what would work: torchao's int8 or float8 weight-only"
    if why is None and (len(dtypes) != 1 or any(name not in whole.metadata for name in names)):
        raise InvalidFile(
            f"{where}: its files don't say what all weights of torchao are, which torchao from 0.16 on writes into each"
            " file; save it again with that."
        )
    packed = frozenset(name for name in whole.tensors if "._weight_" in name)
    return DirectoryWeights(why_not=why, load_dtype=next(iter(dtypes), None), packed=packed)


def _weights_of(quantisation: Quantisation, file: WeightFile) -> list[str]:
    return [name for name in quantisation.shapes if name not in file.tensors]


def as_one(files: Sequence[WeightFile]) -> WeightFile:
    """Shards together: a weight and its scales may lie in two."""
    tensors: dict[str, StoredTensor] = {}
    small: dict[str, bytes] = {}
    metadata: dict[str, str | int | float | bool] = {}
    for each in files:
        tensors |= each.tensors
        small |= each.small
        metadata |= each.metadata
    first = files[0]
    return WeightFile(
        path=first.path,
        container=first.container,
        tensors=tensors,
        metadata=metadata,
        sha256=first.sha256,
        file_bytes=sum(each.file_bytes for each in files),
        small=small,
    )
