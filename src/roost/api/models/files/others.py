"""What a file is that can't be made the component that it was given for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roost.api.models.files.inspect_files import inspect_file
from roost.api.models.files.recipes import recipe_of
from roost.errors import InvalidFile
from roost.facts.model import Component, PublishedModel
from roost.facts.weight_files import Recipe, WeightFile
from roost.option_spelling import file_option, option
from roost.probes.recognition.weights import FileContent
from roost.shell_quoting import shown_path

_SHOWN_MODELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """The recipes of one model's components: its configs' ``source``, and the family that it is of, if any."""

    source: Path | PublishedModel
    family: str | None

    def of(self, component: Component, file: WeightFile) -> Recipe:
        """As ``recipe_of``; InvalidFile says what the file is where that is known and isn't the component."""
        try:
            return recipe_of(self.source, component, file)
        except InvalidFile:
            what = self._otherwise(component.name, file)
            if what is None:
                raise
            raise InvalidFile(f"{shown_path(file.path)} is no {component.name} of this model: {what}.") from None

    def _otherwise(self, name: str, file: WeightFile) -> str | None:
        content = inspect_file(file.path).content
        parts = list(dict.fromkeys(each.component for each in content.parts))
        if content.component == "lora":
            return f"it is a LoRA; give it with {option('lora', file.path)}"
        if parts:
            return None if name in parts else f"it holds {', '.join(parts)} alone"
        if content.component is None:
            return None
        models = {each.model for each in content.candidates}
        what = f"it is a {content.component}{_of(content)}"
        if models and self.family is not None and self.family not in models:
            return what
        if _kind(content.component) == _kind(name):
            return None
        return f"{what}; give it with {file_option(content.component, file.path)}"


def _kind(component: str) -> str:
    """Without the number, which no file tells."""
    return component.rstrip("_0123456789")


def _of(content: FileContent) -> str:
    models = list(dict.fromkeys(each.model for each in content.candidates))
    more = " and others" if len(models) > _SHOWN_MODELS else ""
    return f" of {', '.join(models[:_SHOWN_MODELS])}{more}" if models else ""
