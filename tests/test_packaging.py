"""The wheel works without the repository, and puts nothing but flussd into site-packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flussd

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("core", "runtime_real", "runtime_sim", "client", "cli", "testing", "src")
FILES = ("pyproject.toml", "README.md", "LICENSE")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """What *command* printed; its errors are in the message when it fails."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONOPTIMIZE"}}
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that no build product of the tree leaks into it."""
    copy = tmp_path_factory.mktemp("tree")
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "-q")
    run(*pip, "--wheel-dir", out, ".", cwd=copy)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """Every name in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_every_module_is_in_the_wheel(names: list[str]) -> None:
    """The links of src/flussd were followed, and no sub-package was forgotten."""
    expected = {
        f"flussd/{path.relative_to(ROOT)}"
        for room in SOURCES
        if room != "src"
        for path in (ROOT / room).rglob("*.py")
    }

    assert {"flussd/core/wire/errors.py", "flussd/cli/__init__.py"} <= expected
    assert set() == expected - set(names)


def test_data_files_are_in_the_wheel(names: list[str]) -> None:
    """The stubs of the generated classes, the mark of a typed package, and the license."""
    expected = [f"flussd/{path.relative_to(ROOT)}" for path in (ROOT / "core").rglob("*.pyi")]

    assert "flussd/core/wire/messages.pyi" in expected
    assert [] == [name for name in ["flussd/py.typed", *expected] if name not in names]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_nothing_else_is_in_the_wheel(names: list[str]) -> None:
    """No top-level `core`, `cli` or `tests` that would shadow somebody's own."""
    roots = {name.split("/")[0] for name in names}

    assert {"flussd", f"flussd-{flussd.__version__}.dist-info"} == roots
    assert [] == [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """Both commands say their version from an empty folder, with flussd from the wheel.

    1. A fresh environment borrows the libraries of this one by a .pth file, so nothing is fetched.
    2. The wheel is installed without its dependencies; it comes before the borrowed flussd.
    3. `flussd --version` and `fluss-sim --version` answer, and flussd lies in the fresh environment.
    """
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=tmp_path)
    (site,) = fresh.glob("lib/python*/site-packages")
    for_new = ("--prefix", fresh, "--no-deps", "--no-index", "--ignore-installed", "-q")
    run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *for_new, wheel, cwd=tmp_path
    )
    (borrowed,) = {p for p in map(Path, sys.path) if (p / "attrs").is_dir()}
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    empty = tmp_path / "empty"
    empty.mkdir()

    where = run(fresh / "bin/python", "-c", "import flussd.core; print(flussd.core.__file__)", cwd=empty)

    assert Path(where.strip()).is_relative_to(fresh)
    for command in ("flussd", "fluss-sim"):
        said = run(fresh / "bin/python", fresh / "bin" / command, "--version", cwd=empty)
        assert flussd.__version__ in said
