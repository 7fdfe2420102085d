"""What a run keeps of its unfinished generations, beside their outputs, and goes on from after a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from roost.api.measurements.run_records import ResumedRecord
from roost.api.requests.request import PlannedGeneration
from roost.api.runs.identity import generation_key
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.pipelines.calls import GenerationRequest
    from roost.residency.hold.attach import Held
    from roost.residency.run.generate import Generation
    from roost.residency.run.kept.files import KeptFiles

_log = logging.getLogger(__name__)

# State inside a call is these libraries' own: what one version kept another may not take up.
_LIBRARIES = ("roost", "torch", "diffusers", "transformers")


class KeptWork:
    """The kept files of a run's generations; ``on_note`` hears of each thing once.

    With ``resume`` a generation goes on from what an earlier run kept of the same one. Without ``keeps`` there is
    nothing of it.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        *,
        resume: bool,
        on_note: Callable[[str], None] | None,
        keeps: bool = True,
    ) -> None:
        self._settings = {**settings, "versions": [metadata.version(each) for each in _LIBRARIES]}
        self._resume, self._on_note, self._keeps = resume, on_note, keeps
        self._said: set[str] = set()

    def generate(
        self, held: Held, wanted: PlannedGeneration, call: GenerationRequest
    ) -> tuple[Generation, ResumedRecord | None]:
        """Generates, or goes on; what can be is kept until ``finished``. Raises what ``generate`` does."""
        from roost.residency.run.generate import generate  # imported here: these bring torch
        from roost.residency.run.kept.keeper import generate_keeping

        files = self._files(wanted)
        if files is None:
            return generate(held, call), None
        try:
            generation, resumed = generate_keeping(held, call, files, resume=self._resume)
        except BaseException:
            self._tell(files)
            raise
        if resumed is None:
            return generation, None
        return generation, ResumedRecord(output=str(wanted.output), stage=resumed.stage, step=resumed.step)

    def finished(self, wanted: PlannedGeneration) -> None:
        """Removes what was kept of a generation whose output is there."""
        files = self._files(wanted)
        if files is not None:
            files.remove()

    def is_denoised(self, wanted: PlannedGeneration) -> bool:
        """Whether the generation will go on from what entered its decode."""
        files = self._files(wanted) if self._resume else None
        return files is not None and files.has("decode")

    def existing(self, wanted: Iterable[PlannedGeneration]) -> list[str]:
        """The kept files that are still there."""
        found = [self._files(each) for each in wanted]
        return [str(path) for files in found if files is not None for path in files.existing()]

    def _files(self, wanted: PlannedGeneration) -> KeptFiles | None:
        from roost.residency.run.kept.files import KeptFiles, shown_generation  # imported here: they bring torch

        if wanted.output is None or not self._keeps:
            return None
        shown = shown_generation(wanted.prompt, wanted.seed)
        return KeptFiles(wanted.output, key=generation_key(self._settings, wanted), shown=shown, say=self._say)

    def _tell(self, files: KeptFiles) -> None:
        kept = files.existing()
        if kept:
            self._say(f"kept {shown_path(kept[0])}: the same command goes on from there.")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.info("%s", text)
            if self._on_note is not None:
                self._on_note(text)
