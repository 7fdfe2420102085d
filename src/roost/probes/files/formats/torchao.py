"""What torchao writes of its weights into a file's metadata and a model's config: their classes, and which run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roost.facts.weight_files import WeightFile
from roost.probes.files.formats.markers import read_object
from roost.probes.files.safe_files import quoted

# Keys of ``facts/weight_formats`` for those whose codes don't tell.
DYNAMIC, OTHER = "torchao-dynamic", "torchao"
# Classes that dequantise by operations of any device, and what each says of activations.
_CLASSES = {
    "Int8Tensor": "act_quant_kwargs",
    "Float8Tensor": "act_quant_kwargs",
    "IntxUnpackedToInt8Tensor": "activation_quantization",
}
# Of a config: those that make such classes, and what they are told. torchao would make any other of its names, too.
_CONFIGS = frozenset(("Int8WeightOnlyConfig", "Float8WeightOnlyConfig", "IntxWeightOnlyConfig", "FqnToConfig"))
_SETTINGS = frozenset(
    (
        *("torch.dtype", "PerRow", "PerTensor", "PerGroup", "PerAxis", "PerBlock", "KernelPreference"),
        *("MappingType", "IntxPackingFormat", "IntxChooseQParamsAlgorithm", "ZeroPointDomain"),
    )
)
_DTYPES = frozenset(
    (
        *("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "uint8"),
        *(f"int{bits}" for bits in range(1, 9)),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchaoWeight:
    """``format`` is a key that stops the weight, None where its codes name it; ``dtype`` is that of its values."""

    format: str | None
    dtype: str | None


def torchao_weight(file: WeightFile, name: str, where: str) -> TorchaoWeight | None:
    """What the metadata say of a weight; None where nothing, InvalidFile where they can't be read."""
    text = file.metadata.get(name)
    if text is None:
        return None
    said = read_object(str(text).encode("utf-8", "surrogatepass"), where, f"torchao's word of {quoted(name)}")
    kind, facts = str(said.get("_type")), said.get("_data")
    if kind not in _CLASSES or type(facts) is not dict:
        return TorchaoWeight(format=OTHER, dtype=None)
    if facts.get(_CLASSES[kind]) is not None:
        return TorchaoWeight(format=DYNAMIC, dtype=None)
    found = [*_typed(facts)]
    dtypes = [value for kind, value in _typed(facts.get("dtype")) if kind == "torch.dtype"]
    return TorchaoWeight(format=None if dtypes and _known(found) else OTHER, dtype=dtypes[0] if dtypes else None)


def torchao_dtypes(file: WeightFile, names: Iterable[str], where: str) -> frozenset[str]:
    """The dtypes that torchao weights of these names have in a model."""
    found = (torchao_weight(file, name, where) for name in names)
    return frozenset(each.dtype for each in found if each is not None and each.dtype is not None)


def torchao_config_runs(settings: Mapping[str, Any]) -> bool:
    """Whether a model's ``quantization_config`` names nothing of torchao but what makes weights that run."""
    found = [*_typed(settings.get("quant_type"))]
    rest = [(kind, value) for kind, value in found if kind not in _CONFIGS]
    return len(rest) < len(found) and _known(rest)


def _known(found: Iterable[tuple[str, str]]) -> bool:
    return all(kind in _SETTINGS and (kind != "torch.dtype" or value in _DTYPES) for kind, value in found)


def _typed(value: object) -> Iterator[tuple[str, str]]:
    """All objects of torchao within, by class, with the value of those that have a plain one."""
    if type(value) is list:
        for each in value:
            yield from _typed(each)
    if type(value) is not dict:
        return
    if "_type" in value:
        plain = value.get("_data")
        yield str(value["_type"]), plain if type(plain) is str else ""
    for each in value.values():
        yield from _typed(each)
