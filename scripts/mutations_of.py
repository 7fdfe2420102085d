"""Every small wrong change of a module's text: one operator, constant, condition, call or return at a time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Annotations and sentences are no behaviour; nor is what only a checker reads.
_SKIPPED = (ast.AnnAssign, ast.JoinedStr, ast.Import, ast.ImportFrom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One changed text, where it differs from the original, by which change, and the line as it is now."""

    source: str
    line: int
    column: int
    what: str
    now: str


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text; each one differs from it in one expression or statement."""
    tree = ast.parse(source)
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    made = []
    for node, what, new in _changes(tree):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        raw = source.encode()
        text = (raw[:begin] + new.encode() + raw[end:]).decode()
        made.append(
            Mutant(source=text, line=node.lineno, column=node.col_offset, what=what, now=" ".join(new.split())[:200])
        )
    return sorted(made, key=lambda each: (each.line, each.column, each.what))


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """A node, what is done to it, and the text that takes its place."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SKIPPED) or _is_docstring(child):
            continue
        if isinstance(child, ast.expr):
            yield from ((child, what, f"({ast.unparse(new)})") for what, new in _of_expression(child))
        if isinstance(child, ast.If | ast.While):
            yield child.test, "never", "False"
        if isinstance(child, ast.stmt):
            yield from ((child, what, new) for what, new in _of_statement(child))
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in (*child.args.defaults, *(each for each in child.args.kw_defaults if each)):
                yield from _changes(ast.Expression(inner))
            yield from _changes(ast.Module(body=child.body, type_ignores=[]))
        else:
            yield from _changes(child)


def _of_expression(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = _COMPARES[type(operator)]()
            ops = [*node.ops[:index], other, *node.ops[index + 1 :]]
            yield f"{type(operator).__name__} to {type(other).__name__}", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield f"to {type(other_op).__name__}", ast.BoolOp(other_op, node.values)
        yield "last operand gone", node.values[0] if len(node.values) == 2 else ast.BoolOp(node.op, node.values[:-1])
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        operator_now = _ARITHMETIC[type(node.op)]()
        yield (
            f"{type(node.op).__name__} to {type(operator_now).__name__}",
            ast.BinOp(node.left, operator_now, node.right),
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"{type(node.op).__name__} gone", node.operand
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        other_name = _CALLS[node.func.id]
        yield f"{node.func.id} to {other_name}", ast.Call(ast.Name(other_name), node.args, node.keywords)
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node.value)


def _of_constant(value: object) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(value, bool):
        yield f"{value} to {not value}", ast.Constant(not value)
    elif isinstance(value, int):
        yield f"{value} to {value + 1}", ast.Constant(value + 1)
    elif isinstance(value, float):
        yield f"{value} to {value * 2}", ast.Constant(value * 2 if value else 1.0)


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call gone", "pass"
    elif isinstance(node, ast.AugAssign):
        yield "statement gone", "pass"
    elif isinstance(node, ast.Raise | ast.Continue | ast.Break):
        yield f"{type(node).__name__.lower()} gone", "pass"
    elif isinstance(node, ast.Return) and node.value is not None:
        nothing = isinstance(node.value, ast.Constant) and node.value.value is None
        if not nothing:
            yield "returns None", "return None"


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
