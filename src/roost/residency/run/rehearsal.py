"""One call of a held pipeline's component with made-up inputs of the true size, to see what memory it really takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from roost.errors import RoostError
from roost.pipelines.described_values import call_of_form
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.step_caches import without_cache
from roost.residency.engine.rerun import out_of_memory_in
from roost.residency.engine.stages import StageRecorder
from roost.residency.hold.attach import Held


class NotRehearsable(Exception):
    """A call that failed for another reason than memory; its text names the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of the device while the call ran: the peak of all, and what of it no weights account for."""

    peak_bytes: int
    activation_bytes: int


def rehearse(held: Held, component: str, method: str, form: Mapping[str, Any], recast: str | None = None) -> Measured:
    """Calls the component's method with zeros of the ``form``, its weights in the dtype ``recast`` if there is one.

    What has to be given up for it stays given up, and the figures are those of a call that then had to give up nothing.
    Nothing else of the call is left: no generation's bits, seconds or peaks depend on it. Raises OutOfMemory where
    nothing is left to give up, NotRehearsable for a call that fails otherwise.
    """
    devices = [held.device.device] if held.device.device.type == "cuda" else []
    with held.runtime.apart(), _unheard(held.recorder), torch.random.fork_rng(devices), torch.no_grad():
        while True:
            given_up = len(held.changes)
            measured = _call(held, component, method, form, recast)
            if len(held.changes) == given_up:
                return measured


def _call(held: Held, component: str, method: str, form: Mapping[str, Any], recast: str | None) -> Measured:
    module, device = held.runtime.components[component].module, held.device
    try:
        with (
            quiet_libraries(),
            out_of_memory_in(f"rehearsing {component}", device),
            _recast(module, recast),
            without_cache(module),  # a whole call takes the most, and no pipeline says here whose it is
        ):
            with device.counting_activations():
                args, kwargs = call_of_form(form, device.device)
            getattr(module, method)(*args, **kwargs)
            peak_bytes = device.peak_bytes
            measured = Measured(peak_bytes=peak_bytes, activation_bytes=peak_bytes - held.runtime.weights_bytes)
    except RoostError:
        raise
    except Exception as error:  # of any kind: code of a library, given what it never got before
        raise NotRehearsable(f"{component} failed on made-up inputs: {type(error).__name__}") from error
    held.runtime.end_call()
    return measured


@contextmanager
def _recast(module: torch.nn.Module, name: str | None) -> Iterator[None]:
    """As a pipeline does it that decodes in another dtype than the weights have (SDXL)."""
    dtype = None if name is None else getattr(torch, name)
    before = next((each.dtype for each in module.parameters()), dtype)
    if dtype == before or dtype is None:
        yield
        return
    module.to(dtype=dtype)
    try:
        yield
    finally:
        module.to(dtype=before)


@contextmanager
def _unheard(recorder: StageRecorder) -> Iterator[None]:
    heard, recorder.on_event = recorder.on_event, None
    try:
        yield
    finally:
        recorder.on_event = heard
