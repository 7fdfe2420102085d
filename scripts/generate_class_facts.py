"""Write classes.json and pipelines.json in src/roost/profiles from diffusers and transformers, or check them.

Run with --check to compare only; versions other than the recorded ones are reported and pass.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from pipeline_facts import pipeline_facts

PROFILES = Path(__file__).resolve().parent.parent / "src" / "roost" / "profiles"

# Encoders that pipelines accept through a base class's type hint, so that importing the pipelines does not reach them.
UNHINTED_MODULES = ("dinov2", "mistral", "qwen2", "qwen3_vl", "siglip2")
# What a pipeline may hold; heads for classification and the like are not.
PIPELINE_CLASS = re.compile(
    r"Model(WithProjection)?$|For(ConditionalGeneration|CausalLM|DepthEstimation)$|SafetyChecker$|CLIP$"
)
# VAEs and UNets from before diffusers had one attention class; it renames their old files' projections.
LEGACY_ATTENTION = (
    "AsymmetricAutoencoderKL",
    "AutoencoderKL",
    "AutoencoderKLTemporalDecoder",
    "UNet2DModel",
    "VQModel",
)
LEGACY_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def main(arguments: list[str]) -> int:
    versions = installed_versions()
    if arguments == ["--check"]:
        return max([check(name, versions) for name in DOCUMENTS])
    for name, document in DOCUMENTS.items():
        (PROFILES / name).write_text(document(versions), encoding="utf-8", newline="\n")
        print(f"wrote {name} from {shown(versions)}")
    return 0


def check(name: str, versions: dict[str, str]) -> int:
    committed = (PROFILES / name).read_text(encoding="utf-8")
    recorded = json.loads(committed)["generated_from"]
    if recorded != versions:
        print(f"{name} is from {shown(recorded)}; {shown(versions)} are installed: not compared.")
        return 0
    if committed != DOCUMENTS[name](versions):
        print(f"{name} differs from the installed libraries; run scripts/generate_class_facts.py.")
        return 1
    return 0


def installed_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("diffusers", "transformers")}


def shown(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def classes_document(versions: dict[str, str]) -> str:
    import_pipelines()
    return document(versions, "classes", diffusers_facts() | transformers_facts())


def pipelines_document(versions: dict[str, str]) -> str:
    return document(versions, "pipelines", pipeline_facts())


def document(versions: dict[str, str], what: str, facts: dict[str, dict[str, object]]) -> str:
    """Canonical text: versions first, then one line a class, empty fields left out."""
    lines = [f"{json.dumps(name)}: {json.dumps(facts[name], sort_keys=True)}" for name in sorted(facts)]
    body = ",\n".join(lines)
    return f'{{"generated_from": {json.dumps(versions, sort_keys=True)},\n"{what}": {{\n{body}\n}}}}\n'


def import_pipelines() -> None:
    """Import every model and pipeline module of diffusers, and with them the transformers models they name."""
    import diffusers.models
    import diffusers.pipelines

    for package in (diffusers.models, diffusers.pipelines):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda _: None):
            if ".deprecated" in module.name:
                continue
            try:
                importlib.import_module(module.name)
            except ImportError:
                continue  # needs a package that is not installed; its models are imported through their own modules
    for name in UNHINTED_MODULES:
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def diffusers_facts() -> dict[str, dict[str, object]]:
    from diffusers import ModelMixin

    found: dict[str, dict[str, object]] = {}
    for each in sorted(subclasses(ModelMixin), key=lambda cls: cls.__name__):
        if not each.__module__.startswith("diffusers.") or each.__name__.endswith("Mixin"):
            continue
        kept = each._keep_in_fp32_modules or []
        found[each.__name__] = without_empty(
            keep_in_float32=sorted([kept] if isinstance(kept, str) else kept),
            ignored=sorted(each._keys_to_ignore_on_load_unexpected or []),
            renames=legacy_attention_renames(each) if each.__name__ in LEGACY_ATTENTION else [],
        )
    return found


def legacy_attention_renames(model_class: type) -> list[tuple[str, str]]:
    import torch

    with torch.device("meta"):
        model = model_class()
    old = [name for name, module in model.named_modules() if getattr(module, "_from_deprecated_attn_block", False)]
    if not all(re.search(r"attentions\.\d+$", name) for name in old):
        raise SystemExit(f"{model_class.__name__} has old attention blocks outside its lists: {old}.")
    if not old:
        return []
    return [(rf"^(.*\battentions\.\d+)\.{was}\.", rf"\1.{now}.") for was, now in LEGACY_NAMES.items()]


def transformers_facts() -> dict[str, dict[str, object]]:
    from transformers import PreTrainedModel

    from transformers_loading import build, class_facts, top_names

    by_module: dict[str, list[type]] = {}
    for each in sorted(subclasses(PreTrainedModel), key=lambda cls: (cls.__module__, cls.__name__)):
        if PIPELINE_CLASS.search(each.__name__) and not each.__name__.endswith("PreTrainedModel"):
            by_module.setdefault(each.__module__, []).append(each)
    found: dict[str, dict[str, object]] = {}
    for module, classes in by_module.items():
        if ".deprecated." in module:
            continue
        built = {each.__name__: build(each) for each in classes}
        models = {name: model for name, model in built.items() if model is not None}
        tops = top_names(key for model in models.values() for key in model.state_dict())
        for class_name, model in models.items():
            found[class_name] = without_empty(**asdict(class_facts(model, tops)))
    return found


def subclasses(parent: type) -> set[type]:
    return {parent} | {each for child in parent.__subclasses__() for each in subclasses(child)}


def without_empty(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}


DOCUMENTS = {"classes.json": classes_document, "pipelines.json": pipelines_document}


if __name__ == "__main__":
    # Default configs draw remarks about themselves; what counts is this script's one line.
    warnings.simplefilter("ignore")
    os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["DIFFUSERS_VERBOSITY"] = "critical"
    sys.exit(main(sys.argv[1:]))
