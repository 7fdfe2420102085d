"""Planning: facts from the probes and profiles to the planner, and the plan back."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from roost.api.inspection import inspect_model, profile_of
from roost.api.machine import find_machine
from roost.api.options import PlanOptions, choices_of, dtype_of, workload_of
from roost.errors import InvalidFile, UsageError
from roost.plan import PlanDocument, plan_to_yaml, read_plan, write_text_atomically
from roost.planner.policy import Question, plan_by_rules
from roost.planner.roles import parse_role

_LIBRARIES = ("roost", "torch", "diffusers", "transformers", "safetensors")


def make_plan(model: str | Path, **options: object) -> PlanDocument:
    """The placement plan of a model directory or hub id; ``options`` are the fields of ``PlanOptions``.

    The plan is returned also when it doesn't fit: look at ``fits`` and ``budget``. Raises UsageError, InvalidFile.
    """
    return plan_model(model, PlanOptions(**options))  # type: ignore[arg-type]


def plan_model(model: str | Path, options: PlanOptions) -> PlanDocument:
    """The plan of ``model`` under ``options``; the typed spelling of ``make_plan``."""
    choices, role, dtype = choices_of(options), parse_role(options.role), dtype_of(options)
    inventory = inspect_model(model, variant=options.variant, dtype=dtype)
    if not inventory.components or inventory.layout == "single-file":
        raise InvalidFile(
            f"model {inventory.path!r} is a single-file checkpoint, which has no components to place;"
            " convert it to a diffusers directory first."
        )
    if not _is_text(inventory.path):
        raise UsageError(f"model {inventory.path!r} has a path that a plan can't hold; rename it to UTF-8 text.")
    profile = profile_of(inventory)
    question = Question(
        inventory=inventory,
        profile=profile,
        machine=find_machine(options.gpu, options.vram, options.ram, options.headroom, options.pinned_max),
        workload=workload_of(options, profile),
        choices=choices,
        role=role,
        versions=library_versions(),
    )
    return plan_by_rules(question)


def _is_text(path: str) -> bool:
    """Whether no byte of the path stayed undecoded."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def load_plan(path: str | Path) -> PlanDocument:
    """The validated plan in a YAML file; raises InvalidFile in one line for anything else."""
    return read_plan(Path(path))


def keep_plan(plan: PlanDocument) -> Path:
    """Writes the plan into the user's cache directory, named after its content, and returns its path."""
    text = plan_to_yaml(plan)
    folder = user_cache_path("roost") / "plans"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the plan can't be kept in {str(folder)!r}: {error.strerror}; set XDG_CACHE_HOME to another place, or plan"
            " with: roost plan MODEL -o plan.yaml"
        ) from None
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    write_text_atomically(path, text)
    return path


def library_versions() -> dict[str, str]:
    """Installed versions of Roost and of the libraries that load and run models, without importing them."""
    found: dict[str, str] = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
