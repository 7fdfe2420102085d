"""One error tree. A message is one line: what is wrong, where, and the remedy; the class carries the exit code."""

from __future__ import annotations

import errno

_DISK_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class RoostError(Exception):
    """Anything Roost reports to its user. Subclasses set ``exit_code``."""

    exit_code = 1


class UsageError(RoostError):
    """An option or argument that can't be used, alone or beside another."""

    exit_code = 2


class InvalidFile(RoostError):
    """A file or directory that isn't what it must be: a malformed header, config, index or plan."""

    exit_code = 2


class NothingFits(RoostError):
    """No placement, or not the asked one, fits the memory at hand."""

    exit_code = 3


class PlanMismatch(RoostError):
    """A plan meets a model, a GPU or a workload that it was not made for."""

    exit_code = 4


class OutOfMemory(RoostError):
    """Memory ran out during a run and nothing was left to give up."""

    exit_code = 5


class DryRunError(RoostError):
    """A pipeline that can't be dry-run, with the reason; planning can go on with the profile's stages."""


def unwritable(path: object, error: Exception, remedy: str) -> RoostError:
    """What to raise when ``path`` can't be written: UsageError for the place, RoostError for a disk that fails."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    kind = RoostError if getattr(error, "errno", None) in _DISK_FAILS else UsageError
    return kind(f"can't write {str(path)!r}: {reason}; {remedy}.")
