"""What Roost uses of accelerate, and of mmgp beside it, that is private to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where a module keeps accelerate's hook: pipelines ask it where inputs go. The public ``add_hook_to_module`` wraps the
# forward too, of a module whose entries Roost wraps itself.
HOOK = "_hf_hook"
# What mmgp leaves on the modules that it moves; it has no function that tells, and isn't installed with Roost.
MMGP_MANAGER = "_mm_manager"


def hooks_of(attributes: Mapping[str, Any]) -> list[object]:
    """accelerate's hooks on a module with these attributes, of which no public function tells."""
    hook = attributes.get(HOOK)
    return [] if hook is None else list(getattr(hook, "hooks", (hook,)))  # a SequentialHook has several
