"""What the runs of one output have finished: each generation saved, and a line for it in a file beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.api.measurements.run_records import GenerationRecord
from roost.api.models.inspect import makes_of, profile_of
from roost.api.requests.given_files import sha256_of
from roost.api.requests.request import PlannedGeneration
from roost.api.runs.identity import generation_key
from roost.api.runs.ready import ReadyPlan
from roost.errors import InvalidFile, RoostError
from roost.probes.files.safe_files import open_regular
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from roost.pipelines.calls import GenerationRequest
    from roost.residency.run.generate import Generation
    from roost.residency.sharded.group import RankGroup


SCHEMA = 1
_MAX_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One line: what a generation was (``key``), the SHA-256 of each file that it wrote, and its digests."""

    key: str
    files: Mapping[str, str]
    digest: str
    latent_digest: str | None


class OutputJournal:
    """The journal of outputs named after ``output``: ``fox.journal.jsonl`` for ``fox.png``.

    A generation counts as finished when its prompt, seed and everything else that its bits depend on (``settings``)
    are the same, and its files still are what was written.
    """

    def __init__(self, output: Path, settings: Mapping[str, object]) -> None:
        self._path = output.with_name(f"{output.stem}.journal.jsonl")
        self._settings = settings
        self._finished = {each.key: each for each in _read(self._path)}

    def finished(self, wanted: PlannedGeneration) -> GenerationRecord | None:
        """The record of a generation that need not be made again; None for one that must."""
        entry = self._finished.get(generation_key(self._settings, wanted))
        if entry is None or not all(_is_whole(self._path.with_name(name), sha) for name, sha in entry.files.items()):
            return None
        output = [str(self._path.with_name(name)) for name in entry.files]
        return _skipped(wanted, output, entry.digest, entry.latent_digest)

    def note(self, wanted: PlannedGeneration, record: GenerationRecord) -> None:
        """Adds a finished generation, on the disk before this returns. Raises RoostError when it can't be written."""
        line = {
            "schema": SCHEMA,
            "key": generation_key(self._settings, wanted),
            "prompt": record.prompt,
            "seed": record.seed,
            "files": {Path(each).name: sha256_of(Path(each)) for each in record.output},
            "digest": record.digest,
            "latent_digest": record.latent_digest,
        }
        try:
            with self._path.open("ab") as file:
                # A line that a crash tore stays alone: what follows begins on its own line.
                file.write(b"\n" + json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RoostError(
                f"can't write {shown_path(self._path)}: {error.strerror}; choose another place with -o."
            ) from None


def _skipped(wanted: PlannedGeneration, output: list[str], digest: str, latent_digest: str | None) -> GenerationRecord:
    return GenerationRecord(
        prompt=wanted.prompt,
        seed=wanted.seed,
        output=output,
        digest=digest,
        latent_digest=latent_digest,
        seconds=None,
        stages=(),
        peak_bytes=None,
        skipped=True,
        batch_of=wanted.batch_of,
    )


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _read(path: Path) -> Iterable[Finished]:
    """The lines that are whole; others are what a crash left, or from another version."""
    if not os.path.lexists(path):
        return
    with open_regular(str(path), str(path)) as file:
        if file.bytes > _MAX_BYTES:
            raise InvalidFile(f"{shown_path(path)} is no journal of Roost; move it, or choose another name with -o.")
        raw = file.read_at(0, file.bytes)
    for line in raw.splitlines():
        entry = _entry(line)
        if entry is not None:
            yield entry


def _entry(line: bytes) -> Finished | None:
    try:
        found: Any = json.loads(line)
        if found["schema"] != SCHEMA:
            return None
        files = {str(name): str(sha) for name, sha in found["files"].items()}
        latent = found["latent_digest"]
        entry = Finished(
            key=str(found["key"]),
            files=files,
            digest=str(found["digest"]),
            latent_digest=None if latent is None else str(latent),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    # Names only: a line must not point out of the folder.
    return (
        entry
        if files and all(name == os.path.basename(name) and name not in ("", ".", "..") for name in files)
        else None
    )


def finished_by_all(
    group: RankGroup, wanted: Sequence[PlannedGeneration], finished: Mapping[PlannedGeneration, GenerationRecord | None]
) -> dict[PlannedGeneration, GenerationRecord | None]:
    """What is finished by the journal of rank 0, the only one that has one, on every rank of ``group``."""
    found = [finished.get(each) for each in wanted]
    digests = group.share([None if each is None else [each.digest, each.latent_digest] for each in found])
    return {
        each: None if entry is None else record or _skipped(each, [], entry[0], entry[1])
        for each, record, entry in zip(wanted, found, digests, strict=True)
    }


# Saving one generation, as what its run was asked for.


_OF_PICTURES = 4  # dimensions at least


def save_generation(ready: ReadyPlan, call: GenerationRequest, generation: Generation, path: Path | None) -> list[str]:
    """The files written for ``path``, each whole: pictures, videos or latents; none for None."""
    from roost.residency.media.outputs import save_latents, save_outputs  # imported here: it brings torch

    if path is None:
        return []
    if call.output_type == "latent":
        facts = {
            "pipeline": ready.plan.model.pipeline,
            "prompt": call.prompt,
            "seed": str(call.seed),
            "width": str(call.width),
            "height": str(call.height),
            "frames": str(call.frames),
        }
        saved = save_latents(generation.output, path, {name: each for name, each in facts.items() if each != "None"})
    else:
        if generation.output.ndim < _OF_PICTURES and makes_of(ready.inventory) != "audio":
            raise RoostError(
                f"{ready.plan.model.pipeline} makes numbers of shape {tuple(generation.output.shape)}, which no picture"
                " holds; leave -o out, or call it from Python."
            )
        frames_per_s = profile_of(ready.inventory).frames_per_s
        saved = save_outputs(generation.output, path, frames_per_s, generation.samples_per_s)
    return [str(each) for each in saved]
