"""A component's tensors, grouped into what moves together: its blocks, and the trunk around them."""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch

from roost.errors import UsageError
from roost.residency.accelerator import Accelerator, aligned_bytes

TRUNK = ""  # the trunk's name among units; blocks are named by their module


class Weight:
    """One tensor of a component, with every parameter or buffer object that stands for the same memory.

    At any time the objects hold either the host master or, while it is loaded, the device copy. The objects themselves
    stay: only their ``data`` changes.
    """

    __slots__ = ("_copy", "_master", "objects")

    def __init__(self, first: torch.Tensor) -> None:
        self.objects = [first]
        self._master: torch.Tensor | None = None
        self._copy: torch.Tensor | None = None

    @property
    def missing_bytes(self) -> int:
        """Device bytes that loading takes; 0 when it is loaded."""
        return aligned_bytes(self.objects[0]) if self._copy is None else 0

    def bring_home(self) -> None:
        """Moves weights that someone else put on a device to the host."""
        if self.objects[0].device.type != "cpu":
            host = self.objects[0].data.to("cpu")
            for each in self.objects:
                each.data = host

    def load(self, accelerator: Accelerator, keep_master: bool) -> None:
        """Binds a device copy; the host's is dropped unless ``keep_master``."""
        if self._copy is not None:
            return
        master = self.objects[0].data
        self._copy = accelerator.upload(master)
        self._master = master if keep_master else None
        for each in self.objects:
            each.data = self._copy

    def park(self, accelerator: Accelerator) -> None:
        """Binds the host master again, copied back from the device if none was kept, and drops the device copy."""
        copy = self._copy
        if copy is None:
            return
        ours = [each for each in self.objects if _same_memory(each, copy)]
        if ours:
            host = self._master if self._master is not None else accelerator.download(copy)
            for each in ours:
                each.data = host
        # Objects whose data someone replaced meanwhile (a submodule's .to) keep it; `split_units` takes it on.
        self._copy = self._master = None
        accelerator.release(copy)


class Unit:
    """A block's or the trunk's weights. ``in_use`` counts running forwards; ``kept`` means until the next release."""

    __slots__ = ("in_use", "kept", "loaded", "weights")

    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.in_use = 0
        self.loaded = self.kept = False

    @property
    def missing_bytes(self) -> int:
        return sum(weight.missing_bytes for weight in self.weights)

    def load(self, accelerator: Accelerator, keep_master: bool) -> None:
        for weight in self.weights:
            weight.load(accelerator, keep_master)
        self.loaded = True

    def park(self, accelerator: Accelerator) -> None:
        """Also right after a load that was cut short."""
        self.loaded = self.kept = False
        self.in_use = 0
        for weight in self.weights:
            weight.park(accelerator)


def split_units(module: torch.nn.Module, blocks: Iterable[str]) -> dict[str, Unit]:
    """Every tensor of ``module`` in the unit it belongs to, with all of them on the host.

    A tensor that several blocks share, or a block and the rest, belongs to the trunk: it must outlive each of them.
    """
    units = {name: Unit() for name in (TRUNK, *blocks)}
    members: dict[object, Weight] = {}
    homes: dict[object, str] = {}
    for name, tensor in _named_tensors(module):
        _check_movable(module, name, tensor)
        key, home = _memory(tensor), home_unit(name, units)
        if key not in members:
            members[key], homes[key] = Weight(tensor), home
        elif all(each is not tensor for each in members[key].objects):
            members[key].objects.append(tensor)
        if homes[key] != home:
            homes[key] = TRUNK
    for key, weight in members.items():
        weight.bring_home()
        units[homes[key]].weights.append(weight)
    return units


def home_unit(name: str, units: Container[str]) -> str:
    """The block whose module contains ``name`` (a tensor's or module's dotted name), or the trunk."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in units), TRUNK)


def _named_tensors(module: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _check_movable(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if plain and not tensor.is_meta and tensor.layout == torch.strided:
        return
    problem = "was never loaded" if tensor.is_meta else f"is a {type(tensor).__name__}"
    raise UsageError(
        f"{type(module).__name__}: weight {name!r} {problem}, which can't be moved between host and device; "
        "load the component's plain, unquantised weights."
    )


def _memory(tensor: torch.Tensor) -> object:
    """Equal for tensors that are the same bytes seen the same way."""
    if tensor.numel() == 0:
        return id(tensor)
    return (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _same_memory(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.data_ptr() == other.data_ptr() and tensor.dtype == other.dtype and tensor.shape == other.shape
