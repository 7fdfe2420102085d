"""What a transformers model class does to a checkpoint when it loads one, read from the installed library.

The class is built without memory (meta device) from its default config; the library's own renaming function is the
judge of the regular expressions that are derived here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from roost.facts.model import ClassFacts

Rename = tuple[str, str]


def build(model_class: type[PreTrainedModel]) -> PreTrainedModel | None:
    """The class with its default config on the meta device; None when the default config does not fit it."""
    config_class = model_class.config_class
    for options in ({}, {"is_encoder_decoder": False}):
        try:
            with torch.device("meta"):
                return model_class(config_class(**options))
        except (AttributeError, TypeError, ValueError):
            continue
    return None


def class_facts(model: PreTrainedModel, sibling_tops: set[str]) -> ClassFacts:
    """The facts of ``model``'s class; ``sibling_tops`` are top-level names in its architecture's other classes."""
    names = {_first_block_only(name) for name in model.state_dict()}
    renames = _renames(model, names)
    # A name that a rename moves is not dropped: what files call `visual` may be this class's `model.visual`.
    foreign = {top for top in sibling_tops - top_names(names) if renamed(f"{top}._._", renames) == f"{top}._._"}
    return ClassFacts(
        keep_in_float32=_segments(model._keep_in_fp32_modules_strict or (), names, model),
        keep_in_float32_for_float16=_segments(model._keep_in_fp32_modules or (), names, model),
        ignored=_ignored(model, names, foreign - {model.base_model_prefix}),
        renames=renames,
    )


def top_names(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _first_block_only(name: str) -> str:
    """Names of all blocks fold into the first one's: what holds for it holds for the others."""
    return re.sub(r"\.\d+\.", ".0.", name)


def _segments(patterns: Iterable[str], names: set[str], model: PreTrainedModel) -> tuple[str, ...]:
    """The library searches these anywhere in a name; facts promise whole dotted segments, so the two must agree."""
    for pattern in patterns:
        searched = {name for name in names if re.search(pattern, name)}
        if searched != {name for name in names if pattern in name.split(".")}:
            raise SystemExit(f"{type(model).__name__}: {pattern!r} is kept in float32 but is no module name.")
    return tuple(sorted(patterns))


def _ignored(model: PreTrainedModel, names: set[str], foreign: set[str]) -> tuple[str, ...]:
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.add(r"(^|\.)position_ids$")
    if foreign:
        patterns.add(rf"^(?:{'|'.join(sorted(foreign))})(?:\.|$)")
    # A pattern that also matches the class's own tensors says nothing about those: they load.
    return tuple(sorted(each for each in patterns if not any(re.search(each, name) for name in names)))


def _renames(model: PreTrainedModel, names: set[str]) -> tuple[Rename, ...]:
    """The fewest pairs that rename every old spelling of ``names`` as the library does."""
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]

    def library_name(name: str) -> str:
        meta = dict.fromkeys(names, True)
        return str(rename_source_key(name, renamings, [], model.base_model_prefix, meta)[0])

    spellings = {name for name in _old_spellings(names, renamings, model) if library_name(name) in names}
    pairs = [pair for each in renamings for pair in _pairs_of(each)] + _prefix_pairs(model.base_model_prefix, names)
    wrong = _differences(spellings, pairs, library_name)
    if wrong:
        raise SystemExit(f"{type(model).__name__}: no renames derived for {sorted(wrong)[:5]}.")
    for pair in list(pairs):
        fewer = [each for each in pairs if each is not pair]
        if not _differences(spellings, fewer, library_name):
            pairs = fewer
    return tuple(pairs)


def _differences(spellings: set[str], pairs: list[Rename], library_name: Callable[[str], str]) -> set[str]:
    return {name for name in spellings if renamed(name, pairs) != library_name(name)}


def renamed(name: str, pairs: Iterable[Rename]) -> str:
    for pattern, replacement in pairs:
        name = re.sub(pattern, replacement, name)
    return name


def _old_spellings(names: set[str], renamings: list[WeightRenaming], model: PreTrainedModel) -> set[str]:
    """Names as older files may spell them: each renaming undone, alone and together, with and without the prefix."""
    undone = [each.reverse_transform() for each in reversed(renamings)]
    found = set(names)
    for name in names:
        found.update(each.rename_source_key(name)[0] for each in undone)
        together = name
        for each in undone:
            together = each.rename_source_key(together)[0]
        found.add(together)
    prefix = f"{model.base_model_prefix}."
    if prefix != ".":
        is_head = any(name.startswith(prefix) for name in names)
        found |= {name.removeprefix(prefix) if is_head else prefix + name for name in found}
    return found


def _pairs_of(transform: WeightRenaming) -> list[Rename]:
    """A library renaming as anchored pairs, longest source first like its own alternation."""
    if type(transform).__name__ not in {"WeightRenaming", "PrefixChange"}:
        raise SystemExit(f"{type(transform).__name__} is a kind of renaming this script does not know.")
    lead, replaced_lead = _scope(transform)
    pairs = []
    for source in sorted(transform.source_patterns, key=len, reverse=True):
        body = source.replace("*.", r".*\.") + (r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", source) else "")
        pattern, replacement = f"^{lead}{body.removeprefix('^')}", transform.target_patterns[0]
        groups = re.compile(lead).groups
        if not body.startswith("^"):
            # Lazily up to the first match, as a search would find it.
            pattern, groups, before = f"^{lead}(.*?)(?:{body})", groups + 1, rf"\{groups + 1}"
        else:
            before = ""
        pairs.append((pattern, replaced_lead + before + replacement.replace(r"\1", rf"\{groups + 1}")))
    return pairs


def _scope(transform: WeightRenaming) -> tuple[str, str]:
    """The part of a name that a submodule's renaming leaves alone, as (pattern, replacement)."""
    if transform.scope_prefix is None:
        return "", ""
    scope = f"{transform.scope_prefix}." if transform.scope_prefix else ""
    base = f"{transform.base_model_prefix}." if transform.base_model_prefix else ""
    longer, shorter = re.escape(base + scope), re.escape(scope)
    return rf"({longer}|(?!{longer}){shorter})", r"\1"


def _prefix_pairs(prefix: str, names: set[str]) -> list[Rename]:
    """The base model's prefix, dropped when a base class meets a head's file and added the other way round."""
    if not prefix:
        return []
    dot = re.escape(f"{prefix}.")
    inner = top_names(name.removeprefix(f"{prefix}.") for name in names if name.startswith(f"{prefix}."))
    pairs = [(rf"^{dot}(?=(?:{'|'.join(sorted(top_names(names)))})(?:\.|$))", "")]
    if inner:
        pairs.append((rf"^(?=(?:{'|'.join(sorted(inner))})(?:\.|$))", f"{prefix}."))
    return pairs
