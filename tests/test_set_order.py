"""Nothing in the core depends on the order of a set, as far as the syntax tree can tell.

The order of a set of strings changes with PYTHONHASHSEED, and with it every digest of a simulation.
Sets are for membership: whoever needs an order sorts first.
The check knows literals, calls, comprehensions, set operators, and the names and attributes that its
own file assigns or annotates as sets; what crosses a file is left to the digest under two hash seeds.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parent.parent / "core"

# The result of these does not depend on the order in which they see their argument.
ORDERLESS = frozenset({"all", "any", "bool", "frozenset", "len", "max", "min", "set", "sorted", "sum"})
# These go through their arguments in order.
ORDERED = frozenset(
    {"dict", "enumerate", "filter", "fromkeys", "iter", "join", "list", "map", "next"}
    | {"reduce", "tuple", "zip", "extend", "deque", "array", "bytes"}
)
SET_METHODS = frozenset({"difference", "intersection", "symmetric_difference", "union"})
SET_TYPES = frozenset({"AbstractSet", "FrozenSet", "MutableSet", "Set", "frozenset", "set"})
SET_OPERATORS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)


def name_of(node: ast.AST | None) -> str:
    """The last part of a name, an attribute, or what a call or a subscript is of."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    return node.id if isinstance(node, ast.Name) else ""


class SetOrder(ast.NodeVisitor):
    """Walks one file and keeps the lines that go through a set in its own order."""

    def __init__(self, tree: ast.AST) -> None:
        self.found: list[tuple[int, str]] = []
        self.known: frozenset[str] = frozenset()
        self.known = self._named_sets(tree)
        self.visit(tree)

    def _named_sets(self, tree: ast.AST) -> frozenset[str]:
        """Names and attributes that are sets wherever this file says what they are."""
        sets, others = set(), set()
        for node in ast.walk(tree):
            for name, is_set in self._said(node):
                (sets if is_set else others).add(name)
        return frozenset(sets - others)

    def _said(self, node: ast.AST) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.AnnAssign):
            yield name_of(node.target), self._is_set_type(node.annotation)
        elif isinstance(node, ast.arg) and node.annotation is not None:
            yield node.arg, self._is_set_type(node.annotation)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield name_of(target), self._is_set(node.value)

    @staticmethod
    def _is_set_type(annotation: ast.expr) -> bool:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        parts = [annotation]
        if isinstance(annotation, ast.BinOp):
            parts = [annotation.left, annotation.right]
        return any(name_of(part) in SET_TYPES for part in parts)

    def _is_set(self, node: ast.expr | None) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                return node.func.id in {"set", "frozenset"}
            method = name_of(node.func)
            copied = method == "copy" and self._is_set(getattr(node.func, "value", None))
            return method in SET_METHODS or copied
        if isinstance(node, ast.BinOp) and isinstance(node.op, SET_OPERATORS):
            return any(self._is_set(side) or self._is_keys(side) for side in (node.left, node.right))
        if isinstance(node, ast.IfExp):
            return self._is_set(node.body) or self._is_set(node.orelse)
        return isinstance(node, ast.Name | ast.Attribute) and name_of(node) in self.known

    @staticmethod
    def _is_keys(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and name_of(node.func) in {"keys", "items"}

    def _refuse(self, node: ast.expr, where: str) -> None:
        if self._is_set(node):
            self.found.append((node.lineno, f"{where} goes through {ast.unparse(node)}: sort it"))

    def visit_For(self, node: ast.For) -> None:
        self._refuse(node.iter, "for")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._refuse(node.value, "*")
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._refuse(node.value, "yield from")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Tuple | ast.List) for target in node.targets):
            self._refuse(node.value, "unpacking")
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        for part in node.generators:
            self._refuse(part.iter, "a comprehension")
        self.generic_visit(node)

    visit_DictComp = visit_ListComp  # noqa: N815
    visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        called = name_of(node.func)
        if called in ORDERED:
            for argument in node.args:
                self._refuse(argument, called)
        if called == "pop" and not node.args and isinstance(node.func, ast.Attribute):
            self._refuse(node.func.value, "pop")
        if called in ORDERLESS and isinstance(node.func, ast.Name):
            for argument in node.args:
                self._visit_orderless(argument)
        else:
            self.generic_visit(node)

    def _visit_orderless(self, argument: ast.expr) -> None:
        """A generator inside sorted() may go through a set; what is inside it is still judged."""
        if not isinstance(argument, ast.GeneratorExp | ast.ListComp):
            self.visit(argument)
            return
        self.visit(argument.elt)
        for part in argument.generators:
            self.visit(part)


def set_orders(text: str) -> list[tuple[int, str]]:
    """The lines of *text* that depend on the order of a set."""
    return SetOrder(ast.parse(text)).found


@pytest.mark.parametrize(
    "offence",
    [
        "for x in {1, 2}: f(x)",
        "for x in set(names): f(x)",
        "for x in {n for n in names}: f(x)",
        "xs = [f(x) for x in frozenset(names)]",
        "xs = {x: 1 for x in set(names)}",
        "xs = list({1, 2})",
        "xs = tuple(set(names))",
        "x = next(iter(set(names)))",
        "text = ','.join({a, b})",
        "f(*{1, 2})",
        "xs = [*set(names)]",
        "a, b = {1, 2}",
        "for x in a.keys() & b.keys(): f(x)",
        "for x in set(a) | b: f(x)",
        "for x in a.union(b): f(x)",
        "for i, x in enumerate(set(a)): f(x)",
        "isr = set(a)\nfor x in isr: f(x)",
        "def f(isr: frozenset[int]):\n    return [x for x in isr]",
        "def f(isr: 'set[int] | None'):\n    yield from isr",
        "class A:\n    isr: set[int]\n    def f(self):\n        for x in self.isr: f(x)",
        "isr: set[int] = set()\nx = isr.pop()",
        "xs = sorted([list(set(x)) for x in xs])",
        "d = dict.fromkeys(set(names))",
    ],
)
def test_a_planted_iteration_is_found(offence: str) -> None:
    """Each way to go through a set in its own order is one finding or more."""
    assert set_orders(offence)


@pytest.mark.parametrize(
    "allowed",
    [
        "for x in sorted(set(names)): f(x)",
        "if x in {1, 2}: f(x)",
        "n = len(set(names)) + sum(x for x in set(names)) + max({1, 2})",
        "xs = sorted(f(x) for x in set(names))",
        "both = {x for x in set(names)}",
        "for x in a.keys(): f(x)",
        "for x in [1, 2]: f(x)",
        "for x in a - b: f(x)",
        "rows = [1]\nx = rows.pop()",
        "isr: set[int] = set()\nisr.add(1)\nok = isr <= {1, 2}",
    ],
)
def test_what_does_not_depend_on_order_is_allowed(allowed: str) -> None:
    """Membership, sorting and counting are what sets are for."""
    assert [] == set_orders(allowed)


def test_the_core_goes_through_no_set() -> None:
    """Every file of the core, one finding a line, with the expression that has to be sorted."""
    files = sorted(CORE.rglob("*.py"))

    assert files
    assert [] == [
        f"{path.relative_to(CORE.parent)}:{line}: {what}"
        for path in files
        for line, what in set_orders(path.read_text(encoding="utf-8"))
    ]
