"""What a person names that is not the model directory or the plan it should be: said in one line, with a remedy."""

from __future__ import annotations

from pathlib import Path

from roost.api.models.files.bases import base_of
from roost.api.models.files.inspect_files import is_weight_file
from roost.errors import InvalidFile
from roost.facts.model import Inventory
from roost.probes.recognition.files import recognise_file
from roost.shell_quoting import command, shown_path

_PLAN_SUFFIXES = (".yaml", ".yml")
_MOST_NAMED = 3


def refuse_other_files(path: Path) -> None:
    """InvalidFile for a file that is known to be something else than a plan, unless it is named like one."""
    if path.suffix.lower() in _PLAN_SUFFIXES:
        return
    if is_weight_file(str(path)):
        base_of(str(path), {})  # what is no model by itself is refused here, with what it goes into
        raise InvalidFile(f"{shown_path(path)} is a model, not a plan; plan it with: {command('roost', 'plan', path)}")
    found = recognise_file(path)
    if found is not None and not found.is_plan:
        raise InvalidFile(f"{shown_path(path)} is not a plan: it is {found.what}. {found.remedy}")


def why_single_files(inventory: Inventory) -> str:
    """What a directory of single-file checkpoints holds, which has no components to place."""
    where = Path(inventory.path or "")
    files = sorted({name for each in inventory.components for name in each.files})
    found = [(name, recognise_file(where / name)) for name in files[:_MOST_NAMED]]
    named = [f"{shown_path(name)} is {each.what}" for name, each in found if each is not None]
    remedies = dict.fromkeys(each.remedy for _, each in found if each is not None)
    more = f"; and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    return (
        f"{shown_path(where)} holds single-file checkpoints, not a pipeline's components: {'; '.join(named)}{more}."
        f" {' '.join(remedies)}"
    )


def check_sought(inventory: Inventory) -> None:
    """InvalidFile for weights that their library would not look for."""
    for each in inventory.components:
        if each.unsought:
            folder = each.files[0].rpartition("/")[0] or "."
            raise InvalidFile(
                f"{each.name}/ has its weights in pickled shards only (.bin), which diffusers doesn't look for and"
                f" Roost never opens. Convert them where you trust their origin: {each.class_name}.from_pretrained"
                f"({folder!r}, use_safetensors=False).save_pretrained({folder!r})"
            )
