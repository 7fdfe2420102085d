"""Options that take one of a few words. `roost inspect` reads this file, so it imports no planner and no plan."""

from __future__ import annotations

from collections.abc import Sequence

from roost.api.requests.option_sets import WeightsOptions
from roost.errors import UsageError

DTYPES = ("bfloat16", "float16", "float32")
_DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def one_of(value: str, allowed: Sequence[str], option: str) -> str:
    """The word in small letters; UsageError when it is none of the allowed ones."""
    name = value.strip().lower()
    if name not in allowed:
        raise UsageError(f"{option} {value!r} is not known; choose one of {', '.join(allowed)}.")
    return name


def dtype_of(options: WeightsOptions) -> str | None:
    """The typed load dtype under its torch name."""
    if options.dtype is None:
        return None
    name = options.dtype.strip().lower()
    return one_of(_DTYPE_ALIASES.get(name, name), DTYPES, "--dtype")
