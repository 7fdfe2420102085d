"""How a message spells an option for whoever asked: a flag at a shell, a keyword argument in Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# One process serves one caller; its threads raise errors too, so this is no context variable.
_spelling = {"at a shell": False}
_typed: list[str] = []  # the command line
_FLAGS = {"files": "file"}  # one at a time at a shell, all together in Python


@contextmanager
def at_a_shell(words: Sequence[str] = ()) -> Iterator[None]:
    """Meanwhile options are spelled as flags; ``words`` were typed after the program's name."""
    before, typed = _spelling["at a shell"], [*_typed]
    _spelling["at a shell"], _typed[:] = True, words
    try:
        yield
    finally:
        _spelling["at a shell"], _typed[:] = before, typed


def typed_words() -> tuple[str, ...]:
    """The command line after the program's name; empty in Python."""
    return tuple(_typed)


def option(name: str, value: str | float | bool | None = None) -> str:
    """The option as its caller would type it: ``--vram 12GiB``, ``--no-fsdp``; or ``vram='12GiB'``, ``fsdp=False``.

    ``name`` is the one in Python. Without a value ``--vram``, or ``vram=``.
    """
    shown = f"{value:g}" if isinstance(value, float) else value
    if not _spelling["at a shell"]:
        return f"{name}={'' if value is None else repr(shown) if isinstance(value, str) else shown}"
    flag = _FLAGS.get(name, name.replace("_", "-"))
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}" if value is None else f"--{flag} {shown}"


def file_option(component: str, path: str | Path = "PATH") -> str:
    """The option that gives a component its file: ``--file vae=PATH``, or ``files={'vae': 'PATH'}``."""
    if _spelling["at a shell"]:
        return f"--file {shlex.quote(f'{component}={path}')}"
    return f"files={{{component!r}: {str(path)!r}}}"


def given(name: str, text: str) -> str:
    """The option with a text that someone gave it, which may be anything: ``--vram '12'``, or ``vram='12'``."""
    return f"{option(name)}{' ' if _spelling['at a shell'] else ''}{text!r}"
