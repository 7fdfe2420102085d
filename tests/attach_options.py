"""Options of ``attach`` that the tests share: an emulated card with room, and the workload that they generate."""

from typing import Any

ROOMY = "2GiB"  # 1 GiB of it is headroom
SMALL: dict[str, Any] = {"size": "64x64", "steps": 2}
