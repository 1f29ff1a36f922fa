"""The rules of style that no linter knows, as tests over every file of the repository.

Each check is a function from text to findings, so that a planted offence shows that it can fail.
It must never import what it reads: a file that does not import is judged as well.
The order of sets has a file of its own, test_set_order.py.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "runtime_real", "runtime_sim", "client", "cli", "testing", "src/flussd")
TRIALS = ("tests", "fuzz", "bench")
PAGES = ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", ".ci/run", ".ci/venv")

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
BAD_STEMS = frozenset({"base", "common", "helper", "helpers", "misc", "util", "utils"})
# Times, sizes and positions are integers everywhere in the core.
INTEGER_UNITS = ("_ms", "_us", "_ns", "_bytes", "_count", "_offset", "_epoch", "_id", "_position")
# Spelled backwards, so that this file does not find itself.
MARKS = tuple(mark[::-1] for mark in ("ODOT", "EMXIF", "KCAH"))
UNFINISHED = re.compile(rf"\b({'|'.join(MARKS)})\b(?!\((?:issue |#)\d+\))")

Finding = tuple[int, str]
Check = Callable[[str], Iterator[Finding]]


def sources(*roots: str) -> list[Path]:
    """Every Python file under *roots*, without following the links of src/flussd."""
    found = []
    for root in roots:
        for path in sorted((ROOT / root).rglob("*.py")):
            under_link = any((ROOT / root / p).is_symlink() for p in _parents(path, ROOT / root))
            foreign = "__pycache__" in path.parts or "tools" in path.parts  # tests/data/tools is handed out
            if not under_link and not foreign:
                found.append(path)
    return found


def _parents(path: Path, root: Path) -> list[Path]:
    return [p for p in path.relative_to(root).parents if p != Path()]


def judge(check: Check, paths: list[Path]) -> list[str]:
    """All that *check* finds in *paths*, as `file:line: what`."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in paths
        for line, what in check(path.read_text(encoding="utf-8"))
    ]


# The checks, text in, findings out.


def long_file(text: str) -> Iterator[Finding]:
    count = text.count("\n")
    if count > FILE_LINES_MAX:
        yield count, f"the file has {count} lines, at most {FILE_LINES_MAX} are allowed"


def long_functions(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_LINES_MAX:
                yield (
                    node.lineno,
                    f"{node.name} has {count} lines, at most {FUNCTION_LINES_MAX} are allowed",
                )


def missing_docstring(text: str) -> Iterator[Finding]:
    if not ast.get_docstring(ast.parse(text)):
        yield 1, "the module has no docstring"


def unfinished(text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield number, f"{found[1]} names no issue, as in {found[1]}(issue 12)"


def loose_ends(text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "white space at the end of the line"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield text.count("\n"), "the file does not end with exactly one newline"


def broad_except(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in named:
                if kind is None or _last_name(kind) in {"Exception", "BaseException"}:
                    yield node.lineno, "the core catches no bare Exception: name the reaction"


def float_units(text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        for name, value in _bindings(node):
            if name.lower().endswith(INTEGER_UNITS) and _is_float(value):
                yield value.lineno, f"{name} is an integer, got {ast.unparse(value)}"


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that *node* gives a value or an annotation."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield _last_name(target), node.value
    elif isinstance(node, ast.AnnAssign):
        yield _last_name(node.target), node.annotation
        if node.value is not None:
            yield _last_name(node.target), node.value
    elif isinstance(node, ast.AugAssign):
        yield (
            _last_name(node.target),
            ast.BinOp(node.target, node.op, node.value, lineno=node.lineno),
        )
    elif isinstance(node, ast.NamedExpr):
        yield node.target.id, node.value
    elif isinstance(node, ast.keyword) and node.arg is not None:
        yield node.arg, node.value
    elif isinstance(node, ast.arg) and node.annotation is not None:
        yield node.arg, node.annotation
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        given = positional[len(positional) - len(node.defaults) :]
        yield from ((a.arg, d) for a, d in zip(given, node.defaults, strict=True))
        pairs = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        yield from ((a.arg, d) for a, d in pairs if d is not None)


def _is_float(value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return isinstance(value.value, float)
    if isinstance(value, ast.BinOp):
        divided = isinstance(value.op, ast.Div)
        return divided or _is_float(value.left) or _is_float(value.right)
    if isinstance(value, ast.UnaryOp):
        return _is_float(value.operand)
    if isinstance(value, ast.Call):
        return _last_name(value.func) == "float"
    return _last_name(value) == "float"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


# What each check judges, and an offence that it must find.

EVERYWHERE = (*ROOMS, *TRIALS)
CHECKS: dict[str, tuple[Check, tuple[str, ...], list[str], str]] = {
    "long_file": (long_file, EVERYWHERE, ["x = 1\n" * 501], "x = 1\n" * 500),
    "long_functions": (
        long_functions,
        EVERYWHERE,
        ["def f():\n" + "    x = 1\n" * 70, "async def f():\n" + "    x = 1\n" * 70],
        "def f():\n" + "    x = 1\n" * 69,
    ),
    "missing_docstring": (missing_docstring, EVERYWHERE, ["", "import os\n"], '"""It."""\n'),
    "unfinished": (
        unfinished,
        EVERYWHERE,
        [f'"""{mark}."""\n# {mark}: later\n' for mark in MARKS],
        f"# {MARKS[0]}(issue 12): fsync the directory.\n# {MARKS[1]}(#7)\n{MARKS[0]}S = 1\n",
    ),
    "loose_ends": (
        loose_ends,
        EVERYWHERE,
        ["x = 1 \n", "x = 1\t\n", "x = 1", "x = 1\n\n"],
        "x = 1\n\ny = 2\n",
    ),
    "broad_except": (
        broad_except,
        ("core",),
        [
            "try:\n    f()\nexcept:\n    pass\n",
            "try:\n    f()\nexcept Exception:\n    pass\n",
            "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    pass\n",
        ],
        "try:\n    f()\nexcept (ValueError, KeyError):\n    pass\n",
    ),
    "float_units": (
        float_units,
        ("core",),
        [
            "linger_ms = 1.5\n",
            "LINGER_MS: Final = 5e3\n",
            "self.lag_ms = a / b\n",
            "batch_bytes: float = f()\n",
            "f(wait_ms=2 * 0.5)\n",
            "def f(wait_ms=-1.0): pass\n",
            "def f(*, wait_ms: float): pass\n",
            "segment_count = float(text)\n",
            "wait_ms /= 2\n",
        ],
        "linger_ms = 1_500\nratio = 0.5\nwait_ms = a // b\nwait_ms //= 2\nf(wait_ms=3)\n",
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_repository_is_tidy(name: str) -> None:
    """No file breaks the rule; the message says which, where, and what is allowed."""
    check, roots, _, _ = CHECKS[name]

    assert [] == judge(check, sources(*roots))


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_can_fail(name: str) -> None:
    """A planted offence is found once or more, and what is allowed is not found at all."""
    check, _, offences, allowed = CHECKS[name]

    for offence in offences:
        assert list(check(offence)), f"not found: {offence!r}"
    assert [] == list(check(allowed))


def bad_names(paths: list[Path]) -> list[str]:
    """Names that say nothing about what is in the file or folder."""
    named = [(path, {path.stem, *_folders(path)}) for path in paths]
    return [str(path) for path, stems in named if stems & BAD_STEMS]


def _folders(path: Path) -> tuple[str, ...]:
    inside = path.relative_to(ROOT) if path.is_absolute() else path
    return inside.parent.parts


def test_names_say_what_is_inside() -> None:
    """A file is named by a noun of its own; the planted ones are found."""
    planted = [Path("core/utils.py"), Path("core/common/x.py"), Path("core/log/segment.py")]

    assert ["core/utils.py", "core/common/x.py"] == bad_names(planted)
    assert [] == bad_names(sources(*EVERYWHERE))


def test_pages_end_their_lines() -> None:
    """Documents and build files have no white space at line ends, and one newline at the end."""
    pages = [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))

    assert [] == judge(loose_ends, pages)


def test_the_walk_sees_every_room() -> None:
    """The checks read the files that they claim to read, and read none of them twice."""
    seen = [str(path.relative_to(ROOT)) for path in sources(*EVERYWHERE)]

    assert len(set(seen)) == len(seen)
    for some in ("core/wire/errors.py", "src/flussd/__init__.py", "tests/test_tidy.py"):
        assert some in seen
    assert not [path for path in seen if path.startswith("src/flussd/core")]
