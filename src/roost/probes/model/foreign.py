"""What a component's configs must not ask of its library: kernels, weights and settings from somewhere else; no end.

The libraries obey such keys as soon as they read a config. What the directory only offers (``auto_map``) they leave
alone unless they are told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from roost.errors import InvalidFile
from roost.probes.files.safe_files import quoted, shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.layout import Declared
from roost.probes.model.weight_files import within

# The JSON files of a component that the libraries read settings from, beside vocabularies and indexes of weights.
_CONFIGS = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "audio_tokenizer_config.json"),
    *("feature_extractor_config.json", "scheduler_config.json", "guider_config.json"),
)
_ADDRESS = re.compile(r"[/:\\]")  # what tells a repository, or a folder, from a name
# A scheduler makes several tables of this length as it is built; the longest that anyone trained with is 2000.
_LENGTH_OF_TABLES, _LONGEST_TABLE = "num_train_timesteps", 1_000_000
_EXPERTS = ("eager", "batched_mm", "grouped_mm")  # the others are kernels of repositories

Config = Mapping[str, Any]


def refuse_foreign(directory: ModelDirectory, declared: Declared) -> None:
    """InvalidFile for configs that name something to load that isn't in the directory, or tables for all of memory."""
    for base in _CONFIGS:
        name = within(declared.folder, base)
        if not directory.has(name):
            continue
        content = directory.peek(name)
        _refuse_long_tables(name, content)
        for key, value in _foreign(content):
            raise InvalidFile(
                f"{shown(name)}: {quoted(key)} is {quoted(value)}, which would be loaded from outside this directory,"
                f" perhaps as code; take {quoted(key)} out of that file."
            )


def _refuse_long_tables(name: str, content: object) -> None:
    length = content.get(_LENGTH_OF_TABLES) if isinstance(content, Mapping) else None
    if isinstance(length, int | float) and length > _LONGEST_TABLE:
        raise InvalidFile(
            f"{shown(name)}: {quoted(_LENGTH_OF_TABLES)} is {quoted(length)}, more than any scheduler takes"
            f" ({_LONGEST_TABLE:,}); fetch that file again."
        )


def _foreign(content: object) -> Iterator[tuple[str, object]]:
    """The keys that reach a library's loader of something else, with their values; configs within configs count."""
    left = [content]
    while left:  # a list and no recursion: a file may nest deeper than calls can
        each = left.pop()
        if isinstance(each, Mapping):
            for key, value in each.items():
                foreign = _RULES.get(key.lstrip("_").removesuffix("_internal"), _nothing)(value, each)
                if foreign is not None:
                    yield key, foreign
            left += each.values()
        elif isinstance(each, list):
            left += each


def _nothing(value: object, config: Config) -> object:
    return None


def _attention(value: object, config: Config) -> object:
    """A name by itself is a way to compute; one with a slash is a repository with kernels."""
    return _first(value, lambda text: _ADDRESS.search(text) is None)


def _experts(value: object, config: Config) -> object:
    return _first(value, _EXPERTS.__contains__)


def _network(value: object, config: Config) -> object:
    """A network of timm, which has prefixes for repositories and folders."""
    return _attention(value, config)


def _backbone(value: object, config: Config) -> object:
    """A network's name where the config doesn't describe it: transformers asks the Hub for a repository called so."""
    described = isinstance(config.get("backbone_config"), Mapping) or config.get("model_type") == "timm_backbone"
    if described or config.get("use_timm_backbone"):
        return _network(value, config)
    return _first(value, lambda text: False)


def _anything(value: object, config: Config) -> object:
    return value or None


_RULES: Mapping[str, Callable[[object, Config], object]] = {
    "attn_implementation": _attention,
    "experts_implementation": _experts,
    "kernel_config": _attention,
    "custom_generate": _attention,
    "backbone": _backbone,
    "architecture": _network,
    "audio_tokenizer_name_or_path": _anything,
    "configuration_files": _anything,  # another config instead of the one that was read here
}


def _first(value: object, allows: Callable[[str], bool]) -> object:
    """The first text in ``value``, or in what it holds, that isn't allowed; None where all are."""
    return next((text for text in _texts(value) if text and not allows(text)), None)


def _texts(content: object) -> Iterator[str]:
    left = [content]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping | list):
            left += each.values() if isinstance(each, Mapping) else each
