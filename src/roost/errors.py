"""One error tree. A message is one line: what is wrong, where, and the remedy; the class carries the exit code."""

from __future__ import annotations


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


class DeviceLost(RoostError):
    """The device failed, and no work can be given to it in this process any more."""


class SaidElsewhere(RoostError):
    """Another process of the same run has failed and said why; this one only ends, with the same ``exit_code``."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has failed.")
        self.exit_code = exit_code


class DryRunError(RoostError):
    """A pipeline that can't be dry-run, with the reason; planning can go on with the profile's stages."""


class RefusedCall(DryRunError):
    """A dry run's call that the pipeline refuses in its own ``words``, before it uses a component."""

    def __init__(self, pipeline: str, words: str) -> None:
        super().__init__(f"{pipeline!r} can't be dry-run: it refuses the call: {words}.")
        self.words = words
