"""What the loop of a pipeline's steps carries from one step to the next, read from the source of its call."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from roost.pipelines.carried_names import assigned, carried_names, holds, statements

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
