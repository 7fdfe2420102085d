"""Options that take one of a few words. `roost inspect` reads this file, so it imports no planner and no plan."""

from __future__ import annotations

from collections.abc import Sequence

from roost.api.requests.option_sets import WeightsOptions
from roost.errors import UsageError
from roost.option_spelling import given

DTYPES = ("bfloat16", "float16", "float32")
_DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def one_of(value: str, allowed: Sequence[str], name: str) -> str:
    """The word in small letters; UsageError, of the option ``name``, when it is none of the allowed ones."""
    word = value.strip().lower()
    if word not in allowed:
        raise UsageError(f"{given(name, value)} is not known; choose one of {', '.join(allowed)}.")
    return word


def dtype_of(options: WeightsOptions) -> str | None:
    """The typed load dtype under its torch name."""
    if options.dtype is None:
        return None
    name = options.dtype.strip().lower()
    return one_of(_DTYPE_ALIASES.get(name, name), DTYPES, "dtype")
