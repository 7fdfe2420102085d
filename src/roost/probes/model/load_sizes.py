"""What stored tensors will occupy once loaded: the dtype they are loaded as, and bytes by module name at it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from roost.errors import UsageError
from roost.facts.model import ClassFacts
from roost.option_spelling import given
from roost.probes.files.header_entries import DTYPE_BITS, Sizes
from roost.units import format_bytes

# Bits of one element loaded as each dtype that can be asked for.
LOAD_DTYPE_BITS: Mapping[str, int] = {"float32": 32, "bfloat16": 16, "float16": 16}
# Stored dtypes that loading casts: the floats of whole bytes. Integers and complex numbers stay as they are.
_CAST = frozenset(name for name, bits in DTYPE_BITS.items() if name.startswith(("F", "BF")) and bits >= 8)
_SMALL_FLOATS = frozenset(name for name in _CAST if DTYPE_BITS[name] == 8)

# The embedding that T5 and its kin share; a file that holds it twice loads it once.
SHARED, SHARED_AGAIN = "shared.weight", "encoder.embed_tokens.weight"


@dataclass(slots=True)
class LoadedSizes:
    """Bytes by canonical module name, and what was noticed on the way."""

    by_name: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_load_dtype(dtype: str | None) -> None:
    """UsageError for a dtype that weights can't be asked to load as."""
    if dtype is not None and dtype not in LOAD_DTYPE_BITS:
        raise UsageError(f"{given('dtype', dtype)} is unknown; it is one of {', '.join(LOAD_DTYPE_BITS)}.")


def default_load_dtype(bytes_by_dtype: Mapping[str, int]) -> str:
    """float16 for weights stored mostly so, by bytes; bfloat16 for everything else."""
    other = sum(bytes_by_dtype.get(dtype, 0) for dtype in _CAST - _SMALL_FLOATS - {"F16"})
    return "float16" if bytes_by_dtype.get("F16", 0) > other else "bfloat16"


def size_as_loaded(
    stored: Sizes, load_dtype: str, facts: ClassFacts, *, packed: Collection[str] | None = ()
) -> LoadedSizes:
    """Bytes of each tensor that the class loads, under its module's name; those ``packed`` (None: all) as stored."""
    loaded = LoadedSizes()
    keep = _kept_modules(facts, load_dtype)
    parts = None if packed is None else _renamed(dict.fromkeys(packed, 0), facts.renames)
    unused: list[int] = []
    for dtype, stored_sizes in stored.items():
        sizes = _renamed(stored_sizes, facts.renames)
        unused += [sizes.pop(name) for name in _ignored(sizes, facts.ignored)]
        _drop_second_copy(sizes, loaded)
        if parts is None or dtype not in _CAST:
            loaded.by_name.update(sizes)
            continue
        kept = {name: sizes.pop(name) for name in parts if name in sizes}
        loaded.by_name.update(kept)
        loaded.by_name.update(_cast(sizes, DTYPE_BITS[dtype], LOAD_DTYPE_BITS[load_dtype], keep))
    if unused:
        loaded.notes.append(f"unused: {len(unused)} stored tensors ({format_bytes(sum(unused))}) that its class drops")
    small = sum(sum(stored[dtype].values()) for dtype in stored if dtype in _SMALL_FLOATS)
    if small and parts == {}:
        loaded.notes.append(f"{format_bytes(small)} of weights are stored in 8 bits and load as {load_dtype}")
    return loaded


def _ignored(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    all_names = "\n".join(names) if patterns else ""
    # A pattern that is a plain word is first looked for in all names at once: mostly there is none.
    likely = [f"(?:{each})" for each in patterns if not each.isidentifier() or each in all_names]
    search = re.compile("|".join(likely)).search
    return [name for name in names if search(name)] if likely else []


def _kept_modules(facts: ClassFacts, load_dtype: str) -> frozenset[str]:
    """Modules whose tensors are float32 whatever half precision is asked."""
    if load_dtype == "float32":
        return frozenset()
    only_float16 = facts.keep_in_float32_for_float16 if load_dtype == "float16" else ()
    return frozenset((*facts.keep_in_float32, *only_float16))


def _renamed(sizes: Mapping[str, int], renames: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """Sizes under module names; under the file's own where two would become one."""
    renamed = dict(sizes)
    for pattern, replacement in renames:
        rename = re.compile(pattern).sub
        renamed = {rename(replacement, name): size for name, size in renamed.items()}
    return renamed if len(renamed) == len(sizes) else dict(sizes)


def _cast(sizes: Mapping[str, int], stored_bits: int, load_bits: int, keep: frozenset[str]) -> Mapping[str, int]:
    all_names = "\n".join(sizes)
    keep = frozenset(module for module in keep if module in all_names)  # mostly few or none: spares the slow branch
    if not keep:
        if stored_bits == load_bits:
            return sizes
        return {name: size * load_bits // stored_bits for name, size in sizes.items()}
    return {
        name: size * (load_bits if keep.isdisjoint(name.split(".")) else 32) // stored_bits
        for name, size in sizes.items()
    }


def _drop_second_copy(sizes: dict[str, int], loaded: LoadedSizes) -> None:
    if SHARED in sizes and sizes.get(SHARED_AGAIN) == sizes[SHARED]:
        del sizes[SHARED_AGAIN]
        loaded.notes.append(f"tied: {SHARED_AGAIN} is {SHARED} stored again, loaded once")
