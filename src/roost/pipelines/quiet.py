"""The libraries' own progress bars and warnings, off while Roost reports instead."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL, getLogger

import diffusers.utils.logging
import transformers.utils.logging


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Nothing of diffusers and transformers is printed: what fails raises. Both are as before afterwards."""
    loggings = (diffusers.utils.logging, transformers.utils.logging)
    levels = [logging.get_verbosity() for logging in loggings]
    bars = [logging.is_progress_bar_enabled() for logging in loggings]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logging in loggings:
                logging.set_verbosity(CRITICAL)
                logging.disable_progress_bar()
            yield
        finally:
            for logging, level, bar in zip(loggings, levels, bars, strict=True):
                logging.set_verbosity(level)
                if bar:
                    logging.enable_progress_bar()


@contextmanager
def quiet_torch() -> Iterator[None]:
    """The same for the logs of torch and torchao, which tells of kernels that this machine can't load."""
    logs = [getLogger(name) for name in ("torch", "torchao")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(CRITICAL)
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
