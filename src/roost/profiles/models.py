"""The model families that Roost knows: one YAML file each under ``models/``, recognised from an index and configs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from roost.facts.model import ModelProfile, PipelineFacts
from roost.facts.request import Workload
from roost.profiles.class_facts import load_pipeline_facts

# The files are our own, so libyaml's faster loader is safe here; plans from others never meet it.
_YamlLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOLDER = Path(__file__).with_name("models")
_FRAMES_PER_S = 16
_PIPELINE = "index._class_name"

_VIDEO_PIPELINE = re.compile(r"Video|[TIV]2V|VACE|Animat|World|LTX|CogVideo|Mochi|Allegro|SkyReels|Latte")
_VIDEO_VAE = re.compile(r"Autoencoder.*(Video|Wan|CogVideo|LTX|Mochi|Allegro|Magvit|Cosmos|Temporal|VidTok)")


@cache
def load_model_profiles() -> Mapping[str, ModelProfile]:
    """Every family's profile by its key, the general ``other-image`` and ``other-video`` among them."""
    return MappingProxyType({path.stem: _read_profile(path) for path in sorted(_FOLDER.glob("*.yaml"))})


def recognise(index: Mapping[str, object], configs: Mapping[str, Mapping[str, object]]) -> ModelProfile | None:
    """The family of a parsed ``model_index.json`` and its components' configs, by name; None when unknown.

    All conditions of a profile must hold and the most specific profile wins; malformed values never raise.
    """
    pipeline = _pipeline_class(index)
    candidates = _profiles_by_pipeline().get(pipeline, ()) if pipeline is not None else ()
    matching = [each for each in candidates if _matches(each, index, configs)]
    return max(matching, key=lambda each: len(each.match), default=None)


def fallback_profile(pipeline_class: str | None, component_classes: Mapping[str, str]) -> ModelProfile:
    """The general profile for a family that is unknown, with the defaults of the pipeline's own call.

    Whether it is a video one says the library's class, or, where that is unknown, the names of pipeline and VAE class.
    """
    facts = load_pipeline_facts().get(pipeline_class or "")
    if facts is not None:
        general = load_model_profiles()["other-video" if facts.makes == "video" else "other-image"]
        return replace(general, workload=_with_defaults(general.workload, facts))
    is_video = _VIDEO_PIPELINE.search(pipeline_class or "") is not None
    is_video = is_video or any(_VIDEO_VAE.search(each) for each in component_classes.values())
    return load_model_profiles()["other-video" if is_video else "other-image"]


def _with_defaults(general: Workload, facts: PipelineFacts) -> Workload:
    defaults = {"steps": facts.steps, "frames": facts.frames if facts.makes == "video" else None}
    if facts.width is not None and facts.height is not None:
        defaults |= {"width": facts.width, "height": facts.height}
    return replace(general, **{name: each for name, each in defaults.items() if each is not None})


@cache
def _profiles_by_pipeline() -> Mapping[str, tuple[ModelProfile, ...]]:
    found: dict[str, tuple[ModelProfile, ...]] = {}
    for profile in load_model_profiles().values():
        pipelines = profile.match.get(_PIPELINE, ())
        assert isinstance(pipelines, tuple), f"{profile.key}: {_PIPELINE} takes a list"
        for pipeline in pipelines:
            found[pipeline] = (*found.get(pipeline, ()), profile)
    return found


def _read_profile(path: Path) -> ModelProfile:
    with path.open(encoding="utf-8") as file:
        entries: dict[str, Any] = yaml.load(file, Loader=_YamlLoader)
    del entries["source"]  # for the reader of the file
    entries.setdefault("frames_per_s", _FRAMES_PER_S)
    entries.setdefault("frame_chunk", 1)
    entries["sizes"] = [tuple(each) for each in entries.get("sizes", ())]
    entries["workload"] = Workload(**entries["workload"])
    return ModelProfile(key=path.stem, **{name: _freeze(value) for name, value in entries.items()})


def _freeze(value: object) -> Any:
    """Lists as tuples and mappings read-only: profiles are shared by everyone in the process."""
    if isinstance(value, dict):
        return MappingProxyType({key: _freeze(each) for key, each in value.items()})
    return tuple(value) if isinstance(value, list) else value


def _pipeline_class(index: Mapping[str, object]) -> str | None:
    name = index.get("_class_name")
    if isinstance(name, (list, tuple)) and name:
        name = name[-1]  # [module, class] for a pipeline with its own code
    return name if isinstance(name, str) else None


def _matches(profile: ModelProfile, index: Mapping[str, object], configs: Mapping[str, Mapping[str, object]]) -> bool:
    # The pipeline's class has been looked up already.
    conditions = ((path, each) for path, each in profile.match.items() if path != _PIPELINE)
    return all(_holds(condition, _value_at(path, index, configs)) for path, condition in conditions)


def _value_at(path: str, index: Mapping[str, object], configs: Mapping[str, Mapping[str, object]]) -> object:
    """``index.key`` and ``component.key`` look into a document; a bare component name into the index's entries."""
    document, _, key = path.partition(".")
    if key:
        source = index if document == "index" else configs.get(document)
        return source.get(key) if isinstance(source, Mapping) else None
    entry = index.get(document)
    is_component = isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], str)
    return entry if is_component else None


def _holds(condition: object, value: object) -> bool:
    if not isinstance(condition, Mapping):
        return _same(condition, value)
    return all(_test(operator, operand, value) for operator, operand in condition.items())


def _test(operator: str, operand: object, value: object) -> bool:
    if operator == "not":
        return not _same(operand, value)
    # An empty list says as little as no list: SD3.5 large writes one where medium names its layers.
    is_absent = value is None or value in ([], "", {})
    return is_absent is (operator == "absent")


def _same(wanted: object, value: object) -> bool:
    # 1 equals True in Python, not in a config.
    return isinstance(wanted, bool) is isinstance(value, bool) and wanted == value
