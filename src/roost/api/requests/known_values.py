"""Options that take one of a few words. `roost inspect` reads this file, so it imports no planner and no plan."""

from __future__ import annotations

from collections.abc import Sequence

from roost.api.requests.option_sets import WeightsOptions
from roost.errors import UsageError
from roost.option_spelling import given, option

AUTO = "auto"

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


def is_auto(typed: str | int) -> bool:
    """Whether a batch is to be chosen."""
    return isinstance(typed, str) and typed.strip().lower() == AUTO


def batch_of(typed: str | int) -> int:
    """The number of outputs; UsageError for a text that is no number, and for ``auto``, which only groups have."""
    if isinstance(typed, int):
        return typed
    if is_auto(typed):
        raise UsageError(f"{option('batch', AUTO)} groups what run --prompts FILE makes; give a whole number here.")
    try:
        return int(typed)
    except ValueError:
        raise UsageError(f"{given('batch', typed)} is no number of outputs; give a whole number from 1.") from None
