"""Components that the first process of a host to want them loads for all others there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from roost.errors import RoostError
from roost.plan import PlanDocument
from roost.residency.hold.live_modules import check_component
from roost.residency.weights.shared.component import SharedComponent
from roost.residency.weights.unpinned_sources import stamp_of

if TYPE_CHECKING:
    from roost.residency.run.loader import Source

_LIBRARIES = ("torch", "diffusers", "transformers")


@contextmanager
def meeting(
    name: str, plan: PlanDocument, model_dir: Path, source: Source, changes: list[str]
) -> Iterator[SharedComponent | None]:
    """The component in the host's common memory, to be joined or made; None where it is to be this process's own.

    What fails is said in ``changes``.
    """
    with ExitStack() as leaving:
        share = None
        if source.shared is not None and name not in plan.budget.late:
            try:
                keeps = plan.components[name].strategy != "resident"
                share = source.shared.component(name, _facts(name, plan, model_dir, source), keeps=keeps)
                leaving.enter_context(share.met())
            except OSError as error:
                changes.append(f"{name}: its host copy is not shared, because {error.strerror or error}")
                share = None
        yield share


def load(
    share: SharedComponent | None, name: str, plan: PlanDocument, model_dir: Path, source: Source
) -> torch.nn.Module:
    """The component at the plan's dtype and storage, over what another process has of it. Raises what loading does.

    Weights are read where nobody has them, and where some masters stay in files or LoRAs went in: then they are
    compared, and what is the same is let go.
    """
    if share is not None and share.joined:
        shell = _filled_shell(share, name, plan, model_dir, source)
        if shell is not None:
            return shell
    module = source.load(name, plan.components[name], model_dir)
    if share is not None:
        share.replace_in(module)
    return module


def _filled_shell(
    share: SharedComponent, name: str, plan: PlanDocument, model_dir: Path, source: Source
) -> torch.nn.Module | None:
    """The component built of its config alone; None where that isn't known to be what the others loaded."""
    placed = plan.components[name]
    if not source.only_reads or (placed.master is not None and placed.master.mapped):
        return None
    try:
        shell = source.shell(name, placed, model_dir)
    except RoostError:  # some formats have no module without their weights
        return None
    if not share.fill(shell):
        return None
    check_component(name, shell, placed)
    if source.shared is not None:
        source.shared.taken.append(name)
    return shell


def _facts(name: str, plan: PlanDocument, model_dir: Path, source: Source) -> dict[str, object]:
    """What the bytes of a component hang on: its class, files, dtypes and LoRAs, and who loads it."""
    placed = plan.components[name]
    folder = model_dir / name if (model_dir / name).is_dir() else model_dir
    files = [each for each in sorted(folder.iterdir()) if each.is_file()]
    if name in source.given:
        files.append(Path(source.given.files[name].file.path))
    return {
        "class": (placed.library, placed.class_name, placed.variant),
        "dtypes": (placed.load_dtype, placed.storage),
        "blocks": [(stack.name, stack.count, stack.leaves) for stack in placed.stacks],
        "model": plan.model.fingerprint,
        "source": source.given.files[name].file.sha256 if name in source.given else None,
        "files": [(each.name, stamp_of(each)) for each in files],
        "loras": [each.model_dump(mode="json") for each in plan.loras],
        "only read": source.only_reads,
        "libraries": [version(each) for each in _LIBRARIES],
    }
