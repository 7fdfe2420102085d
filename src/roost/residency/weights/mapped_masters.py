"""Masters that stay in their checkpoint files: read on demand, refused when the files are no longer the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from roost.facts.byte_ranges import DTYPE_NAMES
from roost.facts.request import Tier
from roost.pipelines.adapters import bare_name
from roost.pipelines.formats.reading import mapped_bytes
from roost.plan import ComponentPlan
from roost.residency.weights.census import Entry
from roost.residency.weights.host_masters import Layout
from roost.residency.weights.unpinned_sources import FileBlock, FilePiece, stamp_of, unusable

_GLANCE_BYTES = 4096

Fill = Callable[[torch.nn.Module], None]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a file has a tensor's bytes; ``key`` is its name in the module, if that is known."""

    path: Path
    key: str
    offset: int
    bytes: int
    dtype: torch.dtype | None
    shape: tuple[int, ...]


class Checkpoint:
    """The files of one component's weights; ``late`` where its masters in host memory are made at its first use.

    Where the files don't have the very weights then, ``fill`` loads them into its module, which was built without.
    ``chosen`` says that what has no tensor here is known to be converted, and to stay in memory beside the others.
    """

    def __init__(self, tensors: Iterable[StoredTensor], *, late: bool = False, chosen: bool = False) -> None:
        self.late, self._chosen = late, chosen
        self.fill: Fill | None = None
        self._tensors = {each.key: each for each in tensors}
        self._stamps = {path: stamp_of(path) for path in {each.path for each in self._tensors.values()}}
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
        part or ``chosen``.
        """
        found: list[StoredTensor | torch.Tensor] = []
        for entry in entries:
            if not entry.tensor.is_contiguous():
                return None
            names = map(bare_name, entry.names)
            stored = next((self._tensors[name] for name in names if name in self._tensors), None)
            if stored is None:
                stored = self._renamed(entry.tensor)
            elif not _holds(stored, entry.tensor):
                return None
            found.append(entry.tensor.detach().clone() if stored is None else stored)
        kept_bytes = sum(each.nbytes for each in found if isinstance(each, torch.Tensor))
        return MappedMaster(layout, found) if self._chosen or 2 * kept_bytes <= layout.bytes else None

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


def stored_tensors(path: Path) -> list[StoredTensor]:
    """What a safetensors file holds, by its own names. Raises RoostError where it is gone."""
    try:
        return _read_header(path)
    except OSError as error:
        raise unusable(path, f"can't be read ({error.strerror})") from error


def _read_header(path: Path) -> list[StoredTensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    found = []
    for key, each in header.items():
        if key != "__metadata__":
            start, end = each["data_offsets"]
            word = DTYPE_NAMES.get(each["dtype"])
            dtype = None if word is None else getattr(torch, word)
            found.append(StoredTensor(path, key, 8 + length + start, end - start, dtype, tuple(each["shape"])))
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
    assert stored.dtype is not None, "a tensor that the module has"
    raw = mapped_bytes(stored.path, stored.offset, stored.bytes) if stored.bytes else torch.empty(0, dtype=torch.uint8)
    return raw.view(stored.dtype).reshape(stored.shape)
