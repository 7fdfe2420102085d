"""A run's books: what is finished, and what is kept of the unfinished, beside their outputs, to go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from roost.api.measurements.run_records import GenerationRecord, ResumedRecord
from roost.api.requests.outputs import make_folder_for
from roost.api.requests.request import PlannedCall, PlannedGeneration, RunRequest, calls_of
from roost.api.runs.call import CheckedCall
from roost.api.runs.finished import OutputJournal, finished_by_all
from roost.api.runs.identity import generation_key, run_settings
from roost.api.runs.ready import ReadyPlan
from roost.errors import RoostError
from roost.plan import write_bytes_atomically
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.pipelines.calls import GenerationRequest
    from roost.residency.hold.attach import Held
    from roost.residency.run.generate import Generation
    from roost.residency.run.kept.files import KeptFiles

_log = logging.getLogger(__name__)

# State inside a call is these libraries' own: what one version kept another may not take up.
_LIBRARIES = ("roost", "torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """Of the libraries that a generation's bits depend on."""
    return {each: metadata.version(each) for each in _LIBRARIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What of a request an earlier run made, which is ``there``, and the calls that are ``left``."""

    kept: KeptWork
    calls: Sequence[PlannedCall]
    there: Mapping[PlannedGeneration, GenerationRecord]
    journal: OutputJournal | None

    @classmethod
    def opened(
        cls, ready: ReadyPlan, request: RunRequest, checked: CheckedCall, on_note: Callable[[str], None] | None
    ) -> Books:
        """Reads what earlier runs left. Raises UsageError where nothing can be written, InvalidFile for no journal."""
        output = request.output if ready.writes else None
        if output is not None:
            make_folder_for(output)
        settings = run_settings(ready, request, checked)
        several = request.listed or len(request.seeds) > 1
        journal = OutputJournal(output, settings) if output is not None and several else None
        calls = calls_of(request)
        wanted = [each for call in calls for each in call]
        found = {each: journal.finished(each) for each in wanted} if journal else {}
        if ready.group is not None:
            found = finished_by_all(ready.group, wanted, found)
        undecoded = run_settings(ready, request, checked, decoded=False)
        books = cls(
            kept=KeptWork(undecoded, resume=request.resume, on_note=on_note, keeps=ready.group is None),
            calls=calls,
            there={each: record for each, record in found.items() if record is not None},
            journal=journal,
        )
        for call in calls:
            if books.there.keys() >= set(call):
                books.kept.finished(call[0])  # whoever saved it may have been killed before
        _log.info("%d generations, %d of them finished by an earlier run", len(wanted), len(books.there))
        return books

    @property
    def left(self) -> list[PlannedCall]:
        return [call for call in self.calls if not self.there.keys() >= set(call)]

    @property
    def latents(self) -> list[str]:
        """The kept files that are still there; a call's are named after its first output."""
        return self.kept.existing(call[0] for call in self.calls)

    def note(self, wanted: PlannedGeneration, record: GenerationRecord) -> None:
        """Notes a saved generation, on the disk before this returns."""
        if self.journal is not None:
            self.journal.note(wanted, record)

    def records(self, made: Mapping[PlannedGeneration, GenerationRecord]) -> list[GenerationRecord]:
        """Of all generations, in their order, those that an earlier run or this one ``made``."""
        found = (self.there.get(each) or made.get(each) for call in self.calls for each in call)
        return [each for each in found if each is not None]


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
        self._settings = {**settings, "versions": [*versions().values()]}
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

    def task_of(self, wanted: PlannedGeneration) -> tuple[str, bytes]:
        """The generation's key wherever it is made, and its usable kept latents; empty for none."""
        files = self._files(wanted) if self._resume else None
        there = files is not None and files.read("decode") is not None
        return generation_key(self._settings, wanted), files.path("decode").read_bytes() if files and there else b""

    def keep(self, wanted: PlannedGeneration, latents: bytes) -> None:
        """Puts latents that another process kept beside the output."""
        files = self._files(wanted)
        if files is not None:
            try:
                write_bytes_atomically(files.path("decode"), latents)
            except RoostError as error:
                self._say(f"nothing is kept of {shown_path(files.path('decode'))}: {error}")

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
