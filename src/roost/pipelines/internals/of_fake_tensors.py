"""What the dry run uses of torch's fake tensors, which are private as a whole.

A meta tensor is the public alternative: it has no device of its own, so models that ask for one go another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.nn.attention import flex_attention

from roost.pipelines.internals.of_operators import eager_kernel

__all__ = ["FakeTensor", "FakeTensorMode"]

# An operation whose result's shape depends on values.
UNKNOWN_SHAPES = (DataDependentOutputException, DynamicOutputShapeException)

# Inside it, fake tensors are the meta tensors below them: FakeTensorMode itself decides each view anew, a
# million times in a VAE.
as_meta: Callable[[FakeTensorMode], AbstractContextManager[object]] = in_kernel_invocation_manager

_OPERATOR, _NO_COMPILE = "flex_attention_hop", "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


@contextmanager
def eager_flex_attention() -> Iterator[None]:
    """Has flex attention run as the operations that it is made of where nobody compiles it: dense scores.

    It would have its operator compiled first, which fake tensors don't survive. There is no public switch.
    """
    dense = eager_kernel(vars(flex_attention)[_OPERATOR])
    with ExitStack() as undo:
        for name, value in ((_NO_COMPILE, True), (_OPERATOR, dense)):
            undo.callback(setattr, flex_attention, name, getattr(flex_attention, name))
            setattr(flex_attention, name, value)
        yield
