"""A file of weights as its header describes it, how its weights are quantised, and the recipe of a component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Container = Literal["safetensors", "gguf"]
ScaleKind = Literal["tensor", "row", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in a file. Source: the header alone.

    ``shape`` is of its values, rows first, whatever the file packs into a byte; ``format`` is the container's own word
    (``BF16``, ``F8_E4M3``, ``Q4_K``); ``offset`` counts from the file's first byte.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """What one file of weights says of itself. ``sha256`` is of its header; ``metadata`` holds plain values only.

    ``small`` are the contents of tensors that say how others are to be read, such as Comfy's markers, by their names.
    """

    path: str
    container: Container
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str | int | float | bool]
    sha256: str
    file_bytes: int
    small: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What is said of one layer. ``rotated_by`` is the group size of its rotation, None for none."""

    format: str
    rotated_by: int | None = None
    full_precision_matmul: bool = False

    @property
    def key(self) -> str:
        """The format's key in ``facts/weight_formats``."""
        rotated = self.rotated_by is not None and not self.format.startswith("convrot")
        return f"{self.format}+convrot" if rotated else self.format


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedWeight:
    """``name`` is the weight's own, which its module has; ``parts`` are all of its tensors, codes first.

    ``format`` is a key of ``facts/weight_formats`` and ``shape`` that of the values. ``problem`` says what it lacks:
    such a weight must not run as if it were plain.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    scale: ScaleKind | None = None
    marker: Marker | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWeights:
    """``quantised`` by their names; ``asides`` are tensors that are neither a weight's parts nor a model's."""

    quantised: Mapping[str, QuantisedWeight]
    asides: tuple[str, ...]
    full_precision_matmul: bool = False  # said for the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows ``start`` to ``stop`` of a file's tensor, a contiguous run of its bytes, the whole ``repeat`` times.

    A tensor's rows are along its first dimension; one without dimensions is one row.
    """

    source: str
    start: int
    stop: int
    repeat: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Strided:
    """A view of a target's pieces, by their values as they lie one behind another: what ``torch.as_strided`` takes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a packed weight's values are multiplied by, as its module holds it beside the weight."""

    name: str  # the attribute: weight_scale, weight_scale_2, input_scale
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]


# How stored weights are decoded. ``gguf``: by blocks of the format; ``fp8``: a cast; ``scaled``: values times their
# scale, of the tensor, a row or a block; ``mxfp8`` and ``nvfp4``: as Comfy stores them; ``bfl_…``: as BFL does.
Method = Literal["gguf", "fp8", "scaled", "mxfp8", "nvfp4", "bfl_fp8r", "bfl_nvfp4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One weight of a component, by its name in the plain module, and the pieces it is made of, one below another.

    ``shape`` is of its values and ``dtype`` of the tensor that the module holds; ``bytes`` are all that it holds for
    it, scales included. ``packed`` weights stay as stored (``format``) and are decoded by ``method`` in each forward;
    others are decoded as they load. ``strided`` reorders the values of the pieces, ``add`` is added to each.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    format: str
    pieces: tuple[Piece, ...]
    strided: Strided | None = None
    add: float = 0.0
    method: Method | None = None
    packed: bool = False
    scales: tuple[Scale, ...] = ()
    rotation: int = 0  # values that were rotated together before they were stored (convrot); 0: none
    identity: bool = False  # no piece: the unit matrix, which the family's files leave out


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a component's tensors are made of one file's; every target once, every source used or ``unused``.

    ``method`` is how the file's weights are quantised, None for plain ones. ``computed`` are weights of the module
    that no file of its kind holds, and the class makes by itself.
    """

    targets: tuple[Target, ...]
    unused: tuple[str, ...]
    method: str | None
    computed: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What the module's tensors take."""
        return sum(each.bytes for each in self.targets)
