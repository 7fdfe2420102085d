"""A held component's own parameters and buffers: they read host memory, and whoever reads or edits them is noticed.

While a component is on the device its forwards read copies. The tensors that its modules own stay on their masters; so
between calls what a user reads through them is right, and what he writes is what the next call uses. That a write makes
a device copy stale no version counter tells (``weight.data.mul_(2)`` counts on a tensor of its own), and comparing
contents would read every weight. So these tensors are, for as long as copies of them may exist, of a class that is
asked first by whatever PyTorch does with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from roost.pipelines.formats.packed_tensors import Disguised, is_packed, likeness, parts_of, set_class
from roost.pipelines.internals.of_torch import METADATA, as_engine, as_user, version_of


class Home(Protocol):
    """What a watched tensor belongs to."""

    @property
    def device(self) -> torch.device:
        """The one that the component runs on."""

    @property
    def in_call(self) -> bool:
        """Whether a call into the component runs, on this thread."""

    def device_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for ``tensor`` on the device during a call."""

    def check_there(self) -> None:
        """Raises RoostError where its weights are still to be loaded."""

    def lend(self) -> None:
        """Someone has edited the weights, or may from now on, since he holds memory of theirs."""


# Answers that are the same on host and device and can't be edited.
_METADATA = frozenset({
    "shape", "dtype", "layout", "ndim", "requires_grad", "is_leaf", "itemsize", "nbytes", "is_meta", "is_sparse",
    "is_quantized", "is_nested", "grad", "grad_fn", "names", "size", "dim", "numel", "stride", "is_floating_point",
    "is_complex", "element_size", "is_contiguous", "storage_offset", "is_signed", "is_inference", "__len__",
    "is_cpu", *METADATA,
})  # fmt: skip
_PLAIN_ANSWERS = (type(None), bool, int, float, complex, str, torch.Size, torch.dtype, torch.device, torch.layout)

_PLAIN = (torch.nn.Parameter, torch.Tensor)

_homes: dict[int, Home] = {}  # by the id of a tensor that its home keeps alive


class _Watched(Disguised):
    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with as_engine():
            return _answer(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain_copy(self).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        found: torch.Tensor = memo.setdefault(id(self), _plain_copy(self))
        return found


class HeldParameter(_Watched, torch.nn.Parameter):
    """A parameter of a held component."""

    own_class = torch.nn.Parameter


class HeldBuffer(_Watched, torch.Tensor):
    """A buffer of a held component, or a tensor that a module keeps beside its parameters."""

    own_class = torch.Tensor


@functools.cache
def _held_class(kind: Any) -> type:
    """What a held tensor of ``kind`` is; for packed weights a class of its own, so that it is of ``kind`` as well."""
    known: dict[type, type] = {torch.nn.Parameter: HeldParameter, torch.Tensor: HeldBuffer}
    return known.get(kind) or type(f"Held{kind.__name__}", (_Watched, kind), {"own_class": kind})


def watch(tensors: Iterable[torch.Tensor], home: Home) -> None:
    """Has ``home`` told of all that happens to ``tensors``, which it keeps alive until ``unwatch``."""
    for each in tensors:
        kind = type(each)
        if kind in _PLAIN or is_packed(each):  # other libraries' classes are moved by themselves
            if not issubclass(kind, Disguised):
                set_class(each, _held_class(kind))
            _homes[id(each)] = home


def unwatch(tensors: Iterable[torch.Tensor]) -> None:
    """Makes them what they were."""
    for each in tensors:
        kind = type(each)
        if issubclass(kind, _Watched):
            set_class(each, kind.own_class)
            _homes.pop(id(each), None)


def _answer(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` gives for held tensors: of their device copies in a call, of their masters outside of one."""
    name = _name_of(func)
    if name in _METADATA:
        return func(*args, **kwargs)
    homes = {id(each): (each, _homes[id(each)]) for each in _tensors(args, kwargs) if id(each) in _homes}
    running = {key: pair for key, pair in homes.items() if pair[1].in_call}
    if running and name == "device":
        return next(iter(running.values()))[1].device
    copies = {key: home.device_copy(each) for key, (each, home) in running.items()}
    args, kwargs = _replaced(args, copies), _replaced(kwargs, copies)
    resting = [pair for key, pair in homes.items() if key not in running]
    packed = any(is_packed(each) for each, _ in homes.values())
    run = _by_its_class(func, [each for each, _ in resting]) if packed else func
    return _at_rest(func, run, args, kwargs, resting)


def _at_rest(
    func: Callable[..., Any],
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    held: list[tuple[torch.Tensor, Home]],
) -> Any:
    """Does ``func`` by ``run`` on masters; lends those that it edits, or that can be edited through what it returns."""
    for _, home in held:
        home.check_there()
    away = _away(func, args, kwargs, held)
    args, kwargs = _replaced(args, away), _replaced(kwargs, away)
    versions = [_edits(each) for each, _ in held]
    try:
        result = run(*args, **kwargs)
    finally:  # also an operation that raised may have written
        _lend(home for (each, home), before in zip(held, versions, strict=True) if _edits(each) != before)
    if _sets_data(func) or not _is_apart(result, [each for each, _ in held]):
        _lend(home for _, home in held)
    return result


def _away(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], held: list[tuple[torch.Tensor, Home]]
) -> dict[int, torch.Tensor]:
    """Copies of masters for an operation on the component's device, as a pipeline's own code may do with a weight.

    One that edits gets none, so that no edit is lost: PyTorch refuses what is on two devices.
    """
    if _name_of(func).endswith("_") or "out" in kwargs:
        return {}
    used = {each.device for each in _tensors(args, kwargs) if id(each) not in _homes}
    return {id(each): _copy_on(home.device, each) for each, home in held if home.device in used - {each.device}}


def _lend(homes: Iterable[Home]) -> None:
    for home in homes:
        home.lend()


def _name_of(func: Any) -> str:
    """A function's name; where a property is read, the property's."""
    name: str = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _sets_data(func: Any) -> bool:
    return getattr(func, "__name__", "") == "__set__" and getattr(func.__self__, "__name__", "") == "data"


def _tensors(*values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(*value)
        elif isinstance(value, dict):
            yield from _tensors(*value.values())


def _replaced(value: Any, copies: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return copies.get(id(value), value)
    if type(value) in (list, tuple):
        return type(value)(_replaced(each, copies) for each in value)
    if isinstance(value, dict):
        return {key: _replaced(each, copies) for key, each in value.items()}
    return value


def _is_apart(result: Any, held: list[torch.Tensor]) -> bool:
    """Whether nobody can edit one of ``held`` through ``result``."""
    if isinstance(result, list | tuple):
        return all(_is_apart(each, held) for each in result)
    if not isinstance(result, torch.Tensor):
        return isinstance(result, _PLAIN_ANSWERS)
    if any(result is each for each in held):  # it is watched as before
        return True
    return _memories([result]).isdisjoint(_memories(held))


def _memories(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {part.untyped_storage().data_ptr() for each in tensors for _, part in parts_of(each)}


def _edits(tensor: torch.Tensor) -> int:
    """How often it was edited in place, part by part too."""
    return sum(version_of(each) for each in {id(each): each for _, each in (("", tensor), *parts_of(tensor))}.values())


def _plain_copy(tensor: Any) -> torch.Tensor:
    """A copy of a held tensor that nobody holds."""
    with as_engine(), torch.no_grad():
        if is_packed(tensor):
            return likeness(tensor, [part.detach().clone() for _, part in parts_of(tensor)])
        data = tensor.detach().clone()
        return torch.nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else data


def _copy_on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    if not is_packed(tensor):
        return tensor.to(device)
    return likeness(tensor, [part.to(device) for _, part in parts_of(tensor)])


def _by_its_class(func: Callable[..., Any], resting: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """``func`` on packed weights, whose own class says what it does; those at rest have it meanwhile."""

    def run(*args: Any, **kwargs: Any) -> Any:
        touched = {id(each): each for whole in resting for _, each in (("", whole), *parts_of(whole))}
        homes = [(each, _homes[key]) for key, each in touched.items() if key in _homes]
        unwatch(each for each, _ in homes)
        try:
            with as_user():
                return func(*args, **kwargs)
        finally:
            for each, home in homes:
                watch((each,), home)

    return run
