"""The cards that Roost knows by name: one YAML file each under ``gpus/``, every number with its source."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

from roost.errors import UsageError
from roost.facts.machine import GpuProfile, Number
from roost.option_spelling import given

# The files are our own, so libyaml's faster loader is safe here; plans from others never meet it.
_YamlLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOLDER = Path(__file__).with_name("gpus")
_MAKERS = re.compile(r"nvidia|geforce|amd(?=\s)", re.IGNORECASE)
_SAME_CARD = 0.1  # share by which drivers' and data sheets' total memory of one card differ at most


@cache
def load_gpu_profiles() -> Mapping[str, GpuProfile]:
    """Every profile by its key, in the order of the keys."""
    return MappingProxyType({key: _read_profile(key) for key in _list_keys()})


def find_gpu_profile(text: str, name: str = "gpu") -> GpuProfile:
    """The card that ``text`` names by key (also without ``rtx-``), product name or alias, in any case and spacing.

    An unknown name raises UsageError, of the option ``name``, with the nearest keys; one that several cards share, with
    all of theirs.
    """
    if text in _list_keys():  # the usual case reads one file
        return _read_profile(text)
    wanted, profiles = _normalise(text), load_gpu_profiles()
    by_key = {_normalise(key): profile for key, profile in profiles.items()}
    names = (wanted, f"rtx{wanted}")  # people say 4090
    for each in names:
        if each in by_key:
            return by_key[each]
    named = [each for each in profiles.values() if wanted in _product_names(each)]
    if len(named) == 1:
        return named[0]
    shared = [each.key for each in named] or [key for key in profiles if not {*names}.isdisjoint(_short_names(key))]
    if len(shared) > 1:
        raise UsageError(f"{given(name, text)} can mean several cards; say which one: {', '.join(shared)}.")
    near = shared or [by_key[key].key for key in difflib.get_close_matches(wanted, by_key)]
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"{given(name, text)} is not a known card.{hint} List them with: roost gpus")


def match_gpu_profile(name: str, total_bytes: int) -> GpuProfile | None:
    """The profile of a card that is present, by product name and total memory as NVML reports them, if any."""
    product = _normalise(name)
    for profile in load_gpu_profiles().values():
        nominal = profile.total_bytes.value
        if product in _product_names(profile) and abs(total_bytes - nominal) <= _SAME_CARD * nominal:
            return profile
    return None


def shares_memory(name: str) -> bool:
    """Whether the product of that name has no memory but the host's."""
    product = _normalise(name)
    return any(each.unified and product in _product_names(each) for each in load_gpu_profiles().values())


def _list_keys() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def _read_profile(key: str) -> GpuProfile:
    with (_FOLDER / f"{key}.yaml").open(encoding="utf-8") as file:
        fields = yaml.load(file, Loader=_YamlLoader)
    numbers = {name: Number(**value) for name, value in fields.items() if isinstance(value, dict)}
    return GpuProfile(key=key, **{**fields, **numbers, "aliases": tuple(fields["aliases"])})


def _normalise(text: str) -> str:
    return re.sub(r"[\s_-]+", "", _MAKERS.sub("", text)).lower()


def _product_names(profile: GpuProfile) -> set[str]:
    return {_normalise(name) for name in (profile.name, *profile.aliases)}


def _short_names(key: str) -> Iterator[str]:
    """``a100`` for ``a100-80gb``: what is left of a key when its last words are left out."""
    words = key.split("-")
    shorter = ("".join(words[:count]) for count in range(1, len(words)))
    return (name for name in shorter if any(map(str.isdigit, name)))
