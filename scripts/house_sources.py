"""The sources that the laws of the house are checked on, and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "roost"
TORCH_ROOMS = ("residency", "pipelines", "fleet")
DRY_RUN = "probes/dry_run"  # the one part of probes that runs the models' own code


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
        """The module or folder directly below the package: ``planner`` for ``roost/planner/placements.py``."""
        return self.module[1]


def read_sources(root: Path) -> list[Source]:
    """Every Python file below ``root``, sorted; a package's ``__init__`` keeps its own last part."""
    sources = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        module = path.relative_to(root).with_suffix("").parts
        sources.append(Source(path, module, ast.parse(text, str(path)), len(text.splitlines())))
    return sources


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
