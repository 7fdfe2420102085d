"""Traces: what one generation of a model does, from the cache or by a dry run in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from roost.api.models.files.bases import published_base
from roost.api.models.published import materialise_configs
from roost.api.models.stand_ins import add_stand_ins, copy_configs
from roost.api.models.versions import installed_versions
from roost.errors import DryRunError, RefusedCall, UsageError
from roost.facts.model import Inventory, ModelProfile
from roost.facts.request import Workload
from roost.option_spelling import option
from roost.probes.dry_run import DryRunOptions, dry_run
from roost.probes.dry_run.cache import read_trace, trace_key, weightless_digests, write_trace
from roost.profiles.class_facts import load_class_facts
from roost.temporary import temporary_folder
from roost.trace import Trace
from roost.user_folders import user_folder

_log = logging.getLogger(__name__)

_LIBRARIES = ("torch", "diffusers", "transformers")


def trace_model(inventory: Inventory, profile: ModelProfile, workload: Workload, *, with_forms: bool = False) -> Trace:
    """The trace of one generation of ``workload``; ``with_forms`` one that knows what its calls are given.

    A trace from the cache is read without importing torch; otherwise the model's own code is dry-run, and the trace is
    kept. Raises DryRunError with the reason when the model can't be dry-run.
    """
    trace = kept_trace(inventory, profile, workload)
    if trace is not None and not (with_forms and any(each.form is None for each in trace.uses)):
        _log.debug("the trace of %s is from the cache in %s", inventory.pipeline, _folder())
    else:
        options = _options_of(profile)
        _log.info("dry run of %s: %s", inventory.pipeline, workload)
        with configs_of(inventory) as model_dir:
            trace = dry_run(model_dir, inventory, workload, load_class_facts(), options)
        write_trace(_folder(), _key(inventory, workload, options), trace)
    return trace


def trace_asked(inventory: Inventory, profile: ModelProfile, workload: Workload) -> Trace:
    """``trace_model`` of what was asked for; UsageError where the pipeline refuses its size, not its family's."""
    try:
        return trace_model(inventory, profile, workload)
    except RefusedCall as error:
        usual = profile.workload
        usual = replace(workload, width=usual.width, height=usual.height, frames=usual.frames)
        size = option("size", f"{workload.width}x{workload.height}")
        frames = () if workload.frames == usual.frames else (option("frames", workload.frames),)
        if usual == workload or _is_refused(inventory, profile, usual):
            raise
        said = f"{', '.join((size, *frames))}: {inventory.pipeline} refuses it: {error.words}; give another."
        raise UsageError(said) from error


def _is_refused(inventory: Inventory, profile: ModelProfile, workload: Workload) -> bool:
    """Whether the pipeline refuses this call, too; one that fails later got past its checks."""
    try:
        trace_model(inventory, profile, workload)
    except RefusedCall:
        return True
    except DryRunError:
        return False
    return False


def kept_trace(inventory: Inventory, profile: ModelProfile, workload: Workload) -> Trace | None:
    """The trace from the cache; None when there is none."""
    return read_trace(_folder(), _key(inventory, workload, _options_of(profile)))


def _options_of(profile: ModelProfile) -> DryRunOptions:
    return DryRunOptions(guidance_argument=profile.guidance_argument)


def _folder() -> Path:
    return user_folder("cache") / "traces"


def _key(inventory: Inventory, workload: Workload, options: DryRunOptions) -> str:
    return trace_key(inventory, workload, options, installed_versions(_LIBRARIES), weightless_digests(inventory))


@contextmanager
def configs_of(inventory: Inventory) -> Iterator[Path]:
    """The model's directory; of a model known by its name, a temporary one with its configs and no weights.

    So is that of a model whose tokenizers or scheduler aren't there, with stand-ins for them.
    """
    if inventory.path is not None and not inventory.bare:
        yield Path(inventory.path)
        return
    with temporary_folder() as folder:
        if inventory.source == "name":
            materialise_configs(published_base(inventory.family or "", inventory.given), folder)
        else:
            copy_configs(inventory, folder)
            add_stand_ins(inventory, folder)
        yield folder
