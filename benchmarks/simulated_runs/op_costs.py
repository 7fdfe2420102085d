"""What each op of a denoiser costs on a virtual card, told to the simulated GPU before the op is launched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from simulated import runtime
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from virtual_cards import HOST_COPY_BYTES_PER_S, VirtualCard

from roost.facts.rates import RateKey

aten = torch.ops.aten
RATES = {
    aten.mm: RateKey.MATMUL, aten.addmm: RateKey.MATMUL, aten.bmm: RateKey.MATMUL, aten.baddbmm: RateKey.MATMUL,
    aten.convolution: RateKey.CONV,
    aten._scaled_dot_product_flash_attention: RateKey.ATTENTION,
    aten._scaled_dot_product_efficient_attention: RateKey.ATTENTION,
    aten._scaled_dot_product_cudnn_attention: RateKey.ATTENTION,
}  # fmt: skip
NO_WORK = {
    aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.detach, aten.lift_fresh, aten.set_,
    aten.resize_,
}  # fmt: skip
# Of eager PyTorch and the model's Python, beside the launches themselves: guesses, the same for every contestant.
OP_HOST_S, VIEW_HOST_S = 6e-6, 2e-6
START_S = 1.5e-6  # of a kernel on the device


class OpCosts(TorchDispatchMode):
    """Inside the context each op takes its virtual time: FLOP by class, or bytes moved, whichever takes longer.

    Copies within host memory only take their time: nobody reads what the weights' memory holds.
    """

    def __init__(self, card: VirtualCard) -> None:
        super().__init__()
        self._card = card
        self._views: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if packet is aten.copy_ and args[0].is_cpu and args[1].is_cpu:
            runtime().sim_host(OP_HOST_S + args[0].nbytes / HOST_COPY_BYTES_PER_S)
            return args[0]
        if packet is aten._pin_memory:
            runtime().sim_host(args[0].nbytes / HOST_COPY_BYTES_PER_S)
            return torch.empty_like(args[0], pin_memory=True)
        if self._is_view(func):
            runtime().sim_host(VIEW_HOST_S)
            return func(*args, **kwargs)
        seconds = self._seconds(packet, args, kwargs)
        if seconds is None:
            return func(*args, **kwargs)
        runtime().sim_host(OP_HOST_S)
        runtime().sim_cost(seconds)
        result = func(*args, **kwargs)
        runtime().sim_cost(-1.0)
        return result

    def _is_view(self, func: Any) -> bool:
        found = self._views.get(func)
        if found is None:
            aliases = [each.alias_info for each in func._schema.arguments]
            reads = any(each is not None and not each.is_write for each in aliases)
            found = self._views[func] = func.overloadpacket in NO_WORK or reads
        return found

    def _seconds(self, packet: Any, args: Any, kwargs: dict[str, Any]) -> float | None:
        """Seconds on the card; None for an op that isn't run there."""
        sizes = [_read_bytes(each) for each in _tensors(args) if each.is_cuda]
        if not sizes:
            return None
        rate = RATES.get(packet)
        largest = max(each.nbytes for each in _tensors(args) if each.is_cuda)
        moved_s = (sum(sizes) + largest) / self._card.memory_bytes_per_s  # what it writes is as large as what it reads
        if rate is None:
            return START_S + moved_s
        counted = {key: value for key, value in kwargs.items() if key != "dtype"}
        out_val = _convolved(args) if packet is aten.convolution else None
        flops = flop_registry[packet](*args, **counted, out_val=out_val)
        return START_S + max(flops / self._card.speeds[rate], moved_s)


def _tensors(args: Iterable[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for each in args:
        found += [
            one for one in (each if isinstance(each, (list, tuple)) else (each,)) if isinstance(one, torch.Tensor)
        ]
    return found


def _read_bytes(tensor: torch.Tensor) -> int:
    """What an op reads of it: a value that is broadcast, once."""
    return tensor.itemsize if 0 in tensor.stride() else tensor.nbytes


def _convolved(args: Any) -> torch.Tensor:
    """A convolution's result, its shape alone."""
    image, kernel, _, stride, padding, dilation = args[:6]
    spatial = [
        (size + 2 * pad - spread * (width - 1) - 1) // step + 1
        for size, pad, spread, width, step in zip(
            image.shape[2:], padding, dilation, kernel.shape[2:], stride, strict=True
        )
    ]
    return torch.empty(image.shape[0], kernel.shape[0], *spatial, device="meta")
