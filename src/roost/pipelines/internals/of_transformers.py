"""What Roost uses of transformers that is private to it. It is imported where it is used: names need none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn


def model_from_config(kind: Any, config: Any, dtype: Any) -> Any:
    """A model without files. The public ``AutoModel.from_config`` takes one class for each config."""
    return kind._from_config(config, dtype=dtype)


def without_initial_weights() -> AbstractContextManager[object]:
    """Inside it, models are made without computing initial weights; the public meta device would leave no buffers."""
    from transformers import initialization  # imported here: this file brings no library

    context: AbstractContextManager[object] = initialization.no_init_weights()
    return context


def converts_its_files(module: Any) -> bool:
    """Whether a model makes its tensors of others in its files, which only the loader's own mapping tells."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # imported here: see above
    from transformers.core_model_loading import WeightConverter

    return any(isinstance(each, WeightConverter) for each in get_model_conversion_mapping(module))


@contextlib.contextmanager
def closed_to_the_outside() -> Iterator[None]:
    """Nothing is fetched for a directory, and no code of it runs; both are as before afterwards.

    transformers fetches kernels for a config that asks for an attention whose package isn't installed. And where a
    processor's parts are code of the directory, it asks on the terminal whether to run it, unless there is no time to
    answer. For neither is there a public switch: ``trust_remote_code=False`` isn't handed on to processors' parts.
    """
    import transformers.dynamic_module_utils as dynamic_modules  # imported here: this file brings no library
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
