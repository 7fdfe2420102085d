"""What the loop of a pipeline's steps carries from one step to the next, read from the source of its call."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any, TypeGuard

CALLBACK = "callback_on_step_end"
_OUTPUTS = "callback_outputs"
_LATENTS = "latents"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoop:
    """The loop around the one call of the step callback in ``code``.

    ``taken`` are the names that the callback may return, with the locals they go to; ``latents`` is one. ``carried``
    are other locals that a step may take over from the one before, or that are read after the loop. ``assigned`` are
    all that the loop assigns.
    """

    code: CodeType
    taken: Mapping[str, str]
    carried: frozenset[str]
    assigned: frozenset[str]


@cache
def step_loop(pipeline: type) -> StepLoop | str:
    """The loop of a pipeline class's steps; or why nothing could be put back into it, in words."""
    name, function = pipeline.__name__, inspect.unwrap(vars(pipeline).get("__call__", pipeline.__call__))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return f"the source of {name} can't be read"
    calls = [each for each in ast.walk(tree) if _is_callback(each)]
    body = getattr(tree, "body", [])
    loops = [each for each in _statements(body) if isinstance(each, ast.For | ast.While) and _holds(each, calls)]
    if not calls or not loops:
        return f"{name} has no callback at the end of its steps"
    if len(calls) > 1:
        return f"{name} makes its steps in several loops"
    taken = _taken_back(loops[0])
    if taken is None or _LATENTS not in taken:
        return f"{name} takes no latents from its callback"
    assigned = frozenset(_assigned([loops[0]]))
    names = assigned - set(taken.values()) - set(_bars(body))
    carried = frozenset(_Reads(names).between(loops, calls[0], body))
    return StepLoop(code=function.__code__, taken=taken, carried=carried, assigned=assigned)


def _is_callback(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == CALLBACK


def _holds(node: ast.AST, wanted: Iterable[ast.AST]) -> bool:
    inside = set(map(id, ast.walk(node)))
    return any(id(each) in inside for each in wanted)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Outer statements before those in them; nothing of functions that are defined there."""
    for each in body:
        yield each
        if not isinstance(each, ast.FunctionDef | ast.ClassDef):
            for part in _blocks(each):
                yield from _statements(part)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for handler in getattr(statement, "handlers", []):
        yield handler.body


def _taken_back(loop: ast.stmt) -> dict[str, str] | None:
    """The callback's names for what it may return, with the locals they go to; None where it must return one."""
    found = {}
    for each in ast.walk(loop):
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            for call in filter(_is_taking, ast.walk(each.value)):
                if len(call.args) < 2:
                    return None
                found[str(call.args[0].value)] = each.targets[0].id
    return found


def _is_taking(node: Any) -> bool:
    """``callback_outputs.pop("latents", latents)``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "pop"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == _OUTPUTS
        and isinstance(node.args[0], ast.Constant)
    )


def _bars(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The locals that progress bars are in."""
    for each in _statements(body):
        for item in each.items if isinstance(each, ast.With) else ():
            made = item.context_expr
            if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and made.func.attr == "progress_bar":
                yield from _assigned([item])


def _assigned(body: Iterable[ast.AST]) -> Iterator[str]:
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
        if in_place or method in ("append", "extend", "insert", "update", "setdefault", "add"):
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
        self._found: set[str] = set()

    def between(self, loops: list[ast.For | ast.While], callback: ast.AST, body: list[ast.stmt]) -> set[str]:
        """From behind the callback: the rest of its step, another whole step, and what comes after the loop.

        What the loops themselves give, a pipeline that runs again has right.
        """
        outer = loops[0]
        known = _Known().more([_OUTPUTS, *(name for each in loops for name in _targets(each))])
        known = self._walk(_after(outer.body, callback), known)
        # Another step may meet other conditions.
        known = self._walk(outer.body, _Known(known.names).more(_targets(outer)))
        self._walk(_after(body, outer), _Known(known.names))
        return self._found

    def _walk(self, body: Iterable[ast.stmt], known: _Known) -> _Known:
        for each in body:
            known = self._step(each, known)
        return known

    def _step(self, statement: ast.stmt, known: _Known) -> _Known:
        if isinstance(statement, ast.If):
            return self._choice(statement, known)
        if isinstance(statement, ast.For | ast.While):
            self._read(statement.iter if isinstance(statement, ast.For) else statement.test, known)
            self._walk(statement.body, known.more(_targets(statement)))  # which may run not at all
            return self._walk(statement.orelse, known)
        if isinstance(statement, ast.With):
            for item in statement.items:
                self._read(item, known)
            return self._walk(statement.body, known.more(_stored(statement.items)))
        if isinstance(statement, ast.Try):
            for block in _blocks(statement):
                self._walk(block, known)
            return known
        self._read(statement, known)
        return known.more(_stored([statement]))

    def _choice(self, statement: ast.If, known: _Known) -> _Known:
        self._read(statement.test, known)
        if _is_interrupt(statement.test):  # nobody sets it in a run of Roost's
            return self._walk(statement.orelse, known)
        both = statement.test.values if _is_and(statement.test) else [statement.test]
        lasting = [ast.unparse(each) for each in both if not self._names & set(_loaded(each))]
        then = self._walk(statement.body, known.where(lasting))
        # Where one of several conditions holds alone, nothing of ``then`` was assigned.
        return known.joined(lasting if len(both) == 1 else (), then, self._walk(statement.orelse, known))

    def _read(self, node: ast.AST, known: _Known) -> None:
        own = {name for each in ast.walk(node) if isinstance(each, ast.comprehension) for name in _stored([each.target])}
        for each in ast.walk(node):
            name = each.id if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) else _edited(each)
            if isinstance(each, ast.AugAssign):
                name = _name_under(each.target)
            if name in self._names and name not in known.names and name not in own:
                self._found.add(str(name))


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
        if _holds(each, [wanted]):
            inner = next((part for part in _blocks(each) if any(_holds(one, [wanted]) for one in part)), None)
            return [*(_after(inner, wanted) if inner is not None else []), *body[index + 1 :]]
    return []

