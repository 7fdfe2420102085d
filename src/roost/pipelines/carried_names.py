"""Which locals a loop's statements may read before they assign them, read from a function's syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

_IN_PLACE = ("append", "extend", "insert", "update", "setdefault", "add")


def carried_names(
    names: frozenset[str], loops: list[ast.For | ast.While], point: ast.AST, body: list[ast.stmt], *, known: list[str]
) -> set[str]:
    """Those of ``names`` that may be read before they are assigned, from behind ``point`` in the innermost loop on.

    What is looked at is the rest of the step, another whole step, and what comes after the loop in ``body``. ``known``
    names, and what the loops themselves give, are assigned at that point.
    """
    reads, outer = _Reads(names), loops[0]
    there = _Known().more([*known, *(name for each in loops for name in _targets(each))])
    there = reads.walk(_after(outer.body, point), there)
    # Another step may meet other conditions.
    there = reads.walk(outer.body, _Known(there.names).more(_targets(outer)))
    reads.walk(_after(body, outer), _Known(there.names))
    return reads.found


def holds(node: ast.AST, wanted: Iterable[ast.AST]) -> bool:
    inside = set(map(id, ast.walk(node)))
    return any(id(each) in inside for each in wanted)


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Outer statements before those in them; nothing of functions that are defined there."""
    for each in body:
        yield each
        if not isinstance(each, ast.FunctionDef | ast.ClassDef):
            for part in blocks_of(each):
                yield from statements(part)


def blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The statements inside it, block by block."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for handler in getattr(statement, "handlers", []):
        yield handler.body


def assigned(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names that are assigned, or whose values may be edited in place."""
    for each in body:
        yield from _stored([each])
        for node in ast.walk(each):
            edited = _edited(node)
            if edited is not None:
                yield edited


def _edited(node: ast.AST) -> str | None:
    """The name whose value an assignment to a part of it, or a method like ``copy_`` or ``append``, edits."""
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
        return _name_under(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        method = node.func.attr
        in_place = method.endswith("_") and not method.endswith("__") and method != "requires_grad_"
        if in_place or method in _IN_PLACE:
            return _name_under(node.func.value)
    return None


def _name_under(node: ast.AST) -> str | None:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    # What hangs on the pipeline is looked at as the pipeline's own.
    return node.id if isinstance(node, ast.Name) and node.id != "self" else None


@dataclass(frozen=True, slots=True)
class _Known:
    """Names that are surely assigned; others surely where conditions hold, as (condition, name)."""

    names: frozenset[str] = frozenset()
    under: frozenset[tuple[str, str]] = frozenset()

    def more(self, names: Iterable[str]) -> _Known:
        return _Known(self.names.union(names), self.under)

    def where(self, conditions: Iterable[str]) -> _Known:
        """What is known where these hold."""
        return self.more(name for condition, name in self.under if condition in conditions)

    def joined(self, conditions: Iterable[str], then: _Known, other: _Known) -> _Known:
        """After a choice; ``conditions`` are those of ``then``, where there is only one."""
        under = (then.under & other.under) | {(each, name) for each in conditions for name in then.names}
        return _Known(then.names & other.names, under)


class _Reads:
    """Which of some names may be read before they are assigned, along statements."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.found: set[str] = set()

    def walk(self, body: Iterable[ast.stmt], known: _Known) -> _Known:
        for each in body:
            known = self._step(each, known)
        return known

    def _step(self, statement: ast.stmt, known: _Known) -> _Known:
        if isinstance(statement, ast.If):
            return self._choice(statement, known)
        if isinstance(statement, ast.For | ast.While):
            self._read(statement.iter if isinstance(statement, ast.For) else statement.test, known)
            self.walk(statement.body, known.more(_targets(statement)))  # which may run not at all
            return self.walk(statement.orelse, known)
        if isinstance(statement, ast.With):
            for item in statement.items:
                self._read(item, known)
            return self.walk(statement.body, known.more(_stored(statement.items)))
        if isinstance(statement, ast.Try):
            for block in blocks_of(statement):
                self.walk(block, known)
            return known
        self._read(statement, known)
        return known.more(_stored([statement]))

    def _choice(self, statement: ast.If, known: _Known) -> _Known:
        self._read(statement.test, known)
        if _is_interrupt(statement.test):  # nobody sets it in a run of Roost's
            return self.walk(statement.orelse, known)
        both = statement.test.values if _is_and(statement.test) else [statement.test]
        lasting = [ast.unparse(each) for each in both if not self._names & set(_loaded(each))]
        then = self.walk(statement.body, known.where(lasting))
        # Where one of several conditions holds alone, nothing of ``then`` was assigned.
        return known.joined(lasting if len(both) == 1 else (), then, self.walk(statement.orelse, known))

    def _read(self, node: ast.AST, known: _Known) -> None:
        own = {
            name for each in ast.walk(node) if isinstance(each, ast.comprehension) for name in _stored([each.target])
        }
        for each in ast.walk(node):
            name = each.id if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) else _edited(each)
            if isinstance(each, ast.AugAssign):
                name = _name_under(each.target)
            if name in self._names and name not in known.names and name not in own:
                self.found.add(str(name))


def _is_and(test: ast.expr) -> TypeGuard[ast.BoolOp]:
    return isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And)


def _targets(loop: ast.For | ast.While) -> list[str]:
    return list(_stored([loop.target])) if isinstance(loop, ast.For) else []


def _loaded(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id


def _is_interrupt(test: ast.expr) -> bool:
    return isinstance(test, ast.Attribute) and test.attr in ("interrupt", "_interrupt")


def _stored(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that are assigned there; those of a comprehension are its own."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        yield from _stored(each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.comprehension))


def _after(body: list[ast.stmt], wanted: ast.AST) -> list[ast.stmt]:
    """What comes behind ``wanted`` in a block: the rest of the statement that holds it, then those after that."""
    for index, each in enumerate(body):
        if each is wanted:
            return body[index + 1 :]
        if holds(each, [wanted]):
            inner = next((part for part in blocks_of(each) if any(holds(one, [wanted]) for one in part)), None)
            return [*(_after(inner, wanted) if inner is not None else []), *body[index + 1 :]]
    return []
