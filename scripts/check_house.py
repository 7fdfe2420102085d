"""Check the laws of the house on the source's syntax trees: imports, torch's rooms, planner purity, sizes.

Prints every violation as ``path:line: message`` and exits 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "roost"

# Who may import whom: a module imports from rows below its own and from its own room; rooms in one row never meet.
LAYERS = (
    ("__init__", "__main__"),
    ("cli",),
    ("api", "tune"),
    ("probes", "planner", "residency", "profiles"),
    ("pipelines", "blocks"),
    ("measured",),
    ("plan",),
    ("trace", "timelines"),
    ("facts",),
    ("units", "temporary"),
    ("homes", "shell"),
    ("errors",),
)

TORCH_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors.torch")
TORCH_ROOMS = ("residency", "pipelines")
DRY_RUN = "probes/dry_run"  # the one part of probes that runs the models' own code

PLANNER_IMPURE = (
    *("os", "io", "pathlib", "tempfile", "shutil", "subprocess", "sys", "random", "time", "datetime"),
    *("json", "yaml", "psutil", "logging", "rich", "typer"),
    *("roost.plan.files", "roost.plan.read_plan", "roost.plan.write_text_atomically"),
)
PLANNER_CALLS = ("print", "open")

SIZED_FOLDERS = ("src", "tests", "benchmarks", "scripts")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60


class Violation(NamedTuple):
    """One broken law: where, and what to do instead."""

    path: Path
    line: int
    message: str


class Source(NamedTuple):
    """One parsed file; ``module`` is its dotted name below ``src`` (or below its own folder) as parts."""

    path: Path
    module: tuple[str, ...]
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The module or folder directly below the package: ``planner`` for ``roost/planner/search.py``."""
        return self.module[1]


def read_sources(root: Path) -> list[Source]:
    """Every Python file below ``root``, sorted; a package's ``__init__`` keeps its own last part."""
    sources = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        module = path.relative_to(root).with_suffix("").parts
        sources.append(Source(path, module, ast.parse(text, str(path)), len(text.splitlines())))
    return sources


def check_import_law(sources: Iterable[Source]) -> Iterator[Violation]:
    """A room imports only rooms of lower layers, and itself."""
    layer_of = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
    for source in sources:
        if source.room not in layer_of:
            yield Violation(source.path, 1, f"room {source.room!r} has no place in the import law: add it to LAYERS")
            continue
        for line, name in imported_names(source):
            if name.split(".")[0] != PACKAGE:
                continue
            # `from roost import make_plan` names no room: it is the package's top.
            target = next((part for part in name.split(".")[1:2] if part in layer_of), "__init__")
            if target != source.room and layer_of[target] <= layer_of[source.room]:
                yield Violation(source.path, line, f"{source.room} must not import {name} (import law)")


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


def imported_names(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a module imports, at its top or inside a function."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = source.module[: -node.level] if node.level else ()
            parts = (*base, *([node.module] if node.module else []))
            yield from ((node.lineno, ".".join((*parts, alias.name))) for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            yield from ((node.lineno, name) for name in names if isinstance(name, str))


def _is_import_call(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name in ("import_module", "__import__")


def is_one_of(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is one of the modules or something inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def check_all(root: Path) -> list[Violation]:
    """Every violation in a checkout, in the order of files and lines."""
    package = [source for source in read_sources(root / "src") if source.module[0] == PACKAGE]
    sized = [source for folder in SIZED_FOLDERS for source in read_sources(root / folder)]
    found = [*check_import_law(package), *check_torch_rooms(package), *check_planner_purity(package)]
    return sorted([*found, *check_sizes(sized)])


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    violations = check_all(root)
    for path, line, message in violations:
        print(f"{path.relative_to(root)}:{line}: {message}")
    print(f"{len(violations)} violations of the house laws" if violations else "house laws kept")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
