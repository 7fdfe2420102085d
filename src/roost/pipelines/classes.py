"""The classes a model directory may name: those of diffusers and transformers, and nothing else is ever imported."""

from __future__ import annotations

import functools
import os
import sys
import types

from roost.errors import InvalidFile, UsageError

if sys.flags.optimize > 1:
    raise UsageError("under PYTHONOPTIMIZE=2 (or -OO) transformers can't be imported; unset it, or set it to 1.")

# Read by diffusers when it is first imported; no code of a model directory is run, whatever a caller passes.
os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")

# Class names that old model directories hold and transformers 5 renamed.
_RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor"}


def pipeline_class(name: str) -> type:
    """diffusers' pipeline class of that name; InvalidFile for any other name."""
    import diffusers

    found = _public_class(diffusers, name)
    if found is None or not _is_pipeline(found):
        raise InvalidFile(
            f"{name!r} is not a pipeline class of diffusers {diffusers.__version__}; "
            "check _class_name in model_index.json, or install a diffusers that has it."
        )
    return found


def component_class(library: str | None, class_name: str) -> type:
    """The class that ``[library, class_name]`` of a model index stands for.

    ``library`` is diffusers, transformers or a folder of ``diffusers.pipelines`` such as stable_diffusion; InvalidFile
    for anything else, and for a name that the library lacks or can't provide without a further package.
    """
    module = _library(library)
    found = _public_class(module, _RENAMED.get(class_name, class_name)) if module else None
    if module is None:
        raise InvalidFile(
            f"component library {library!r} is not diffusers, transformers or a pipeline folder of diffusers; "
            "Roost runs no other code: load this component with its own tool."
        )
    if found is None or not hasattr(found, "from_pretrained"):
        raise InvalidFile(
            f"{class_name!r} is not a loadable class of {module.__name__}; "
            "check model_index.json, or install a version of the library that has it."
        )
    if _is_pipeline(found):
        raise InvalidFile(
            f"{class_name!r} is a whole pipeline, and Roost places no pipeline within another; load it with its own"
            " tool, and use roost.attach on the pipeline in memory."
        )
    if not (hasattr(found, "load_config") or hasattr(found, "config_class")) and weighted_class(found):
        raise InvalidFile(
            f"{class_name!r} has no config of its own, as it holds several models; load it with its own tool, and use"
            " roost.attach on the pipeline in memory."
        )
    return found


def model_class(library: str | None, class_name: str) -> type:
    """The class of a component with weights; InvalidFile for one that holds none, as a class that looks for another."""
    found = component_class(library, class_name)
    if not weighted_class(found):
        raise InvalidFile(
            f"{class_name!r} is no class of a model with weights; name the class of the component in model_index.json."
        )
    return found


def weighted_class(found: type) -> bool:
    """Whether a component class holds weights: schedulers, tokenizers and processors don't."""
    import torch

    return issubclass(found, torch.nn.Module)


def _is_pipeline(found: type) -> bool:
    import diffusers

    return issubclass(found, diffusers.DiffusionPipeline)


@functools.cache
def _library(name: str | None) -> types.ModuleType | None:
    import diffusers
    import transformers

    roots = {"diffusers": diffusers, "transformers": transformers}
    if name is None or name in roots:
        return roots.get(name or "diffusers")
    if not name.isidentifier() or name.startswith("_"):
        return None
    folder = getattr(diffusers.pipelines, name, None)
    return folder if isinstance(folder, types.ModuleType) else None


def _public_class(module: types.ModuleType, name: str) -> type | None:
    if not name.isidentifier() or name.startswith("_"):
        return None
    try:
        found = getattr(module, name, None)
    except Exception:  # a lazy import of the library that fails for want of another package
        return None
    return found if isinstance(found, type) else None
