"""Runs in processes of their own, forked before CUDA starts, so that the next one finds a fresh card."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")


class Failed(Exception):
    """What a child raised, in words."""


def leave_cuda_to_children() -> None:
    """Whether there is CUDA is not asked here: asking starts the runtime, which no fork survives."""
    torch.set_grad_enabled(False)
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1


def in_child(variables: Mapping[str, str], work: Callable[[], T]) -> T:
    """What ``work`` returns in a forked process with these environment variables. Raises Failed with what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.environ.update(variables)
        try:
            answer: tuple[bool, object] = True, work()
        except BaseException as error:  # the parent hears of everything
            answer = False, _said(error)
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    done, value = pickle.loads(said) if said else (False, "it died without a word")
    if not done:
        raise Failed(value)
    return value


def _said(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
