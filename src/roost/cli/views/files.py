"""What single files of weights are, for people: a dozen lines for one, a table for a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost.cli.screen import show_folded, show_table, show_text
from roost.units import format_bytes

if TYPE_CHECKING:
    from roost.api.models.files.comfy_folders import FolderFile, InspectedFolder
    from roost.api.models.files.inspect_files import InspectedFile

_MOST_REASONS, _MOST_NAMED = 2, 4
_LAYOUTS = {
    "diffusers": "diffusers' names",
    "original": "its authors' names",
    "comfy": "ComfyUI's names",
    "llama.cpp": "llama.cpp's names",
}


def show_file(found: InspectedFile) -> None:
    """What it is, its formats, whether it runs as stored, and which models it may belong to."""
    quantisation, content = found.quantisation, found.content
    show_folded(
        f"{found.file.container} · {_what(found)} · {len(found.file.tensors)} tensors"
        f" · {format_bytes(found.stored_bytes)} stored, {format_bytes(found.load_bytes)} loaded"
    )
    show_folded(f"layout: {_LAYOUTS.get(content.layout or '', 'not known')}{_parts(found)}")
    bits = f", {quantisation.bits_per_weight:.2f} bits a weight" if quantisation.bits_per_weight is not None else ""
    show_folded(f"formats: {_formats(found)}{bits}")
    why_not = quantisation.why_not()
    show_folded(f"runs as stored: {'yes' if why_not is None else f'no, {why_not}'}")
    for why, names in list(_by_reason(found).items())[:_MOST_REASONS]:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        show_folded(f"may be {', '.join(names[:_MOST_NAMED])}{more}: {why}")
    for warning in found.warnings:
        show_folded(f"warning: {warning}")


def _by_reason(found: InspectedFile) -> dict[str, list[str]]:
    """The candidates, those of one reason together."""
    names: dict[str, list[str]] = {}
    for each in found.content.candidates:
        names.setdefault(each.why, []).append(f"{each.model} {each.component}")
    return names


def _what(found: InspectedFile) -> str:
    """Family and component, as far as they are known."""
    content = found.content
    known = [each for each in (content.family, content.component) if each is not None]
    return " ".join(known) if known else content.title or "unknown weights"


def _parts(found: InspectedFile) -> str:
    parts = found.content.parts
    return f"; holds {', '.join(f'{each.component} ({each.prefix})' for each in parts)}" if parts else ""


def _formats(found: InspectedFile) -> str:
    """The formats by their bytes, as the detail has them; of a plain file its dtypes."""
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for key, count, stored in _counted(found):
        counts[key] = counts.get(key, 0) + count
        sizes[key] = sizes.get(key, 0) + stored
    order = sorted(counts, key=lambda key: -sizes[key])
    return ", ".join(f"{counts[key]} {key} ({format_bytes(sizes[key])})" for key in order) or "none"


def _counted(found: InspectedFile) -> list[tuple[str, int, int]]:
    detail = found.quantisation.detail
    formats = detail["formats"] if detail is not None else None
    if isinstance(formats, dict):
        return [(key, each["tensors"], each["bytes"]) for key, each in formats.items()]
    return [(each.format, 1, each.bytes) for each in found.file.tensors.values()]


def show_folder(found: InspectedFolder) -> None:
    """A row for each file; a broken one's error stands below the table."""
    stored = sum(each.found.stored_bytes for each in found.files if each.found is not None)
    show_folded(f"{len(found.files)} files of weights · {format_bytes(stored)} stored")
    if found.files:
        headings = ("File", "What it is", "Stored", "Bits", "Quantised", "Runs")
        show_table(headings, [_row(each, found.path) for each in found.files], numbers=(2, 3))
    for each in found.files:
        if each.error is not None:
            show_text(f"error: {each.error}")
    for warning in found.warnings:
        show_folded(f"warning: {warning}")


def _row(each: FolderFile, root: str) -> tuple[str, ...]:
    name = each.path.removeprefix(root).lstrip("/\\") if each.path.startswith(root) else each.path
    if each.found is None:
        return name, "broken, see below", "", "", "", "no"
    quantisation = each.found.quantisation
    bits = f"{quantisation.bits_per_weight:.2f}" if quantisation.bits_per_weight is not None else ""
    runs = "yes" if quantisation.runs else "no"
    return name, _what(each.found), format_bytes(each.found.stored_bytes), bits, quantisation.method or "no", runs
