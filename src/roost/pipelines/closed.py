"""The libraries while they load a directory: nothing is fetched for it, and no code of it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn


@contextlib.contextmanager
def closed_to_the_outside() -> Iterator[None]:
    """transformers fetches no kernels, and takes a directory's own code as refused; both are as before afterwards.

    It fetches kernels for a config that asks for an attention whose package isn't installed. And where a processor's
    parts are code of the directory, it asks on the terminal whether to run it, unless there is no time to answer.
    """
    import transformers.dynamic_module_utils as dynamic_modules
    from transformers.integrations import hub_kernels

    modules: tuple[Any, Any] = dynamic_modules, hub_kernels
    before = modules[0].TIME_OUT_REMOTE_CODE, modules[1].get_kernel
    modules[0].TIME_OUT_REMOTE_CODE, modules[1].get_kernel = 0, _refuse_kernel
    try:
        yield
    finally:
        modules[0].TIME_OUT_REMOTE_CODE, modules[1].get_kernel = before


def _refuse_kernel(*_: object, **__: object) -> NoReturn:
    raise FileNotFoundError("Roost fetches no kernels from repositories")  # what a missing repository raises there
