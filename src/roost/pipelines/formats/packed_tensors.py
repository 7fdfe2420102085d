"""Weights whose class packs them: of which plain tensors each consists, and its likeness over other memory.

Whoever moves or sizes weights asks here, and knows no format. A part's object stays for good: binding its ``data`` to
other memory moves the weight that it is part of.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch

from roost.pipelines.internals.of_torch import as_engine

Part = tuple[str, torch.Tensor]  # its name within the weight, empty for the weight itself, and the tensor

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter, torch.nn.Buffer))
# A library and its class. What these know beside their memory is in their attributes.
_OWN_MEMORY = ("diffusers", "GGUFParameter")
_FOUR_BITS = ("bitsandbytes", "Params4bit")
_EIGHT_BITS = ("bitsandbytes", "Int8Params")
_SHARDED = ("torch", "DTensor")

_Form = Literal["plain", "own memory", "quant state", "wrapper", "unknown"]

set_class: Callable[[torch.Tensor, type], None] = object.__dict__["__class__"].__set__


class Disguised:
    """Of a tensor that has another class than its ``own_class`` for a while."""

    own_class: type


def own_class(kind: type) -> type:
    """The class that a tensor of this one has when nobody disguises it."""
    return kind.own_class if issubclass(kind, Disguised) else kind


def is_packed(tensor: torch.Tensor) -> bool:
    """Whether it is several plain tensors, or one that only its class can read."""
    return _form_of(type(tensor)) in ("own memory", "quant state", "wrapper")


def computes_with_parts(kind: type) -> bool:
    """Whether tensors of this class have no memory but that of their parts, and do all operations with those."""
    return _form_of(kind) == "wrapper"


def parts_of(tensor: torch.Tensor) -> list[Part]:
    """The tensors that hold all bytes of ``tensor``: itself, where it is plain or of an unknown class."""
    form = _form_of(type(tensor))
    if form == "wrapper":
        return list(_inner_parts(tensor))
    if form == "quant state":
        return [("", tensor), *_state_parts(_quant_state(tensor), "quant_state")]
    return [("", tensor)]


def likeness(tensor: torch.Tensor, parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """What computes as ``tensor`` does, over ``parts`` in place of its own, with whatever libraries wrote onto it."""
    form, given = _form_of(type(tensor)), iter(parts)
    with as_engine():
        if form == "wrapper":
            return _wrapped(tensor, given).requires_grad_(tensor.requires_grad)
        memory = next(given)
        if form in ("own memory", "quant state"):
            made = _of_class(memory, own_class(type(tensor))).requires_grad_(tensor.requires_grad)
        else:
            made = torch.nn.Parameter(memory, requires_grad=tensor.requires_grad)
        vars(made).update(vars(tensor))
        if form == "quant state":
            vars(made)["quant_state"] = _state_over(_quant_state(tensor), given)
        return made


def follow_parts(tensor: torch.Tensor) -> None:
    """Makes a wrapper say that it is on the device on which its parts are."""
    if _form_of(type(tensor)) == "wrapper":
        parts = [part for _, part in parts_of(tensor)]
        if parts and parts[0].device != tensor.device:
            with torch.no_grad(), as_engine():
                tensor.data = _wrapped(tensor, iter(parts))


def why_whole(tensor: torch.Tensor) -> str | None:
    """Why nobody but its own class can move it, in words; None for what is moved part by part."""
    kind = own_class(type(tensor))
    form = _form_of(kind)
    with as_engine():
        if form == "unknown":
            return f"is {_a(kind)}" + (", whose layer keeps parts of it" if _is_of(kind, _EIGHT_BITS) else "")
        if form == "quant state" and _quant_state(tensor) is None:
            return f"is {_a(kind)} that is not quantised yet"
        if any(not _is_plain(part, tensor) for _, part in parts_of(tensor)):
            return f"is {_a(kind)} of other than plain tensors"
        if form == "wrapper" and not _comes_back(tensor):
            return f"is {_a(kind)} that can't be made of its parts"
        if form == "plain" and type(tensor.data) is not torch.Tensor:
            return f"holds {_a(type(tensor.data))}"
    return None


def why_unmeasured(tensor: torch.Tensor) -> str | None:
    """Why what is computed with it can't be foreseen without data, in words; None where its parts show it."""
    kind = own_class(type(tensor))
    if _form_of(kind) == "quant state":  # other ones on each device, and matrix products are inside
        return f"is {_a(kind)}, whose operations are kernels of its library"
    return why_whole(tensor)


def named_parts(module: torch.nn.Module) -> Iterator[Part]:
    """The parts of all parameters and buffers by their dotted names, each once."""
    seen: set[int] = set()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        for suffix, part in parts_of(tensor):
            if id(part) not in seen:
                seen.add(id(part))
                yield dotted(name, suffix), part


def stored_sizes(module: torch.nn.Module) -> dict[str, int]:
    """Bytes by the names of the module's state, and of what is packed by the names that torchao's files give its parts.

    A dot more would make each layer of a list look like a block of layers.
    """
    held = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    packed = {name: tensor for name, tensor in held if is_packed(tensor)}
    sizes: dict[str, int] = {}
    for key, each in module.state_dict().items():
        name = next((prefix for prefix in _prefixes(key) if prefix in packed), None) if packed else None
        if name is not None:  # some states have a packed weight as it is, some have more of it under longer names
            sizes |= {_in_one_layer(name, suffix): part.nbytes for suffix, part in parts_of(packed[name])}
        elif isinstance(each, torch.Tensor):
            sizes[key] = each.nbytes
    return sizes


def dotted(name: str, suffix: str) -> str:
    """The name of a part of the weight ``name``."""
    return f"{name}.{suffix}" if suffix else name


def _in_one_layer(name: str, suffix: str) -> str:
    path, _, leaf = name.rpartition(".")
    return dotted(path, f"_{leaf}_{suffix.replace('.', '_')}") if suffix and path else dotted(name, suffix)


@functools.cache
def _form_of(kind: Any) -> _Form:
    kind = own_class(kind)
    if kind in _PLAIN:
        return "plain"
    if _is_of(kind, _OWN_MEMORY):
        return "own memory"
    if _is_of(kind, _FOUR_BITS):
        return "quant state"
    # What is spread over processes is moved by its own mesh.
    flat = hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")
    return "wrapper" if flat and not _is_of(kind, _SHARDED) else "unknown"


def _is_of(kind: type, called: tuple[str, str]) -> bool:
    return any((each.__module__.partition(".")[0], each.__name__) == called for each in kind.__mro__)


def _a(kind: type) -> str:
    return f"a {kind.__name__}"


def _is_plain(part: torch.Tensor, whole: torch.Tensor) -> bool:
    return (part is whole or own_class(type(part)) in _PLAIN) and part.layout == torch.strided


def _of_class(memory: torch.Tensor, kind: type) -> torch.Tensor:
    """``memory`` as a tensor of ``kind``."""
    view = memory.detach()
    if type(view) is torch.Tensor:
        return view.as_subclass(kind)
    set_class(view, _both(type(view), kind))  # a tensor without data has a class, which must be asked first
    return view


@functools.cache
def _both(first: Any, second: Any) -> type:
    return type(second.__name__, (first, second), {})


# Wrappers hold their bytes in attributes, and say in which by torch's own protocol for such classes.


def _inner_parts(tensor: Any, prefix: str = "") -> Iterator[Part]:
    for name in tensor.__tensor_flatten__()[0]:
        inner: torch.Tensor = getattr(tensor, name)
        if _form_of(type(inner)) == "wrapper":
            yield from _inner_parts(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _wrapped(tensor: Any, parts: Iterator[torch.Tensor]) -> torch.Tensor:
    names, context = tensor.__tensor_flatten__()
    inner = {}
    for name in names:
        own: torch.Tensor = getattr(tensor, name)
        inner[name] = _wrapped(own, parts) if _form_of(type(own)) == "wrapper" else next(parts)
    kind: Any = own_class(type(tensor))
    made: torch.Tensor = kind.__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())
    more = {key: value for key, value in vars(tensor).items() if key not in vars(made) and key not in inner}
    vars(made).update(more)
    return made


def _comes_back(tensor: torch.Tensor) -> bool:
    parts = [part for _, part in parts_of(tensor)]
    try:
        made = _wrapped(tensor, iter(parts))
    except Exception:  # another library's code raises every kind
        return False
    same = (type(made), made.shape, made.dtype) == (own_class(type(tensor)), tensor.shape, tensor.dtype)
    return same and [id(part) for _, part in parts_of(made)] == list(map(id, parts))


# bitsandbytes explains its 4 bits in an object beside the memory, which may have another inside it.


def _quant_state(tensor: torch.Tensor) -> Any:
    return vars(tensor).get("quant_state")


def _state_parts(state: Any, name: str) -> Iterator[Part]:
    if state is not None:
        yield from ((f"{name}.{key}", getattr(state, key)) for key in _tensors_of(state))
        yield from _state_parts(state.state2, f"{name}.state2")


def _state_over(state: Any, parts: Iterator[torch.Tensor]) -> Any:
    made = copy.copy(state)
    for key in _tensors_of(state):
        setattr(made, key, next(parts))
    if state.state2 is not None:
        made.state2 = _state_over(state.state2, parts)
    return made


def _tensors_of(state: Any) -> list[str]:
    return [key for key in ("absmax", "code", "offset") if isinstance(getattr(state, key), torch.Tensor)]


def _prefixes(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(len(parts), 0, -1))
