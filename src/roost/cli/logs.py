"""What helps to find out why: the log of a command (``-v``, ``-vv``), and tracebacks, shown or kept in a file."""

from __future__ import annotations

import logging
import os
import sys
import traceback

from roost.cli.screen import clean

# Before a command line is read, and in the trials that a command starts.
DEBUG_VARIABLE = "ROOST_DEBUG"
# As they are imported, these tell of kernels that this machine can't load; a person sees that with ``-vv``.
_TELL_OF_KERNELS = ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Line(logging.Formatter):
    """One line a message, safe for a terminal: ``12.345 s  roost.api.plans.plan  …``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.relativeCreated / 1000:.3f} s  {record.name}  {clean(record.getMessage())}"


class Logs:
    """The log of this process's commands, one after another, and whether errors come with their traceback."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None
        self._traceback = False

    def begin(self, verbose: int = 0, show_traceback: bool = False) -> None:
        """From now on a log of this detail, and tracebacks where they are wanted; forgets what was said before."""
        logger = logging.getLogger("roost")
        if self._handler is not None:
            logger.removeHandler(self._handler)
        self._handler = None
        self._traceback = show_traceback or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
        logger.setLevel(_LEVELS[min(verbose, 2)])
        for name in _TELL_OF_KERNELS:
            logging.getLogger(name).setLevel(logging.ERROR if verbose < 2 else logging.NOTSET)
        if verbose:
            self._handler = logging.StreamHandler(sys.stderr)
            self._handler.setFormatter(_Line())
            logger.addHandler(self._handler)

    def show_traceback(self, error: BaseException) -> None:
        """On stderr, if it was asked for."""
        if self._traceback:
            traceback.print_exception(error, file=sys.stderr)

    def keep_traceback(self, error: BaseException) -> str:
        """Shows the traceback or keeps it in a file; returns where a person finds it, for the error's one line."""
        self.show_traceback(error)
        if self._traceback:
            return "the traceback above"
        kept = _kept("".join(traceback.format_exception(error)))
        where = f" is in {kept!r} and which" if kept else ""
        return f"the traceback, which{where} 'roost --traceback …' or {DEBUG_VARIABLE}=1 shows"


def _kept(text: str) -> str | None:
    """The path of the file that has ``text`` now, the latest error's only; None where no file can be written."""
    from roost.errors import RoostError

    try:
        from platformdirs import user_state_path  # imported here: only an unexpected error needs these

        from roost.plan import write_text_atomically

        path = user_state_path("roost") / "last-traceback.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, text.encode("utf-8", "backslashreplace").decode())
    except (OSError, RoostError):
        return None
    return str(path)


logs = Logs()
