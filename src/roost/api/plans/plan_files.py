"""Plans as files: read from where people keep them, and kept where nobody said where."""

from __future__ import annotations

import hashlib
from pathlib import Path

from roost.api.models.named_files import refuse_other_files
from roost.errors import UsageError
from roost.plan import PlanDocument, plan_to_yaml, read_plan, write_text_atomically
from roost.shell_quoting import shown_path
from roost.user_folders import user_folder


def load_plan(path: str | Path) -> PlanDocument:
    """The validated plan in a YAML file; raises InvalidFile in one line for anything else."""
    refuse_other_files(Path(path))
    return read_plan(Path(path))


def keep_plan(plan: PlanDocument) -> Path:
    """Writes the plan into the user's cache directory, named after its content, and returns its path."""
    text = plan_to_yaml(plan)
    folder = user_folder("cache") / "plans"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the plan can't be kept in {shown_path(folder)}: {error.strerror}; set XDG_CACHE_HOME to another place, or"
            " plan with: roost plan MODEL -o plan.yaml"
        ) from None
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    write_text_atomically(path, text)
    return path
