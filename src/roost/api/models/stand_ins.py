"""What a dry run takes in place of tokenizers, schedulers and processors whose files aren't in a model's directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from roost.facts.model import Inventory
from roost.profiles.published import load_published_model, model_names, stand_in_tokenizer

_CONFIGS = ("config.json", "generation_config.json")
_LARGEST_BYTES = 64 * 1024**2  # of a file that a tokenizer has


def copy_configs(inventory: Inventory, directory: Path) -> None:
    """Copies what a pipeline object is built from: the index, configs, and all that tokenizers and the like have."""
    root = Path(inventory.path or "")
    for path in root.glob("*.json"):
        _copy(path, directory / path.name)
    for component in inventory.components:
        for name in _CONFIGS:
            _copy(root / component.name / name, directory / component.name / name)
    for name in inventory.weightless:
        for path in (root / name).glob("*"):
            _copy(path, directory / name / path.name)


def _copy(source: Path, target: Path) -> None:
    if source.is_file() and source.stat().st_size <= _LARGEST_BYTES:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def add_stand_ins(inventory: Inventory, directory: Path) -> None:
    """Writes stand-ins for ``inventory.bare`` where there are any; what has none fails its dry run, with its name."""
    for name, class_name in inventory.bare.items():
        for file_name, content in _stand_in(inventory.family, name, class_name).items():
            path = directory / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _stand_in(family: str | None, name: str, class_name: str) -> dict[str, bytes]:
    if class_name.endswith("Scheduler"):
        return {"scheduler_config.json": _published_config(family, name, class_name)}
    if class_name.endswith(("Tokenizer", "TokenizerFast")):
        return stand_in_tokenizer(class_name)
    kinds = {"feature_extractor_type": class_name, "image_processor_type": class_name}
    return {"preprocessor_config.json": json.dumps(kinds).encode()}


def _published_config(family: str | None, name: str, class_name: str) -> bytes:
    """The scheduler's config as the family publishes it, else one that leaves everything to the class's defaults."""
    if family in model_names():
        published = load_published_model(family or "").documents.get(f"{name}/scheduler_config.json", b"{}")
        if json.loads(published).get("_class_name") == class_name:
            return published
    return json.dumps({"_class_name": class_name}).encode()
