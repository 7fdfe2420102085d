"""What a file of weights is: its family, component and layout, and every known model that it may belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from roost.probes.recognition.checkpoints import Content, content_of
from roost.probes.recognition.known import KnownLayouts, Match, Shapes
from roost.probes.recognition.loras import lora_matches

_MOST = 12
_LETTERS = re.compile(r"[a-z]*")
_SUFFIX = re.compile(r"_\d+$")
# Prefixes of an all-in-one checkpoint -> component. Two of them make one.
_PARTS = (
    ("model.diffusion_model.", "denoiser"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.", "text_encoder_2"),
    ("text_encoders.clip_l.", "text_encoder"),
    ("text_encoders.clip_g.", "text_encoder_2"),
    ("text_encoders.t5xxl.", "text_encoder_3"),
    ("text_encoders.", "text_encoder"),
)
_COMPONENT = {"denoiser": "transformer", "component": None, "checkpoint": "checkpoint", "text-encoder": "text_encoder"}
_ENCODERS = {
    "T5EncoderModel": "t5",
    "UMT5EncoderModel": "umt5",
    "CLIPTextModel": "clip-l",
    "CLIPTextModelWithProjection": "clip",
    "CLIPVisionModel": "clip-vision",
    "LlamaModel": "llama",
    "Qwen2_5_VLForConditionalGeneration": "qwen2.5-vl",
    "Qwen3Model": "qwen3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A component of a known model that the file may be; ``why`` says by what."""

    model: str
    component: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One component of an all-in-one checkpoint, by the prefix of its tensors."""

    prefix: str
    component: str
    tensors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """``component`` is without its number where the number isn't known; None for what can't be told."""

    layout: str | None
    family: str | None
    component: str | None
    candidates: tuple[Candidate, ...] = ()
    parts: tuple[Part, ...] = ()
    class_name: str | None = None
    title: str | None = None
    warnings: tuple[str, ...] = field(default=())


def recognise_weights(shapes: Shapes, layouts: KnownLayouts) -> FileContent:
    """What a file with these tensors is; ``shapes`` are of the model's own tensors' values."""
    content = content_of(shapes.keys())
    if content is not None and content.kind == "lora":
        return _lora(shapes, layouts)
    parts = _parts_of(shapes)
    if len({each.component for each in parts}) > 1:
        return _checkpoint(shapes, parts, layouts, content)
    matches = layouts.matches(shapes)
    return _matched(matches) if matches else _by_decisive_key(content, layouts)


def _matched(matches: Sequence[Match]) -> FileContent:
    """Where the best agree on something, it is so; where they don't, all are candidates."""
    least = matches[0].distance
    best = [each for each in matches if each.distance == least and each.only_names == matches[0].only_names]
    # Several spellings may fit alike, such as a name that needs no prefix: the first needs the least.
    layout = best[0].known.layout
    owners = [pair for each in best for pair in each.known.components]
    classes = {each.known.class_name for each in best}
    family = common_stem({model for model, _ in owners})
    if family is None and len(classes) == 1:
        family = _ENCODERS.get(next(iter(classes)))
    candidates = tuple(
        Candidate(model=model, component=component, why=each.why())
        for each in matches
        for model, component in each.known.components
    )
    return FileContent(
        layout="comfy" if best[0].prefix.endswith("diffusion_model.") and layout == "diffusers" else layout,
        family=family,
        component=_agreed(component for _, component in owners),
        candidates=_distinct(candidates),
        class_name=next(iter(classes)) if len(classes) == 1 else None,
        warnings=tuple(_doubts(matches[0], owners)),
    )


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    found: dict[tuple[str, str], Candidate] = {}
    for each in candidates:
        found.setdefault((each.model, each.component), each)
    return tuple(found.values())[:_MOST]


def _doubts(best: Match, owners: Sequence[tuple[str, str]]) -> Iterable[str]:
    twins = sorted({model for model, component in owners if (model, f"{component}_2") in owners})
    if twins and best.exact:
        yield (
            f"the high-noise and low-noise files of {' and '.join(twins)} have the same tensors, and only the file's"
            " name tells them apart: say which it is, transformer (high noise) or transformer_2 (low noise)"
        )
    elif (
        len({model for model, _ in owners}) > 1 and best.exact and _agreed(name for _, name in owners) == "transformer"
    ):
        yield "several known models have exactly these tensors: say which one's it is"
    if best.only_names:
        yield "its sizes are no known model's: give the base model whose config it was made for"
    elif not best.exact:
        yield f"it is no known model's exactly: of the closest, {best.why()}"


def common_stem(names: Iterable[str]) -> str | None:
    """The one name, or the words with which all begin: ``flux.1`` of ``flux.1-dev`` and ``flux.1-fill-dev``.

    Where only versions differ in the first, it is without its version: ``wan`` of ``wan2.1-…`` and ``wan2.2-…``.
    """
    words = [name.split("-") for name in set(names)]
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))]
    if common:
        return "-".join(common)
    letters = {_LETTERS.match(each[0]) for each in words}
    bare = {found[0] for found in letters if found is not None}
    return (next(iter(bare)) or None) if len(bare) == 1 else None


def _agreed(components: Iterable[str]) -> str | None:
    found = set(components)
    bare = {_SUFFIX.sub("", each) for each in found}
    return next(iter(found)) if len(found) == 1 else next(iter(bare)) if len(bare) == 1 else None


def _lora(shapes: Shapes, layouts: KnownLayouts) -> FileContent:
    matches = lora_matches(shapes, layouts)
    candidates = _distinct(
        Candidate(model=model, component=component, why=each.why())
        for each in matches
        for model, component in each.known.components
    )
    best = {model for each in matches if each.rank == matches[0].rank for model, _ in each.known.components}
    return FileContent(
        layout=matches[0].known.layout if matches else None,
        family=common_stem(best) if best else None,
        component="lora",
        candidates=candidates,
        title="a LoRA",
        warnings=() if matches else ("it changes modules of no model that is known by name",),
    )


def _parts_of(shapes: Shapes) -> list[Part]:
    counts: dict[tuple[str, str], int] = {}
    for name in shapes:
        for prefix, component in _PARTS:
            if name.startswith(prefix):
                counts[prefix, component] = counts.get((prefix, component), 0) + 1
                break
    return [Part(prefix=prefix, component=component, tensors=count) for (prefix, component), count in counts.items()]


def _checkpoint(shapes: Shapes, parts: Sequence[Part], layouts: KnownLayouts, content: Content | None) -> FileContent:
    """Each component by its prefix; the denoiser says which model's they are."""
    denoiser = next((each.prefix for each in parts if each.component == "denoiser"), None)
    matches = layouts.matches(_without(shapes, denoiser)) if denoiser else []
    found = _matched(matches) if matches else _by_decisive_key(content, layouts)
    named = found.component if found.component not in (None, "checkpoint") else "transformer"
    return FileContent(
        layout="comfy" if any(each.prefix.startswith("text_encoders.") for each in parts) else "original",
        family=found.family,
        component="checkpoint",
        candidates=found.candidates,
        parts=tuple(
            Part(
                prefix=each.prefix,
                component=str(named) if each.component == "denoiser" else each.component,
                tensors=each.tensors,
            )
            for each in parts
        ),
        class_name=found.class_name,
        title=content.title if content is not None else None,
        warnings=found.warnings,
    )


def _without(shapes: Shapes, prefix: str) -> Mapping[str, tuple[int, ...]]:
    return {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}


def _by_decisive_key(content: Content | None, layouts: KnownLayouts) -> FileContent:
    """A tensor that only one family has ranks that family's models; whether one fits, a converter must show."""
    if content is None:
        warning = "its tensors are of no kind that is known: give it only to the component that it was made for"
        return FileContent(layout=None, family=None, component=None, warnings=(warning,))
    owners = [pair for each in layouts.all if each.class_name == content.class_name for pair in each.components]
    why = f"it holds {content.sign}, which only files of {content.family} have" if content.sign else "by its names"
    component = _agreed(name for _, name in owners) or _COMPONENT.get(content.kind, content.kind)
    component = "unet" if (content.class_name or "").startswith("UNet") else component
    return FileContent(
        layout="original" if content.kind in ("denoiser", "checkpoint", "vae", "controlnet") else "diffusers",
        family=common_stem({model for model, _ in owners}) if owners else None,
        component=component,
        candidates=_distinct(Candidate(model=model, component=name, why=why) for model, name in owners),
        class_name=content.class_name,
        title=content.title,
        warnings=(f"no known model has these tensors; it seems to be {content.title}",),
    )
