"""A model known by its name as a directory to run from: its configs, and tokenizers that someone has.

All its weights come from files of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from roost.api.models.files.bases import published_base
from roost.api.models.inspect import inspect_planned, profile_of
from roost.api.plans.preflight import check_executable, check_runnable
from roost.api.plans.ranks import torchrun_words
from roost.api.requests.run_option_sets import BaseOptions
from roost.api.runs.carried_tokenizers import LARGEST_BYTES, Carried, Files, carried_tokenizer
from roost.errors import RoostError, UsageError
from roost.facts.model import Inventory, PipelineFacts, PublishedModel
from roost.option_spelling import file_option, option
from roost.plan import PlanDocument, write_bytes_atomically
from roost.probes.model.components import lacking_file
from roost.profiles.class_facts import load_pipeline_facts
from roost.shell_quoting import command, shown_path
from roost.user_folders import user_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizers:
    """Files that a run needs beside weights and configs, by name; the parts that have none, and what isn't taken for
    them, in words.
    """

    found: Files
    lacking: tuple[str, ...]
    why_not: tuple[str, ...]


def place_of(plan: PlanDocument, options: BaseOptions) -> str | None:
    """Where the plan's model is, as typed or made here; None leaves it to the plan.

    UsageError, naming what is missing, for a model by name without a directory whose files aren't all given.
    """
    if options.model is not None and options.tokenizers is not None:
        raise UsageError(f"{option('model')} has its tokenizers; leave {option('tokenizers')} out.")
    if options.tokenizers is not None and plan.model.source != "name":
        raise UsageError(
            f"{option('tokenizers', options.tokenizers)} is for a model known by its name,"
            " and this plan's is a directory, which has its own; leave it out."
        )
    of_files = plan.model.source == "name" and (plan.given_files or options.tokenizers is not None)
    if options.model is not None or not of_files:
        return options.model
    published = published_base(plan.model.family or "", plan.given_files)
    inventory = inspect_planned(plan, published.name)
    _check_weights(published, inventory)
    folder = None if options.tokenizers is None else Path(options.tokenizers)
    tokenizers = _tokenizers(published, inventory, folder)
    if tokenizers.lacking:
        where = f" in {shown_path(folder)}" if folder is not None else ""
        where += f" ({'; '.join(tokenizers.why_not)})" if tokenizers.why_not else ""
        raise UsageError(
            f"a run needs the tokenizer files of {', '.join(tokenizers.lacking)}, and there are none{where}: give a"
            f" directory that has those folders, as {published.source} has, with {option('tokenizers', 'DIR')}."
        )
    return str(_written(published, tokenizers.found))


def place_words(plan: PlanDocument, inventory: Inventory) -> tuple[str, ...]:
    """The words with which a command says where the plan's model is, to be completed; none where the plan knows."""
    if plan.model.path is not None:
        return ()
    if plan.model.source != "name" or any(each.source is None for each in inventory.components):
        return "--model", "DIR"
    lacking = _tokenizers(published_base(plan.model.family or "", plan.given_files), inventory, None).lacking
    return ("--tokenizers", "DIR") if lacking else ()


def run_command(plan: PlanDocument, path: Path) -> tuple[str | None, str | None]:
    """The command that runs a plan kept at ``path``, to paste and to complete; else None, and why no run can follow."""
    try:
        if not plan.is_for_several:
            check_executable(plan)
        inventory = inspect_planned(plan, plan.model.path or plan.model.family or "")
        check_runnable(inventory, profile_of(inventory))
    except RoostError as error:
        return None, str(error)
    where = place_words(plan, inventory)
    facts = load_pipeline_facts().get(plan.model.pipeline, PipelineFacts())
    given = [option for name in facts.needs for option in ("--image", _named_input(name))]
    # What a person writes is shown as they would write it.
    prompt = ' --prompt "…"' if facts.prompt else ""
    return command(
        *torchrun_words(plan), "run", path, *(("--on", "ray") if plan.is_for_several else ()), *where, *given
    ) + f"{prompt} -o OUT", None


def _named_input(name: str) -> str:
    return "FILE" if name in ("image", "video") else f"{name}=FILE"


def _check_weights(published: PublishedModel, inventory: Inventory) -> None:
    lacking = [each for each in inventory.components if each.source is None]
    if lacking:
        names = ", ".join(f"{each.name} ({each.class_name})" for each in lacking)
        files = " ".join(file_option(each.name) for each in lacking)
        raise UsageError(
            f"this plan is for {published.name} by name, and there are no weights for {names}: say where the model is"
            f" with {option('model', 'DIR')} (hf download {published.source}), or plan with {files}."
        )


def _tokenizers(published: PublishedModel, inventory: Inventory, folder: Path | None) -> Tokenizers:
    """What a run needs beside weights and configs, found in ``folder`` or in the text encoders' files."""
    classes = _without_documents(published, inventory)
    found: dict[str, bytes] = {}
    lacking: dict[str, str | None] = {}
    for name, class_name in classes.items():
        of_folder = _from_folder(folder, name, alone=len(classes) == 1)
        carried = Carried(files=of_folder) if of_folder else _from_weights(inventory, name, class_name)
        if lacking_file(class_name, carried.files) is None:
            found |= {f"{name}/{file_name}": content for file_name, content in carried.files.items()}
        else:
            lacking[f"{name}/ ({class_name})"] = carried.why_not
    return Tokenizers(found=found, lacking=tuple(lacking), why_not=tuple(filter(None, lacking.values())))


def _without_documents(published: PublishedModel, inventory: Inventory) -> dict[str, str]:
    """The class of each part without weights whose files the package doesn't have: tokenizers and processors."""
    index = json.loads(published.documents["model_index.json"])
    return {
        name: index[name][1]
        for name in inventory.weightless
        if not any(document.startswith(f"{name}/") for document in published.documents)
    }


def _from_folder(folder: Path | None, name: str, *, alone: bool) -> Files:
    """The files of a part in its own folder, or of the only one in the folder itself."""
    if folder is None:
        return {}
    own = folder / name
    place = folder if alone and not own.is_dir() else own
    return {path.name: path.read_bytes() for path in _small_files(place)}


def _small_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*")):
        if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            yield path


def _from_weights(inventory: Inventory, name: str, class_name: str) -> Carried:
    """The tokenizer that the file of its own text encoder carries."""
    given = inventory.given.get(name.replace("tokenizer", "text_encoder"))
    return Carried() if given is None else carried_tokenizer(given.file, class_name, inventory.pipeline)


def _written(published: PublishedModel, tokenizers: Files) -> Path:
    """The directory, in the user's cache and named after what is in it."""
    files: Files = {**published.documents, **tokenizers}
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\n".encode() + content)
    folder = user_folder("cache") / "bases" / f"{published.name}-{digest.hexdigest()[:16]}"
    for name, content in files.items():
        path = folder / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(path, content)
    return folder
