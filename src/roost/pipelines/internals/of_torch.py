"""What Roost uses of torch's modules, tensors and modes that is private to it.

What runs for each block or operation is the raw callable or name, with no wrapper around it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = ["TorchDispatchMode"]  # torch's own base class of modes, which only its private module has

Module = torch.nn.Module

# The tables in which a module keeps what it owns. A block's parameters are exchanged a table at a time: setattr or
# register_parameter checks each, and would cost more than the block's whole hook.
PARAMETERS = "_parameters"
BUFFERS = "_buffers"
parameters_of: Callable[[Module], dict[str, torch.nn.Parameter | None]] = attrgetter(PARAMETERS)
buffers_of: Callable[[Module], dict[str, torch.Tensor | None]] = attrgetter(BUFFERS)
# named_children gives a module that stands under two names only once.
children_of: Callable[[Module], dict[str, Module | None]] = attrgetter("_modules")
# Buffers that no file holds; state_dict leaves them out, and so does not name one that hides a part's.
unfiled_names: Callable[[Module], set[str]] = attrgetter("_non_persistent_buffers_set")
# Whose hooks are on a module: register_forward_hook only adds, and its handle is whoever added it has.
forward_hooks: Callable[[Module], dict[int, Any]] = attrgetter("_forward_hooks")
forward_pre_hooks: Callable[[Module], dict[int, Any]] = attrgetter("_forward_pre_hooks")
# What ``Module.compile`` left, or None: nothing public says that a module was compiled.
compiled_call_of: Callable[[Module], Any] = attrgetter("_compiled_call_impl")
# What ``to``, ``half``, ``float`` … all come to: wrapping each of them by name would miss the next one.
CONVERT = "_apply"
conversion_of: Callable[[Module], Callable[..., Any]] = attrgetter(CONVERT)
# The base of every normalisation with running statistics: a list of its public classes would miss other libraries'.
RunningNorm: type = _NormBase

# Binds a tensor object to other memory; ``tensor.data = view`` is a statement, which ``map`` can't run.
bind_one: Callable[[torch.Tensor, torch.Tensor], None] = torch.Tensor.data.__set__  # type: ignore[attr-defined]
# How often a tensor was edited in place: comparing contents would read every weight.
version_of: Callable[[torch.Tensor], int] = attrgetter("_version")
# Private questions that a tensor answers alike on host and device.
METADATA = frozenset({"_version", "_backward_hooks", "_is_view"})
# A storage's address in torch. ``data_ptr()`` is 0 for all that have no data, and one memory may have two storages.
storage_key: Callable[[torch.UntypedStorage], int] = attrgetter("_cdata")

# Inside it, no tensor's class is asked. torch documents it under "Extending PyTorch", and exports it nowhere else.
as_engine: Callable[[], AbstractContextManager[object]] = torch._C.DisableTorchFunctionSubclass
# The opposite, inside the former: every tensor's class is asked.
as_user: Callable[[], AbstractContextManager[object]] = torch._C._EnableTorchFunction
# The same as ``as_engine`` for modes of functions, too.
without_functions: Callable[[], AbstractContextManager[object]] = torch._C.DisableTorchFunction
# Inside it, no mode hears of operations: leaving one's own mode and entering it again would leave others' in force.
without_modes: Callable[[], AbstractContextManager[object]] = _disable_current_modes
