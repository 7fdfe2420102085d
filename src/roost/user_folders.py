"""Where a user's own files are kept: caches, measurements and the state of what goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

# Below a file nothing can be made, so whoever wants to keep something is told by the system.
_NOWHERE = Path(os.devnull) / "roost"


def user_folder(kind: Literal["cache", "data", "state"]) -> Path:
    """The folder, which need not be there; for a user without a home, a place where none can be made."""
    from platformdirs import user_cache_path, user_data_path, user_state_path  # imported here: start-up needs none

    find = {"cache": user_cache_path, "data": user_data_path, "state": user_state_path}[kind]
    try:
        folder = find("roost")
    except RuntimeError:  # some versions raise, others answer with a "~" that nothing stands for
        return _NOWHERE
    return folder if folder.is_absolute() else _NOWHERE
