"""Conversions of original files, diffusers' own where it has one, run on stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roost.errors import InvalidFile
from roost.facts.weight_files import WeightFile
from roost.pipelines.formats.conversions.by_names import Shapes, converted_by_names
from roost.pipelines.formats.conversions.original_names import rules_of
from roost.pipelines.formats.conversions.recording import NotRecorded, StandIn
from roost.pipelines.formats.parts import OPEN_CLIP, Part
from roost.pipelines.internals import of_diffusers

StandIns = Mapping[str, StandIn]

# Conversions that expect names as an all-in-one file has them.
PREFIXED = {"UNet2DConditionModel": "model.diffusion_model.", "AutoencoderKLLTXVideo": "vae."}
# Classes without a conversion of their own whose originals are laid out as another's.
LAID_OUT_AS = {"AutoencoderKLQwenImage": "AutoencoderKLWan"}
_RESBLOCKS = "transformer.resblocks."


def is_open_clip(names: Mapping[str, object]) -> bool:
    """Whether a CLIP text model has the names of OpenCLIP, with queries, keys and values in one."""
    return any(name.startswith(_RESBLOCKS) for name in names)


def converted(file: WeightFile, model: Any, shapes: Shapes, stand_ins: StandIns) -> StandIns:
    """The stand-ins by the names of the class, whose tensors have those shapes.

    Raises InvalidFile where the file isn't what the class's files are.
    """
    kind, config = type(model), getattr(model, "config", {})
    rules = rules_of(kind.__name__, config)
    if rules is not None:
        return _run(file, kind, lambda: converted_by_names(kind.__name__, rules, shapes, stand_ins))
    function = of_diffusers.single_file_conversion(_kind(kind))
    if function is None:
        raise InvalidFile(
            f"{file.path}: its names aren't those of {kind.__name__}, and diffusers has no conversion for that class;"
            " take the component in diffusers' own layout."
        )
    prefix = PREFIXED.get(kind.__name__, "")
    given = {prefix + name: each for name, each in stand_ins.items()}
    return _run(file, kind, lambda: function(config=config, checkpoint=given))


def converted_open_clip(file: WeightFile, kind: type, part: Part, model: Any, stand_ins: StandIns) -> StandIns:
    """OpenCLIP's text model by the names of CLIP's as they were before transformers flattened any."""
    prefix = part.prefix if part.prefix in OPEN_CLIP else OPEN_CLIP[0]
    given = {prefix + name: each for name, each in stand_ins.items()}
    function = of_diffusers.open_clip_conversion()
    return _run(file, kind, lambda: function(model, given, prefix=prefix))


def _kind(kind: type) -> type:
    if kind.__name__ in LAID_OUT_AS:
        import diffusers  # imported here: it takes seconds

        found: type = getattr(diffusers, LAID_OUT_AS[kind.__name__])
        return found
    return kind


def _run(file: WeightFile, kind: type, convert: Any) -> StandIns:
    try:
        made = convert()
    except NotRecorded as error:
        raise InvalidFile(
            f"{file.path}: diffusers converts it to {kind.__name__} by {error}, which Roost can't do as it reads; save"
            " the component in diffusers' own layout."
        ) from error
    except Exception as error:  # conversions raise every kind for names that they don't expect
        line = " ".join(str(error).split())[:200]
        raise InvalidFile(
            f"{file.path}: it is no file of {kind.__name__}: its conversion fails at {type(error).__name__}"
            f" {line!r}; name the component that it is, or check that the file is whole."
        ) from error
    if not all(isinstance(each, StandIn) for each in made.values()):
        absent = [name for name, each in made.items() if not isinstance(each, StandIn)]
        raise InvalidFile(f"{file.path}: it is no file of {kind.__name__}: nothing in it makes {absent[0]}.")
    found: StandIns = made
    return found
