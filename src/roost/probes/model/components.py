"""A pipeline's components: their files found, checked to be complete, and their headers read."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import Any

from roost.errors import InvalidFile, UsageError
from roost.facts.model import ClassFacts
from roost.option_spelling import given, option
from roost.probes.files.safe_files import listed, shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.foreign import refuse_foreign
from roost.probes.model.layout import Declared, DirectoryLayout, declared_class
from roost.probes.model.not_loadable import Lack, other_variants, why_fetch, why_lacking
from roost.probes.model.stored import (
    FoundComponent,
    StoredComponent,
    check_elsewhere,
    read_stored,
    stored_elsewhere,
)
from roost.probes.model.weight_files import find_variants, find_weights, within

_WEIGHTS_LIKE = (".safetensors", ".bin", ".index.json", ".pt", ".pth", ".onnx", ".msgpack", ".flashpack", ".gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted of a model: a ``variant``, and a ``dtype`` for all components; None takes the profile's and else
    the stored one. Components whose weights are ``elsewhere`` have none in it.
    """

    variant: str | None = None
    dtype: str | None = None
    elsewhere: Collection[str] = ()


def read_components(
    directory: ModelDirectory, layout: DirectoryLayout, wanted: Wanted, class_facts: Mapping[str, ClassFacts]
) -> tuple[list[StoredComponent], list[str]]:
    """The components with weights, and the names of those without; what a loader would miss is InvalidFile.

    ``class_facts`` are of the classes that are known to have weights.
    """
    variant = wanted.variant
    check_elsewhere(layout, wanted.elsewhere)
    found: list[FoundComponent] = []
    empty: list[StoredComponent] = []
    weightless: list[str] = []
    lacking: dict[Lack, list[str]] = {}
    for declared in layout.components:
        refuse_foreign(directory, declared)
        if declared.name in wanted.elsewhere:
            empty.append(stored_elsewhere(directory, declared))
            continue
        each = _find(directory, declared, variant)
        if each is not None:
            found.append(each)
        elif _is_weightless(directory, declared, class_facts):
            weightless.append(declared.name)
            if declared.folder:
                directory.refuse_links(declared.folder)
            _record_scheduler(directory, declared)
            _report_bare(directory, layout, declared)
        else:
            lacking.setdefault(why_lacking(directory, declared, variant), []).append(f"{declared.name}/")
    _refuse_incomplete(directory, found, lacking)
    if variant is not None:
        _check_variant(directory, layout, found, variant)
    for each in found:
        _report(layout, each)
    return [*(read_stored(directory, each) for each in found), *empty], weightless


def _find(directory: ModelDirectory, declared: Declared, variant: str | None) -> FoundComponent | None:
    """The component's weights. At the root only if the config there says that they are this component's."""
    if is_weightless_class(declared.class_name):
        return None
    config_name = within(declared.folder, "config.json")
    config: Mapping[str, Any] | None = directory.read_object(config_name) if directory.has(config_name) else None
    if not declared.folder and declared_class(config or {})[1] != declared.class_name:
        return None
    explicit = (config or {}).get("transformers_weights")
    weights = find_weights(directory, declared.folder, declared.library, variant=variant, explicit=explicit)
    return None if weights is None else FoundComponent(declared=declared, weights=weights, config=config)


def _is_weightless(directory: ModelDirectory, declared: Declared, class_facts: Mapping[str, ClassFacts]) -> bool:
    if is_weightless_class(declared.class_name):
        return True
    names = directory.names(declared.folder) if declared.folder else {}
    if any(map(_looks_like_weights, names)):
        return False
    if is_checker_class(declared.class_name) and declared.class_name not in class_facts:
        return True
    return bool(names) and "config.json" not in names


def _looks_like_weights(name: str) -> bool:
    return name.endswith(_WEIGHTS_LIKE)


def _record_scheduler(directory: ModelDirectory, declared: Declared) -> None:
    """A scheduler's settings decide which expert runs when, so a plan stands on them too."""
    name = within(declared.folder, "scheduler_config.json")
    if directory.has(name):
        directory.read_object(name, infinities=True)


def _report_bare(directory: ModelDirectory, layout: DirectoryLayout, declared: Declared) -> None:
    """Weights may be there and a tokenizer not; a plan can do without it, a run can't."""
    lacking = lacking_file(declared.class_name, directory.names(declared.folder))
    if lacking is not None:
        layout.bare[declared.name] = declared.class_name
        layout.warnings.append(
            f"{declared.name} has no {lacking} here (interrupted download?): plans take a stand-in, a run needs it"
        )


def _refuse_incomplete(directory: ModelDirectory, found: list[FoundComponent], lacking: dict[Lack, list[str]]) -> None:
    """Says of each component that can't be loaded why, and what to do about it; alike ones together."""
    there = [f"{_sentence(names, lack)}. {lack.remedy}" for lack, names in lacking.items() if not lack.absent]
    absent = [_sentence([name], lack) for lack, names in lacking.items() if lack.absent for name in names]
    remedies = [lack.remedy for lack in lacking if lack.absent]
    missing = [name for each in found for name in each.weights.missing]
    if missing:
        absent.insert(0, f"missing: {listed(missing)}")
        remedies += [_about_missing(directory, each) for each in found if each.weights.missing]
    if absent:
        there.append(f"The model directory is incomplete: {'; '.join(absent)}. {' '.join(dict.fromkeys(remedies))}")
    if there:
        raise InvalidFile(" ".join(there))


def _sentence(names: list[str], lack: Lack) -> str:
    *others, last = names
    who = f"{', '.join(others)} and {last}" if others else last
    if lack.what is None:
        return f"{who} {'are' if others else 'is'} missing"
    return f"{who} {'have' if others else 'has'} no weights to load: {lack.what}"


def _about_missing(directory: ModelDirectory, found: FoundComponent) -> str:
    """The remedy where shards are missing: another variant may be whole."""
    variants = [each for each in other_variants(directory, found.declared) if each != found.weights.variant]
    if variants:
        whole = " and ".join(map(shown, variants))
        return f"Whole are the files of the variant {whole}: {option('variant', shown(variants[0]))}."
    return why_fetch(directory, found.declared.folder)


def _check_variant(
    directory: ModelDirectory, layout: DirectoryLayout, found: list[FoundComponent], variant: str
) -> None:
    plain = [each.declared.name for each in found if each.weights.variant is None]
    if len(plain) == len(found):
        known = set().union(*(find_variants(directory.names(each.declared.folder)) for each in found))
        there_are = f"there are: {listed(sorted(known))}" if known else "there are none; leave it out"
        raise UsageError(f"{given('variant', variant)}: no component has such files; {there_are}.")
    if plain:
        layout.warnings.append(f"no {shown(variant)} files for {', '.join(plain)}: the plain ones are loaded")


def _report(layout: DirectoryLayout, found: FoundComponent) -> None:
    """Warn of what loads, but not as someone might expect."""
    name, weights = found.declared.name, found.weights
    if weights.legacy_index:
        layout.warnings.append(
            f"{name}: its index has the old spelling of a variant, which diffusers doesn't find below a path with a dot"
        )
    if weights.pickled:
        layout.warnings.append(f"{name} has pickled weights only, which are sized and never opened")
    if (found.config or {}).get("auto_map") and name not in layout.custom:
        layout.custom.append(name)
        layout.warnings.append(f"{name}'s config names code of its own (auto_map), which is never run")


# Components that load no weights (schedulers, tokenizers, processors), and whether their files are there.


# By how the libraries name them.
_WEIGHTLESS = re.compile(
    r"(Scheduler|Tokenizer(Fast)?|Processor(Fast)?|FeatureExtractor|Guidance|Guider|MistralCommonBackend)$"
)
# Of a pipeline's own library, which fetches what it needs by itself: in the directory there is a config, or nothing.
_CHECKER = re.compile(r"(Checker|Guardrail|Guard|Watermarker?)$")
_TOKENIZER = re.compile(r"(?<!ByT5)Tokenizer(Fast)?$")  # a byte tokenizer needs no vocabulary
_IMAGE_PROCESSOR = re.compile(r"(ImageProcessor(Fast)?|FeatureExtractor)$")
_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "tekken.json", "qwen.tiktoken", "source.spm"),
)
_PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json")


def is_weightless_class(class_name: str) -> bool:
    return _WEIGHTLESS.search(class_name) is not None


def is_checker_class(class_name: str) -> bool:
    """Whether it looks at results or prompts, by its name; one may have weights or none."""
    return _CHECKER.search(class_name) is not None


def lacking_file(class_name: str, names: Container[str]) -> str | None:
    """What a folder that holds ``names`` lacks of such a class, in words; None when it lacks nothing that is known."""
    if class_name.endswith("Scheduler"):
        return _unless_any(("scheduler_config.json", "config.json"), names, "scheduler_config.json")
    if _TOKENIZER.search(class_name):
        return _unless_any(_VOCABULARIES, names, "vocabulary")
    if _IMAGE_PROCESSOR.search(class_name):
        return _unless_any(_PROCESSOR_CONFIGS, names, "preprocessor_config.json")
    return None


def _unless_any(wanted: tuple[str, ...], names: Container[str], words: str) -> str | None:
    return None if any(name in names for name in wanted) else words
