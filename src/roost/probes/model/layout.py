"""What a model directory declares: its components by name, library and class, from the JSON files at its root."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeGuard

from roost.errors import InvalidFile
from roost.probes.files.safe_files import quoted, shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.weight_files import find_weights
from roost.probes.recognition.directories import why_no_layout

LayoutKind = Literal["diffusers", "modular", "component", "single-file"]
_INDEX, _MODULAR_INDEX, _CONFIG = "model_index.json", "modular_model_index.json", "config.json"
_NAME = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_][\w.-]{0,127}", re.ASCII)
_FOLDER_NAME = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_FLASHPACK = "FlashPack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One component as declared. ``folder`` is "" where its library would look at the root."""

    name: str
    library: str | None
    class_name: str
    position: int
    folder: str


@dataclass(slots=True, kw_only=True)
class DirectoryLayout:
    """Everything a directory declares; filled entry by entry while its index is read."""

    kind: LayoutKind
    pipeline: str | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    components: list[Declared] = field(default_factory=list)
    scalars: dict[str, object] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    custom: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bare: dict[str, str] = field(default_factory=dict)


def read_layout(directory: ModelDirectory) -> DirectoryLayout:
    """The layout, recognised by the file that defines it; InvalidFile when there is none."""
    names = directory.names()
    if _INDEX in names:
        return _read_pipeline(directory, _INDEX, DirectoryLayout(kind="diffusers"))
    if _MODULAR_INDEX in names:
        return _read_pipeline(directory, _MODULAR_INDEX, DirectoryLayout(kind="modular"))
    if _CONFIG in names:
        component = _root_component(directory)
        if component is not None:
            return DirectoryLayout(kind="component", components=[component])
    if any(name.endswith(".safetensors") for name in names):
        return DirectoryLayout(kind="single-file")
    raise InvalidFile(why_no_layout(directory.path, sorted(names)))


def _root_component(directory: ModelDirectory) -> Declared | None:
    """The single component whose config and weights lie at the root, named after the directory if that is a name."""
    library, class_name = declared_class(directory.read_object(_CONFIG))
    if class_name is None or find_weights(directory, "", library, variant=None) is None:
        return None
    name = directory.path.absolute().name
    return Declared(
        name=name if _NAME.fullmatch(name) else "model",
        library=library,
        class_name=class_name,
        position=0,
        folder="",
    )


def declared_class(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Library and class that a component's ``config.json`` gives; None where it gives none."""
    class_name, architectures = config.get("_class_name"), config.get("architectures")
    if _is_name(class_name):
        return "diffusers", _library_name(class_name)
    if type(architectures) is list and architectures and _is_name(architectures[0]):
        return "transformers", architectures[0]
    return None, None


def _library_name(class_name: str) -> str:
    """The libraries' name of a class that a packing tool has prefixed."""
    return class_name.removeprefix(_FLASHPACK) or class_name


def _is_name(value: object) -> TypeGuard[str]:
    return type(value) is str and _NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One key of an index file."""

    file_name: str
    name: str
    value: Any
    position: int

    def refuse(self, wanted: str, value: object = None) -> NoReturn:
        shown_value = self.value if value is None else value
        raise InvalidFile(
            f"{self.file_name}: {quoted(self.name)} must be {wanted}, not {quoted(shown_value)}."
            " Mend it, or fetch it again."
        )


def _read_pipeline(directory: ModelDirectory, file_name: str, layout: DirectoryLayout) -> DirectoryLayout:
    index = directory.read_object(file_name)
    entries = [_Entry(file_name, name, index[name], position) for position, name in enumerate(index)]
    layout.pipeline = _pipeline_class(_Entry(file_name, "_class_name", index.get("_class_name"), 0), layout)
    layout.index = {**index, "_class_name": layout.pipeline}
    for entry in entries:
        if not entry.name.startswith("_"):
            _read_entry(directory, layout, entry)
    return layout


def _pipeline_class(entry: _Entry, layout: DirectoryLayout) -> str:
    class_name = entry.value
    if _is_library_and_class(class_name):
        module, class_name = class_name
        layout.custom.append(entry.name)
        layout.warnings.append(
            f"the pipeline {quoted(class_name)} is code inside the directory ({quoted(module)}), which is never run"
        )
    if not _is_name(class_name):
        entry.refuse("a pipeline's class name")
    return _library_name(class_name)


def _read_entry(directory: ModelDirectory, layout: DirectoryLayout, entry: _Entry) -> None:
    name, value = entry.name, entry.value
    if layout.kind == "modular" and type(value) is list and len(value) == 3:
        _read_modular_entry(directory, layout, entry)
    elif value is None or value == [None, None]:
        layout.absent.append(name)
    elif _is_library_and_class(value):
        _declare(directory, layout, entry, (value[0], value[1], name))
    elif directory.has_folder(name) or not _is_configuration(value):
        entry.refuse("[library, class] or null")
    elif isinstance(value, bool | int | float | str):
        layout.scalars[name] = value


def _is_library_and_class(value: object) -> bool:
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
        return False
    return _MODULE.fullmatch(value[0]) is not None and _is_name(value[1])


def _is_configuration(value: object) -> bool:
    """A pipeline's own setting, such as a threshold or a list of layer numbers."""
    values = value if type(value) is list else [value]
    return all(isinstance(each, bool | int | float) for each in values) or type(value) is str


def _read_modular_entry(directory: ModelDirectory, layout: DirectoryLayout, entry: _Entry) -> None:
    """``[library, class, {type_hint, pretrained_model_name_or_path, subfolder, …}]``; may be in another repository."""
    library, class_name, source = entry.value
    if type(source) is not dict:
        entry.refuse("[library, class, {where it comes from}]")
    pair: Any = source.get("type_hint") if library is None else [library, class_name]
    folder = entry.name if source.get("subfolder") in (None, "") else source["subfolder"]
    if type(folder) is not str or not _FOLDER_NAME.fullmatch(folder):
        entry.refuse("loaded from a folder with a plain name", folder)
    if not directory.has_folder(folder):
        layout.absent.append(entry.name)
        origin = quoted(source.get("pretrained_model_name_or_path"))
        layout.warnings.append(f"{shown(entry.name)} isn't in this directory: it is loaded from {origin}")
    elif _is_library_and_class(pair):
        _declare(directory, layout, entry, (pair[0], pair[1], folder))
    else:
        entry.refuse("[library, class, {where it comes from}]")


def _declare(directory: ModelDirectory, layout: DirectoryLayout, entry: _Entry, found: tuple[str, str, str]) -> None:
    library, class_name, folder = found
    if not _NAME.fullmatch(entry.name):
        entry.refuse("named plainly, with letters, digits and _", entry.name)
    folder = folder if directory.has_folder(folder) else ""
    if folder and f"{library}.py" in directory.names(folder):
        layout.custom.append(entry.name)
        layout.warnings.append(
            f"{entry.name} is defined by code inside the directory ({quoted(f'{library}.py')}), which is never run"
        )
    layout.components.append(
        Declared(
            name=entry.name,
            library=library,
            class_name=_library_name(class_name),
            position=entry.position,
            folder=folder,
        )
    )
