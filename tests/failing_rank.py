"""``roost`` as one rank of a run in which rank 1 alone meets something: ``FAIL`` says what.

``memory`` ends as its shards find none, ``death`` kills it there.
"""

import os
import signal
from typing import Any

from roost.cli import main
from roost.errors import OutOfMemory


def fail(*_: Any, **__: Any) -> None:
    if os.environ["FAIL"] == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OutOfMemory("rank 1 has no memory for its shards.")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        from roost.residency.run import loader

        loader.load_shards = fail  # type: ignore[assignment]
    main()
