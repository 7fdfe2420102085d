"""Masters that stay in their checkpoint files: read on demand, refused when the files are no longer the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open

from roost.facts.request import Tier
from roost.plan import ComponentPlan
from roost.residency.weights.census import Entry
from roost.residency.weights.host_masters import Layout
from roost.residency.weights.unpinned_sources import FileBlock, FilePiece, stamp_of, unusable

# torch's names of what the format calls F32 and so on, for the dtypes that weights come in
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


_GLANCE_BYTES = 4096

Fill = Callable[[torch.nn.Module], None]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a file keeps a tensor's bytes."""

    path: Path
    key: str
    offset: int
    bytes: int
    dtype: torch.dtype | None
    shape: tuple[int, ...]


class Checkpoint:
    """The safetensors files of one component; ``late`` where its masters in host memory are made at its first use.

    Where the files don't have the very weights then, ``fill`` loads them into its module, which was built without.
    """

    def __init__(self, paths: Iterable[Path], *, late: bool = False) -> None:
        self.late, paths = late, tuple(paths)
        self.fill: Fill | None = None
        self._stamps = {path: stamp_of(path) for path in paths}
        self._tensors = {each.key: each for path in paths for each in _stored_tensors(path)}
        self._alike: dict[tuple[torch.dtype | None, tuple[int, ...]], list[StoredTensor]] = {}
        for each in self._tensors.values():
            self._alike.setdefault((each.dtype, each.shape), []).append(each)

    def check_unchanged(self) -> None:
        """Raises RoostError where a file is no longer the one that was there at first."""
        for path, stamp in self._stamps.items():
            if stamp_of(path) != stamp:
                raise unusable(path, "has changed since the model was loaded")

    def loads_as_stored(self, plan: ComponentPlan) -> bool:
        """Whether the component's weights are what the files have, as far as dtypes and sizes tell."""
        wanted = None if plan.load_dtype is None else getattr(torch, plan.load_dtype)
        cast = any(
            each.dtype is None or (each.dtype.is_floating_point and each.dtype != wanted)
            for each in self._tensors.values()
            if wanted is not None
        )
        stored_bytes = sum(each.bytes for each in self._tensors.values())
        return plan.storage is None and not cast and plan.load_bytes <= stored_bytes

    def master(self, entries: Sequence[Entry], layout: Layout) -> MappedMaster | None:
        """The unit's master in the files, when they hold its very bytes; None when not.

        What no file has, such as buffers that a module computes, the master keeps in host memory, if it is the lesser
        part.
        """
        found: list[StoredTensor | torch.Tensor] = []
        for entry in entries:
            if not entry.tensor.is_contiguous():
                return None
            stored = next((self._tensors[name] for name in entry.names if name in self._tensors), None)
            if stored is None:
                stored = self._renamed(entry.tensor)
            elif not _holds(stored, entry.tensor):
                return None
            found.append(entry.tensor.detach().clone() if stored is None else stored)
        kept_bytes = sum(each.nbytes for each in found if isinstance(each, torch.Tensor))
        return MappedMaster(layout, found) if 2 * kept_bytes <= layout.bytes else None

    def _renamed(self, tensor: torch.Tensor) -> StoredTensor | None:
        """The stored tensor of the very bytes, under whatever name: libraries rename some as they load them."""
        alike = self._alike.get((tensor.dtype, tuple(tensor.shape)), ())
        return next((each for each in alike if _begins(each, tensor) and _holds(each, tensor)), None)


class MappedMaster:
    """A unit's weights in checkpoint files; ``views`` map them lazily for whoever looks while nothing runs."""

    def __init__(self, layout: Layout, parts: Sequence[StoredTensor | torch.Tensor]) -> None:
        self.tier: Tier = "mapped"
        self.layout = layout
        self.views = [each if isinstance(each, torch.Tensor) else _mapped(each) for each in parts]
        self.source = _file_block(parts, [span.offset for span in layout.spans], layout.bytes)

    @property
    def bytes(self) -> int:
        return self.layout.bytes


def _stored_tensors(path: Path) -> list[StoredTensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    found = []
    for key, each in header.items():
        if key != "__metadata__":
            start, end = each["data_offsets"]
            shape, dtype = tuple(each["shape"]), _DTYPES.get(each["dtype"])
            found.append(StoredTensor(path, key, 8 + length + start, end - start, dtype, shape))
    return found


def _begins(stored: StoredTensor, tensor: torch.Tensor) -> bool:
    """Whether the first bytes are the same: a block's tensors have the shapes of every other block's."""
    size = min(_GLANCE_BYTES, stored.bytes)
    glance = replace(stored, bytes=size)
    read = torch.empty(size, dtype=torch.uint8)
    _file_block([glance], [0], size).read_into(read, 0)
    return torch.equal(read, tensor.detach().reshape(-1).view(torch.uint8)[:size].to("cpu"))


def _holds(stored: StoredTensor, tensor: torch.Tensor) -> bool:
    """Whether the file has the tensor's bytes: names and shapes alone don't tell a library's conversions."""
    if (stored.dtype, stored.shape) != (tensor.dtype, tuple(tensor.shape)) or not tensor.is_contiguous():
        return False
    read = torch.empty(stored.bytes, dtype=torch.uint8)
    if stored.bytes:
        _file_block([stored], [0], stored.bytes).read_into(read, 0)
    return torch.equal(read, tensor.detach().to("cpu").reshape(-1).view(torch.uint8))


def _file_block(parts: Sequence[StoredTensor | torch.Tensor], offsets: Sequence[int], size: int) -> FileBlock:
    pieces, kept = [], []
    for each, offset in zip(parts, offsets, strict=True):
        if isinstance(each, torch.Tensor):
            kept.append((offset, each.reshape(-1).view(torch.uint8)))
        else:
            pieces.append(FilePiece(path=each.path, file_offset=each.offset, offset=offset, size=each.bytes))
    return FileBlock(pieces, size, kept)


def _mapped(stored: StoredTensor) -> torch.Tensor:
    with safe_open(stored.path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(stored.key)
    return tensor
