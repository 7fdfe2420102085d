"""What the source of a pipeline tells of the loop of its steps: what it carries on, and whether values end it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from roost.pipelines.carried_names import assigned, blocks_of, carried_names, holds, statements

CALLBACK = "callback_on_step_end"
_OUTPUTS = "callback_outputs"
_LATENTS = "latents"
# What a pipeline asks before it ends because its user interrupts it, which no run does.
_INTERRUPTED = ("self.interrupt", "self._interrupt", "getattr(self, '_interrupt', False)")


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
    loops = [each for each in statements(body) if isinstance(each, ast.For | ast.While) and holds(each, calls)]
    if not calls or not loops:
        return f"{name} has no callback at the end of its steps"
    if len(calls) > 1:
        return f"{name} makes its steps in several loops"
    taken = _taken_back(loops[0])
    if taken is None or _LATENTS not in taken:
        return f"{name} has a callback that can't put its latents back"
    names = frozenset(assigned([loops[0]]))
    others = names - set(taken.values()) - set(_bars(body))
    carried = frozenset(carried_names(others, loops, calls[0], body, known=[_OUTPUTS]))
    return StepLoop(code=function.__code__, taken=taken, carried=carried, assigned=names)


@cache
def ends_by_values(pipeline: type, components: frozenset[str]) -> bool:
    """Whether a loop that uses one of the ``components`` may end by what the pipeline has computed, or can't be read.

    That is a ``while``, or a ``for`` with a ``break`` for another reason than that somebody interrupts the pipeline.
    """
    own = [each for each in pipeline.__mro__ if "__call__" in vars(each)]
    try:
        trees = [ast.parse(textwrap.dedent(inspect.getsource(each))) for each in own]
    except (OSError, TypeError, SyntaxError):
        return True
    functions = [each for tree in trees for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    return any(_ends_by_values(each, components) for each in functions)


def _ends_by_values(function: ast.FunctionDef, components: frozenset[str]) -> bool:
    others = {
        target.id
        for each in ast.walk(function)
        if isinstance(each, ast.Assign) and _is_one_of(each.value, components)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    loops = (each for each in ast.walk(function) if isinstance(each, ast.For | ast.While))
    return any(
        _uses(each, components, others) and (isinstance(each, ast.While) or _breaks(each.body)) for each in loops
    )


def _is_one_of(value: ast.expr, components: frozenset[str]) -> bool:
    """Whether it is ``self.transformer``, or that under a condition; not what it gives."""
    if isinstance(value, ast.IfExp):
        return _is_one_of(value.body, components) or _is_one_of(value.orelse, components)
    return isinstance(value, ast.Attribute) and value.attr in components


def _uses(node: ast.AST, components: frozenset[str], others: Collection[str]) -> bool:
    """Whether it has ``self.transformer`` in it, or one of the ``others`` that stand for it."""
    return any(
        each.attr in components if isinstance(each, ast.Attribute) else each.id in others
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute | ast.Name)
    )


def _breaks(body: Iterable[ast.stmt]) -> bool:
    """Whether a loop with this body may break, though nobody interrupts the pipeline."""
    for each in body:
        if isinstance(each, ast.Break):
            return True
        inner = [] if isinstance(each, ast.For | ast.While | ast.FunctionDef) else list(blocks_of(each))
        if isinstance(each, ast.If) and ast.unparse(each.test) in _INTERRUPTED:
            inner = [each.orelse]
        if any(map(_breaks, inner)):
            return True
    return False


def _is_callback(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == CALLBACK


def _taken_back(loop: ast.stmt) -> dict[str, str] | None:
    """The callback's names for what it may return, with the locals they go to; None where it must return one."""
    found = {}
    for each in ast.walk(loop):
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            found_calls: Iterator[Any] = filter(_is_taking, ast.walk(each.value))
            for call in found_calls:
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
    for each in statements(body):
        for item in each.items if isinstance(each, ast.With) else ():
            made = item.context_expr
            if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and made.func.attr == "progress_bar":
                yield from assigned([item])
