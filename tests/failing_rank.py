"""``roost`` as one rank of a run in which rank 1 alone meets something: ``FAIL`` says what.

``memory`` ends as its shards find none, ``death`` kills it there; ``later`` ends as it has made its second generation.
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


def fail_later() -> None:
    from roost.residency.run import generate as home

    generate, made = home.generate, []

    def generate_once(*args: Any) -> Any:
        made.append(generate(*args))
        if len(made) == 2:
            raise OutOfMemory("rank 1 has no memory for its second one.")
        return made[-1]

    home.generate = generate_once  # type: ignore[assignment]


if __name__ == "__main__":
    if os.environ["RANK"] == "1" and os.environ["FAIL"] == "later":
        fail_later()
    elif os.environ["RANK"] == "1":
        from roost.residency.run import loader

        loader.load_shards = fail  # type: ignore[assignment]
    main()
