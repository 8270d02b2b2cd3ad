"""What can be changed in a module's functions, one place at a time: each mutant as bytecode and as a diff."""

import ast
import copy
import difflib
import gc
from collections import defaultdict
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
LINE_WIDTH, SHOWN_AROUND = 120, 40
# What runs at import, or never.
UNCHANGED = {"annotation", "returns", "args", "decorator_list", "type_params"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(NamedTuple):
    """One change: where it is, the lines of its statement, the live functions, their new bytecode, and the diff."""

    file: str
    function: str
    lines: range
    live: tuple[FunctionType, ...]
    code: CodeType
    diff: str


class Place(NamedTuple):
    """A field of a node, or a place in its list, and the statement it is part of."""

    parent: ast.AST
    field: str
    number: int | None
    statement: ast.stmt

    def get(self) -> ast.AST:
        """Return the node that is there."""
        value = getattr(self.parent, self.field)
        node: ast.AST = value if self.number is None else value[self.number]
        return node

    def put(self, node: ast.AST) -> None:
        """Replace it."""
        if self.number is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.number] = node


def make_mutants(root: Path, file: str) -> Iterator[Mutant]:
    """Yield all mutants of a module that has been imported."""
    path = str(root / file)
    tree = ast.parse(Path(path).read_text())
    live = defaultdict[tuple[str, int], list[FunctionType]](list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == path:
            live[each.__code__.co_name, each.__code__.co_firstlineno].append(each)
    for name, function in functions(tree):
        line = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        before = ast.unparse(function).splitlines()
        for place in list(places(function, function)):
            lines = range(place.statement.lineno, (place.statement.end_lineno or 0) + 1)
            old = place.get()
            for new in changes(old):
                place.put(ast.fix_missing_locations(ast.copy_location(new, old)))
                code = find_code(compile(tree, path, "exec"), function.name, line)
                diff = find_difference(before, ast.unparse(function).splitlines())
                place.put(old)
                if code and diff:
                    yield Mutant(file, name, lines, tuple(live[function.name, line]), code, diff)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the functions and methods of a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")


def places(node: ast.AST, statement: ast.stmt) -> Iterator[Place]:
    """Yield where a function can be changed: docstrings, annotations and what stands in its head are left out."""
    for field, value in ast.iter_fields(node):
        if field in UNCHANGED and isinstance(node, Definition | ast.AnnAssign | ast.arg):
            continue
        for number, child in enumerate(value if isinstance(value, list) else [value]):
            is_text = isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_text and not is_docstring and field != "format_spec":
                here = child if isinstance(child, ast.stmt) else statement
                yield Place(node, field, number if isinstance(value, list) else None, here)
                yield from places(child, here)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node can be replaced with."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    for kind in (_values, _conditions, _calls, _statements):
        yield from kind(node)


def _values(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value):
            yield ast.Constant(f"XX{value}XX")
        case ast.Constant(value=bytes() as value):
            yield ast.Constant(b"XX%bXX" % value)
        case ast.JoinedStr(values=values):
            yield ast.JoinedStr([ast.Constant("XX"), *values])


def _conditions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):  # Those are changed themselves.
                changed = copy.copy(node)
                changed.test = ast.UnaryOp(ast.Not(), test)
                yield changed
        case ast.comprehension(ifs=ifs):
            for number in range(len(ifs)):
                yield ast.comprehension(node.target, node.iter, ifs[:number] + ifs[number + 1 :], node.is_async)


def _calls(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Call(keywords=keywords):
            for number, keyword in enumerate(keywords):
                if keyword.arg:
                    yield ast.Call(node.func, node.args, keywords[:number] + keywords[number + 1 :])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def find_difference(before: list[str], after: list[str]) -> str:
    """Show which lines differ; of a long line, which has become one of many, what is around the change."""
    removed, *added = [*difflib.unified_diff(before, after, n=0, lineterm="")][3:] or [""]
    if len(added) != 1 or len(removed) <= LINE_WIDTH:
        return "\n".join([removed, *added])
    start = _alike(removed[1:], added[0][1:]) - SHOWN_AROUND
    end = _alike(removed[::-1], added[0][::-1]) - SHOWN_AROUND
    shown = (f"{line[0]} ... {line[1:][max(start, 0) : len(line) - 1 - max(end, 0)]} ..." for line in (removed, *added))
    return "\n".join(shown)


def _alike(one: str, other: str) -> int:
    """Count the characters that both begin with."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))])


def find_code(code: CodeType, name: str, line: int) -> CodeType | None:
    """Find a function's bytecode within a module's."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if (each.co_name, each.co_firstlineno) == (name, line):
                return each
            if found := find_code(each, name, line):
                return found
    return None
