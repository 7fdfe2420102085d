"""The recipe of a component: how each of its tensors is made of those in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from roost.errors import InvalidFile
from roost.facts.weight_files import FileWeights, Piece, Recipe, Strided, Target, WeightFile
from roost.pipelines.formats.conversions.converters import converted, converted_open_clip, is_open_clip
from roost.pipelines.formats.conversions.recording import Made, NotRecorded, StandIn, made_of, stand_in
from roost.pipelines.formats.conversions.text_names import is_llama_cpp, library_names
from roost.pipelines.formats.parts import Part, parts_for
from roost.pipelines.formats.quantised import Stored, read_quantisation
from roost.pipelines.formats.skeletons import ComponentConfig, Skeleton
from roost.pipelines.formats.targets import Assembly, Place

_NUMBER = re.compile(r"\d+")
_VISION = re.compile(r"(?:^|\.)(?:visual|vision_tower|vision_model|multi_modal_projector)\.")
# What CLIP's files in all-in-one checkpoints leave out, and diffusers takes for the unit matrix.
_IDENTITY = {"CLIPTextModelWithProjection": "text_projection.weight"}


def derive_recipe(component: ComponentConfig, file: WeightFile, weights: FileWeights) -> Recipe:
    """How the component is made of the file, whose quantised weights are ``weights``.

    Every tensor of the class is made once, and shapes are equal. Raises InvalidFile, in one line that names the
    tensor, where the file is of another model, cut short, or stored in a way that Roost doesn't read.
    """
    check_whole(file)
    described = component.described
    skeleton = component.skeleton()
    parts = parts_for(file.tensors, described.library, described.class_name, component.name)
    if not parts:
        raise InvalidFile(
            f"{file.path}: none of its components is a {described.class_name}; name the component that it holds."
        )
    failed: list[InvalidFile] = []
    for part in parts:
        try:
            return _Derivation(component, skeleton, file, weights, part).recipe()
        except InvalidFile as error:
            failed.append(error)
    raise failed[0]


def check_whole(file: WeightFile) -> None:
    """InvalidFile where a tensor lies past the file's end, as an interrupted download leaves it."""
    for tensor in file.tensors.values():
        if tensor.offset < 0 or tensor.offset + tensor.bytes > file.file_bytes:
            raise InvalidFile(
                f"{file.path}: it ends before its tensor {tensor.name} does (interrupted download?); fetch it again."
            )


@dataclass(frozen=True)
class _Derivation:
    component: ComponentConfig
    skeleton: Skeleton
    file: WeightFile
    quantised: FileWeights
    part: Part

    def recipe(self) -> Recipe:
        made = self._made()
        assembly = Assembly(self.file, {each.weight.name: each for each in self._stored.quantised.values()})
        targets, absent = [], []
        for names in self.skeleton.tied:
            found = next((name for name in names if name in made), None)
            if found is not None:
                targets.append(assembly.target(self._place(names, found), *made[found]))
            elif _IDENTITY.get(self._class) in names:
                targets.append(self._unit(self.skeleton.places[names[0]]))
            else:
                absent.append(names[0])
        self._check_absent(absent, len(targets))
        unused = self._unused(targets)
        self._check_surplus(unused, {piece.source for each in targets for piece in each.pieces})
        methods = sorted({each.method for each in targets if each.method is not None})
        return Recipe(targets=tuple(targets), unused=unused, method=", ".join(methods) or None, computed=tuple(absent))

    @cached_property
    def _stored(self) -> Stored:
        return read_quantisation(self.file, self.part, self.quantised, self.component.described.library)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        quantised = self._stored.quantised
        weights = self._stored.weights
        return {each.name: quantised[name].shape if name in quantised else each.shape for name, each in weights.items()}

    @property
    def _class(self) -> str:
        return self.component.described.class_name

    def _place(self, names: tuple[str, ...], found: str) -> Place:
        """A tensor that stands in several places can't be packed, as embeddings read it too."""
        place = self.skeleton.places[found]
        return Place(place.name, place.shape, place.dtype, place.linear and len(names) == 1)

    def _made(self) -> dict[str, tuple[Made, float]]:
        """What each of the class's names is made of, and what is added to its values."""
        if self.component.described.library == "transformers" and is_llama_cpp(self._stored.weights):
            return self._llama_cpp()
        stand_ins = {name: stand_in(each.name, self._shapes[each.name]) for name, each in self._stored.weights.items()}
        found: Mapping[str, StandIn] = stand_ins
        model = self.skeleton.module
        if self.component.described.library != "transformers":
            if not self.skeleton.places.keys() - self.skeleton.computed <= stand_ins.keys():
                shapes = {name: place.shape for name, place in self.skeleton.places.items()}
                found = converted(self.file, model, shapes, stand_ins)
        elif is_open_clip(stand_ins):
            found = converted_open_clip(self.file, type(model), self.part, model, stand_ins)
        return {name: (self._provenance(name, each), 0.0) for name, each in self._renamed(found)}

    def _renamed(self, found: Mapping[str, StandIn]) -> Iterator[tuple[str, StandIn]]:
        """By the installed library's names; what the class drops is left out."""
        for original, each in found.items():
            name = self._library_name(original)
            if (
                not any(re.search(pattern, name) for pattern in self.component.facts.ignored)
                or name in self.skeleton.places
            ):
                yield name, each

    def _library_name(self, name: str) -> str:
        for pattern, replacement in self.component.facts.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def _provenance(self, name: str, tensor: StandIn) -> Made:
        try:
            return made_of(tensor, self._shapes)
        except NotRecorded as error:
            raise InvalidFile(
                f"{self.file.path}: {name} is {error}, which Roost can't read in ranges of bytes; save the component in"
                " diffusers' own layout."
            ) from error

    def _llama_cpp(self) -> dict[str, tuple[Made, float]]:
        found = {}
        for name, renamed in library_names(self.file, self._stored.weights, self.skeleton.module.config).items():
            source = self._stored.weights[name].name
            shape = self._shapes[source]
            strided = _neighbours(shape, renamed.heads) if renamed.heads else None
            pieces = (Piece(source=source, start=0, stop=(shape or (1,))[0]),)
            found[self._library_name(renamed.name)] = (Made(shape, pieces, strided), renamed.add)
        return found

    def _unit(self, place: Place) -> Target:
        rows, columns = place.shape
        if rows != columns:
            raise InvalidFile(f"{self.file.path}: it has no {place.name}, which is no square of {rows}x{columns}.")
        size = rows * columns * place.dtype.itemsize
        dtype = str(place.dtype).removeprefix("torch.")
        return Target(name=place.name, shape=place.shape, dtype=dtype, bytes=size, format="", pieces=(), identity=True)

    def _unused(self, targets: list[Target]) -> tuple[str, ...]:
        used = {piece.source for each in targets for piece in each.pieces}
        left = [each.name for each in self._stored.weights.values() if each.name not in used]
        return tuple(sorted([*left, *self._stored.beside]))

    def _check_absent(self, absent: list[str], found: int) -> None:
        lacking = [name for name in absent if name not in self.skeleton.computed]
        if lacking and all(_VISION.search(name) for name in lacking):
            raise InvalidFile(
                f"{self.file.path}: it holds the language model of {self._class} without its vision tower ({lacking[0]}"
                " and more); give a file of both, such as a safetensors one."
            )
        if lacking:
            raise InvalidFile(
                f"{self.file.path}: it has nothing for {len(lacking)} of {found + len(absent)} tensors of"
                f" {self._class}, the first {lacking[0]}; give the file or the config of the same model."
            )

    def _check_surplus(self, unused: tuple[str, ...], used: set[str]) -> None:
        """InvalidFile for blocks beyond those of the config: it is of a smaller model than the file."""
        if self.part.names and is_open_clip(self._stored.weights):
            return  # some models leave out the last block on purpose
        alike = {_NUMBER.sub("#", name) for name in used if _NUMBER.search(name)}
        weights = {each.name for each in self._stored.weights.values()}
        for name in unused:
            ignored = any(re.search(pattern, name) for pattern in self.component.facts.ignored)
            if name in weights and _NUMBER.sub("#", name) in alike and not ignored:
                raise InvalidFile(
                    f"{self.file.path}: {name} belongs to a block that the component's config doesn't have; give the"
                    " config of the same model."
                )


def _neighbours(shape: tuple[int, ...], heads: int) -> Strided:
    """Each head's rows, of which llama.cpp has pairs side by side, as halves again."""
    columns = shape[1] if len(shape) > 1 else 1
    half = shape[0] // heads // 2
    size, stride = (heads, 2, half, columns), (2 * half * columns, columns, 2 * columns, 1)
    return Strided(size=size, stride=stride, offset=0)
