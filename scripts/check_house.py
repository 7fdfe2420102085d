"""Check the laws of the house on the source's syntax trees: imports, torch's rooms, planner purity, rooms, sizes.

Prints every violation as ``path:line: message`` and exits 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from house_internals import check_internals
from house_sources import DRY_RUN, PACKAGE, TORCH_ROOMS, Source, Violation, imported_names, is_one_of, read_sources

# Who may import whom, by folder: what is in a row imports from rows below it, and inside itself; rooms in one row never
# meet. "*" stands for everything of the folder that no row names, which may meet; without it all must be named. Where a
# folder isn't here, its files may meet.
LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "": (
        ("__init__", "__main__"),
        ("cli",),
        ("api",),
        ("tune", "fleet"),
        ("probes", "planner", "residency", "profiles"),
        ("pipelines", "blocks"),
        ("plan",),
        ("trace", "timeline"),
        ("facts",),
        ("units", "temporary", "shell_quoting", "regular_files", "foreign_words"),
        ("user_folders", "option_spelling", "allocator_settings"),
        ("errors",),
    ),
    "cli": (
        ("app",),
        ("commands",),
        ("views", "html"),
        ("options", "endings", "logs"),
        ("screen",),
    ),
    "api": (
        ("attach", "bench", "tuning", "fleets"),
        ("runs", "trials"),
        ("plans",),
        ("measurements",),
        ("requests", "models"),
        ("machine", "ranks"),
    ),
    "tune": (
        ("bench", "choice"),
        ("trials",),
        ("race",),
        ("results",),
    ),
    "planner": (
        ("rule_plan", "prediction_error", "calibration", "fleet"),
        ("by_search",),
        ("answers",),
        ("slicing", "search_question"),
        ("by_rules",),
        ("documents",),
        ("search",),
        ("cost",),
        ("ruling",),
        ("placements",),
        ("leaf_level",),
        ("buffers", "rules", "side_paths"),
    ),
    "pipelines": (
        ("*",),
        ("internals",),
    ),
    "planner/cost": (
        ("*",),
        ("simulator",),
    ),
    "probes": (
        ("dry_run", "machine"),
        ("model",),
        ("recognition",),
        ("files",),
    ),
    "residency": (
        ("run",),
        ("hold",),
        ("sharded",),
        ("engine", "rates"),
        ("weights",),
        ("device", "media"),
    ),
    "residency/device": (
        ("choice",),
        ("cuda", "emulated"),
        ("interface",),
        ("failures",),
    ),
}

TORCH_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors.torch")
PLANNER_IMPURE = (
    *("os", "io", "pathlib", "tempfile", "shutil", "subprocess", "sys", "random", "time", "datetime"),
    *("json", "yaml", "psutil", "logging", "rich", "typer"),
    *("roost.plan.files", "roost.plan.read_plan", "roost.plan.write_text_atomically"),
)
PLANNER_CALLS = ("print", "open")

SIZED_FOLDERS = ("src", "tests", "benchmarks", "scripts")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_FOLDER_FILES = 14  # beside its __init__


def check_import_law(sources: Iterable[Source]) -> Iterator[Violation]:
    """In every folder that has layers, a room or file imports only what is in lower ones, and what is inside itself."""
    for source in sources:
        yield from _unplaced(source)
        for line, name in imported_names(source):
            if name.split(".")[0] == PACKAGE:
                folder, here, there = _parting(source.module, tuple(name.split(".")))
                if not _may_import(folder, here, there):
                    place = "/".join((*folder, here))
                    yield Violation(source.path, line, f"{place} must not import {name} (import law)")


def _unplaced(source: Source) -> Iterator[Violation]:
    for depth, room in enumerate(source.module[1:], 1):
        folder = "/".join(source.module[1:depth])
        if folder in LAYERS and _layer_of(folder, room) is None and not (folder and room == "__init__"):
            message = f"room {room!r} has no place in the import law: add it to LAYERS[{folder!r}]"
            yield Violation(source.path, 1, message)


def _parting(importing: tuple[str, ...], imported: tuple[str, ...]) -> tuple[tuple[str, ...], str, str]:
    """The last folder that two modules share, and where each goes on from there."""
    depth = 1
    while depth < min(len(importing) - 1, len(imported)) and importing[depth] == imported[depth]:
        depth += 1
    there = imported[depth] if depth < len(imported) else "__init__"
    if depth == 1 and _layer_of("", there) is None:
        there = "__init__"  # `from roost import make_plan` names no room: it is the package's top
    return importing[1:depth], importing[depth], there


def _may_import(folder: tuple[str, ...], here: str, there: str) -> bool:
    name = "/".join(folder)
    above, below = _layer_of(name, here), _layer_of(name, there)
    if here == there or (folder and here == "__init__"):
        return True
    if above is None or below is None:
        return True  # no order here, or a missing place, which is a violation of its own
    return above < below or (above == below and "*" in LAYERS[name][above])


def _layer_of(folder: str, room: str) -> int | None:
    rows = list(enumerate(LAYERS.get(folder, ())))
    rest = next((index for index, row in rows if "*" in row), None)
    return next((index for index, row in rows if room in row), rest)


def check_torch_rooms(sources: Iterable[Source]) -> Iterator[Violation]:
    """Only the rooms that run models import torch and the libraries that load it, even inside a function."""
    for source in sources:
        if source.room in TORCH_ROOMS or "/".join(source.module[1:]).startswith(DRY_RUN):
            continue
        for line, name in imported_names(source):
            if is_one_of(name, TORCH_LIBRARIES):
                homes = ", ".join((*TORCH_ROOMS, f"{DRY_RUN}*"))
                yield Violation(source.path, line, f"{source.room} must not import {name}: only {homes} may")


def check_planner_purity(sources: Iterable[Source]) -> Iterator[Violation]:
    """The planner sees no file, clock, chance or terminal: facts in, plan out."""
    for source in sources:
        if source.room != "planner":
            continue
        for line, name in imported_names(source):
            if is_one_of(name, PLANNER_IMPURE):
                yield Violation(source.path, line, f"planner must not import {name}: pass it facts instead")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PLANNER_CALLS:
                yield Violation(source.path, node.lineno, f"planner must not call {node.func.id}()")


def check_rooms(sources: Iterable[Source]) -> Iterator[Violation]:
    """A folder holds what can be looked over, and says at its door what lives there and what may not."""
    folders: dict[Path, list[Source]] = defaultdict(list)
    for source in sources:
        folders[source.path.parent].append(source)
    for folder, inside in folders.items():
        top = next((source for source in inside if source.module[-1] == "__init__"), None)
        if top is None or len((ast.get_docstring(top.tree) or "").splitlines()) < 2:
            message = "folder has no __init__.py that says, in two lines, what lives there and what may not"
            yield Violation(folder / "__init__.py", 1, message)
        count = len(inside) - (top is not None)
        if count > MAX_FOLDER_FILES:
            message = f"folder has {count} files, more than {MAX_FOLDER_FILES}: make rooms within it"
            yield Violation(folder / "__init__.py", 1, message)


def check_sizes(sources: Iterable[Source]) -> Iterator[Violation]:
    """A file reads in one sitting, a function on one screen."""
    for source in sources:
        if source.lines > MAX_FILE_LINES:
            message = f"file has {source.lines} lines, more than {MAX_FILE_LINES}: make it a folder of its name"
            yield Violation(source.path, source.lines, message)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    message = f"{node.name}() has {lines} lines, more than {MAX_FUNCTION_LINES}: split it"
                    yield Violation(source.path, node.lineno, message)


def check_all(root: Path) -> list[Violation]:
    """Every violation in a checkout, in the order of files and lines."""
    package = [source for source in read_sources(root / "src") if source.module[0] == PACKAGE]
    sized = [source for folder in SIZED_FOLDERS for source in read_sources(root / folder)]
    found = [*check_import_law(package), *check_torch_rooms(package), *check_planner_purity(package)]
    return sorted([*found, *check_rooms(package), *check_sizes(sized), *check_internals(package)])


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    violations = check_all(root)
    for path, line, message in violations:
        print(f"{path.relative_to(root)}:{line}: {message}")
    print(f"{len(violations)} violations of the house laws" if violations else "house laws kept")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
