"""The walls of the house: what the core may import, and which way the arrows point between rooms.

Reads the files and imports none of them, except in the tests that say so.
docs/ARCHITECTURE.md has the rooms; a new module at the root of the core is named in CONTRACT here.
"""

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent

# What decides nothing by itself and reaches nothing outside.
STANDARD = frozenset(
    {"__future__", "abc", "array", "base64", "binascii", "bisect", "calendar", "collections"}
    | {"contextlib", "copy", "datetime", "decimal", "enum", "functools", "hashlib", "heapq", "io"}
    | {"itertools", "json", "keyword", "math", "operator", "re", "string", "struct", "types"}
    | {"typing", "unicodedata", "zlib", "zoneinfo"}
)
THIRD_PARTY = frozenset(
    {"attrs", "crc32c", "google", "lz4", "numpy", "pyarrow", "pyroaring", "zstandard"},
)
# These see the outside, the process or the hash seed.
BANNED_CALLS = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "hash", "id", "input"} | {"open", "print"}
)

# The contract between machines and runtimes: every room may import it.
CONTRACT = frozenset(
    {"ahead", "connections", "files", "limits", "machine", "ports", "ring", "slices", "storage"}
    | {"driver"}
)
# A room imports rooms of its own height or lower; the test of cycles orders those of one height.
HEIGHT = {
    "wire": 0,
    "catalog": 1,
    "log": 1,
    "records": 1,
    "registry": 1,
    "kv": 2,
    "replica": 2,
    "client": 3,
    "coordinator": 3,
    "edge": 3,
    "tablet": 3,
}
CONTRACT_MAY = frozenset({"wire", "records", "registry"})
PACKAGE_MAY = {
    "core": frozenset({"core"}),
    "runtime_real": frozenset({"core", "runtime_real"}),
    "runtime_sim": frozenset({"core", "runtime_sim"}),
    "client": frozenset({"core", "client"}),
    "testing": frozenset({"core", "client", "runtime_real", "runtime_sim", "testing"}),
    "cli": frozenset({"core", "client", "runtime_real", "runtime_sim", "testing", "cli"}),
}


@attrs.frozen
class Import:
    """One import: *where* is the dotted module, *what* the dotted name that it asks for."""

    where: str
    what: str
    line: int
    typing_only: bool = False


def module_of(path: Path) -> str:
    """`core/log/log.py` is `flussd.core.log.log`."""
    parts = path.with_suffix("").parts
    return ".".join(["flussd", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def imports(where: str, text: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import of *text*, inside functions and under TYPE_CHECKING as well."""
    tree = ast.parse(text)
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(where, name.name, node.lineno, node in typing_only)
        elif isinstance(node, ast.ImportFrom):
            start = _start(where, node, is_package=is_package)
            for name in node.names:
                yield Import(where, f"{start}.{name.name}", node.lineno, node in typing_only)


def _start(where: str, node: ast.ImportFrom, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    kept = where.split(".")
    dropped = node.level - is_package
    kept = kept[: len(kept) - dropped]
    return ".".join([*kept, node.module] if node.module else kept)


def all_imports(package: str) -> list[Import]:
    """Every import of every module of one top-level folder."""
    found: list[Import] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        inside = path.relative_to(ROOT)
        text = path.read_text(encoding="utf-8")
        found += imports(module_of(inside), text, is_package=path.stem == "__init__")
    return found


# The rules. Each takes imports and gives what is wrong with them.


def outside(found: list[Import]) -> list[str]:
    """Imports of the core that are neither pure nor our own."""
    return [f"{i.where}:{i.line} imports {i.what}" for i in found if not _is_pure(i)]


def _is_pure(asked: Import) -> bool:
    if asked.what.startswith("google.") and not asked.what.startswith("google.protobuf."):
        return False
    root = asked.what.split(".")[0]
    return root in STANDARD or root in THIRD_PARTY or asked.what.startswith("flussd.core")


def wrong_arrows(found: list[Import]) -> list[str]:
    """Arrows inside the core that point up, or to a place that has no height."""
    wrong = []
    for asked in found:
        start, end = _room(asked.where), _room(asked.what)
        if asked.what.startswith("flussd.core.") and start and not _arrow_ok(start, end):
            wrong.append(f"{asked.where}:{asked.line} ({start}) imports {asked.what} ({end})")
    return wrong


def _room(name: str) -> str:
    parts = name.split(".")
    return parts[2] if parts[:2] == ["flussd", "core"] and len(parts) > 2 else ""


def _arrow_ok(start: str, end: str) -> bool:
    if end in CONTRACT:
        return end != "driver" or start == "driver"
    if start in CONTRACT:
        return end in CONTRACT_MAY or (start == "driver" and end == "edge")
    return start in HEIGHT and end in HEIGHT and HEIGHT[start] >= HEIGHT[end]


def package_arrows(package: str, found: list[Import]) -> list[str]:
    """Arrows between the top-level folders that are not in the table."""
    wrong = []
    for asked in found:
        parts = asked.what.split(".")
        own = parts[0] == "flussd" and len(parts) > 1 and parts[1] != "__version__"
        if own and parts[1] not in PACKAGE_MAY[package]:
            wrong.append(f"{asked.where}:{asked.line} imports {asked.what}")
    return wrong


def room_cycles(found: list[Import]) -> list[str]:
    """Two rooms of which each reaches the other, the contract left out."""
    arrows: dict[str, set[str]] = {room: set() for room in HEIGHT}
    for asked in found:
        start, end = _room(asked.where), _room(asked.what)
        if start in HEIGHT and end in HEIGHT and start != end:
            arrows[start].add(end)
    return cycles(arrows)


def module_cycles(found: list[Import], modules: set[str]) -> list[str]:
    """Modules that import each other when they run, whatever room they are in."""
    arrows: dict[str, set[str]] = {module: set() for module in modules}
    for asked in found:
        if not asked.typing_only and asked.where in modules:
            # `from a.b import c` asks for the module a.b.c if there is one, else for a.b.
            target = asked.what if asked.what in modules else asked.what.rpartition(".")[0]
            if target in modules and target != asked.where:
                arrows[asked.where].add(target)
    return cycles(arrows)


def cycles(arrows: dict[str, set[str]]) -> list[str]:
    """What is left of a graph once everything that imports nothing left is taken away."""
    left = {start: set(ends) for start, ends in arrows.items()}
    for _ in range(len(arrows)):
        done = {start for start, ends in left.items() if not ends}
        if not done:
            break
        left = {start: ends - done for start, ends in left.items() if start not in done}
    return [f"{start} -> {', '.join(sorted(ends))}" for start, ends in sorted(left.items())]


def banned_calls(text: str) -> list[str]:
    """Calls of builtins that reach outside; hash() is allowed where a class defines its own."""
    tree = ast.parse(text)
    defined = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__hash__"
        for child in ast.walk(node)
    }
    return [
        f"{node.lineno}: {node.func.id}()"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in BANNED_CALLS and node not in defined
    ]


# The house as it is.


def test_the_core_imports_only_what_is_pure() -> None:
    """The standard library's pure parts, a few libraries over bytes, and itself."""
    assert [] == outside(all_imports("core"))


def test_the_core_calls_nothing_that_sees_the_outside() -> None:
    """No open, no print, and no hash or id, which change from process to process."""
    found = {
        str(path.relative_to(ROOT)): banned_calls(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "core").rglob("*.py"))
    }

    assert {} == {path: calls for path, calls in found.items() if calls}


def test_arrows_between_rooms_point_down() -> None:
    """edge, tablet, coordinator, client -> replica, kv -> log, records -> wire."""
    assert [] == wrong_arrows(all_imports("core"))


def test_no_two_rooms_import_each_other() -> None:
    """Rooms of one height have an order as well."""
    assert [] == room_cycles(all_imports("core"))


def test_no_modules_of_the_core_import_each_other() -> None:
    """Each module can be read, and loaded, after those that it names."""
    found = all_imports("core")
    modules = {module_of(p.relative_to(ROOT)) for p in (ROOT / "core").rglob("*.py")}

    assert [] == module_cycles(found, modules)


@pytest.mark.parametrize("package", PACKAGE_MAY)
def test_arrows_between_packages_point_down(package: str) -> None:
    """Runtimes know the core and not each other; commands and fixtures know them all."""
    assert [] == package_arrows(package, all_imports(package))


# Every rule finds what is planted.


def planted(where: str, text: str) -> list[Import]:
    return list(imports(where, text))


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import os.path",
        "from random import Random",
        "import trio.lowlevel",
        "from flussd.runtime_real import hub",
        "from flussd import cli",
        "def f():\n    import socket",
        "from google import auth",
        "import importlib.resources",
        "from importlib import resources",
        "from ... import runtime_sim",
    ],
)
def test_a_planted_import_is_found(line: str) -> None:
    """At the top, in a function, by any form of the statement."""
    assert outside(planted("flussd.core.log.log", line))


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("flussd.core.wire.apis", "from flussd.core.records import batch"),
        ("flussd.core.log.log", "from flussd.core.replica.replica import Replica"),
        ("flussd.core.replica.leader", "import flussd.core.tablet.produce"),
        ("flussd.core.tablet.tablet", "from flussd.core import driver"),
        ("flussd.core.ports", "from flussd.core.tablet import tablet"),
        ("flussd.core.ports", "from flussd.core.edge import frames"),
        ("flussd.core.log.log", "from flussd.core.attic import x"),
        ("flussd.core.attic.x", "from flussd.core.wire import apis"),
    ],
)
def test_a_planted_arrow_is_found(where: str, line: str) -> None:
    """Up the heights, into the driver, and to or from a room that has no height."""
    assert wrong_arrows(planted(where, line))


def test_allowed_arrows_are_allowed() -> None:
    """Down the heights, to the contract from anywhere, and from the driver to the edge."""
    allowed = [
        *planted("flussd.core.tablet.tablet", "from flussd.core.replica.replica import Replica"),
        *planted("flussd.core.log.log", "from flussd.core import limits, files"),
        *planted("flussd.core.driver", "from flussd.core.edge import frames"),
    ]

    assert [] == wrong_arrows(allowed)
    assert [] == outside(allowed)


def test_planted_cycles_are_found() -> None:
    """Between two rooms of one height, and between two modules; typing does not count there."""
    there = planted("flussd.core.log.a", "from flussd.core.records import b")
    back = planted("flussd.core.records.b", "from flussd.core.log import a")
    modules = {"flussd.core.log.a", "flussd.core.records.b"}
    hint = planted(
        "flussd.core.records.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flussd.core.log import a",
    )

    assert ["log -> records", "records -> log"] == room_cycles(there + back)
    assert [] == room_cycles(there)
    assert 2 == len(module_cycles(there + back, modules))
    assert [] == module_cycles(there + hint, modules)


def test_planted_packages_are_found() -> None:
    """A runtime that asks for the other one, or for a command."""
    asked = planted("flussd.runtime_real.hub", "from flussd.runtime_sim import world")

    assert package_arrows("runtime_real", asked)
    assert package_arrows("core", planted("flussd.core.log", "import flussd.cli.sim"))
    assert [] == package_arrows("cli", planted("flussd.cli.sim", "from flussd import __version__"))


def test_planted_calls_are_found() -> None:
    """hash() is the one that a reader overlooks: strings hash anew in each process."""
    own = "class A:\n    def __hash__(self):\n        return hash(self.x)\n"

    assert ["1: hash()"] == banned_calls("x = hash('a')\n")
    assert ["1: open()"] == banned_calls("open('f')\n")
    assert [] == banned_calls(own)


# The lint of ruff, and what a server really loads.


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("import time", "TID251"),
        ("from os import path", "TID251"),
        ("import trio.lowlevel", "TID251"),
        ("from flussd.runtime_sim import world", "TID251"),
        ("from datetime import datetime\nx = datetime.now()", "TID251"),
        ("print('x')", "T201"),
    ],
)
def test_the_lint_refuses_a_planted_file(tmp_path: Path, line: str, rule: str) -> None:
    """The two configurations, copied to a tree of one bad file, name the rule that bans it."""
    (tmp_path / "core").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "core" / "ruff.toml", tmp_path / "core")
    (tmp_path / "core" / "planted.py").write_text(f'"""Planted."""\n\n{line}\n')

    ran = _ruff(tmp_path)

    assert 1 == ran.returncode, ran.stderr
    assert f"planted.py:{2 + len(line.splitlines())}" in ran.stdout
    assert rule in ran.stdout


def test_the_lint_allows_what_is_pure(tmp_path: Path) -> None:
    """The same tree with a pure file has no finding, so the test above sees the ban itself."""
    (tmp_path / "core").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "core" / "ruff.toml", tmp_path / "core")
    (tmp_path / "core" / "pure.py").write_text('"""Pure."""\n\nONE = 1\n')

    ran = _ruff(tmp_path)

    assert 0 == ran.returncode, ran.stdout + ran.stderr


def _ruff(tree: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise"]
    return subprocess.run(
        [*command, "core"], cwd=tree, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_server_loads_neither_numpy_nor_pyarrow() -> None:
    """They would cost 100 MB and a quarter of a second at each start; compressors wait for their use."""
    if importlib.util.find_spec("flussd.runtime_real.node") is None:
        pytest.skip("flussd.runtime_real.node does not exist yet")
    code = (
        "import sys; import flussd.runtime_real.node, flussd.cli.flussd; "
        "heavy = {'lz4', 'numpy', 'pandas', 'pyarrow', 'zstandard'}; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    assert "[]" == ran.stdout.strip()
