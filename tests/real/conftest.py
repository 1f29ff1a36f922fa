"""What the tests of pages share: the blocks of a page, and a folder in which its commands run as typed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS = "127.0.0.1:9123"
SERVER = ".venv/bin/flussd local"
SHIMS = {"flussd": "flussd.cli.flussd", "fluss-sim": "flussd.cli.sim"}
# About one process in ten that used pyfluss 1.0.0 died of SIGABRT, SIGSEGV or SIGBUS while the interpreter
# ended (5 of 50; presumably threads of the client outlive it). All is printed by then: these skip that end.
PROGRAM = "import os, runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__'); status = 0"
TESTS = "import os, pytest, sys; status = int(pytest.main(['-p', 'no:cacheprovider', *sys.argv[1:]]))"
LEAVE = "; sys.stdout.flush(); os._exit(status)"
EXITS = re.compile(r"exits with (\d+)")


@attrs.define(eq=False)
class Page:
    """A page of the documents."""

    path: Path

    @property
    def text(self):
        return self.path.read_text(encoding="utf-8")

    def blocks(self, language):
        """The fenced blocks of one language, in the order of the page."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)

    def commands(self):
        """Each line of its sh blocks, with the comment behind it."""
        for line in "".join(self.blocks("sh")).splitlines():
            command, _, comment = line.partition("  #")
            if command.strip():
                yield command.strip(), comment.strip()

    def rows(self, first):
        """The cells of the table whose heading begins with *first*, without their back quotes."""
        found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", self.text, re.MULTILINE)
        return [
            [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            for row in found[1].splitlines()
        ]


@pytest.fixture(scope="session")
def page():
    """A page by its path from the root."""
    return lambda path: Page(ROOT / path)


@attrs.define(eq=False)
class Checkout:
    """A folder in which `.venv/bin/...` is what a checkout has; commands of a page run there."""

    path: Path
    env: dict[str, str]
    start_flussd: object

    def run(self, command, status=0):
        """Run one command of a page to its end; return what it printed."""
        ran = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.path,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert status == ran.returncode, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def run_all(self, page, while_running=lambda _command, _server: None):
        """Run all commands of *page* in order; servers are stopped as by Ctrl-C once they are ready."""
        for command, comment in page.commands():
            if not command.startswith(SERVER) or "&" in command:
                wanted = EXITS.search(comment)
                self.run(command, int(wanted[1]) if wanted else 0)
                continue
            arguments = command.removeprefix(SERVER).split()
            if "--port" not in arguments:
                arguments += ["--port", "0"]
            server = self.start_flussd(*arguments, cwd=self.path)
            while_running(command, server)
            assert (0, "") == server.stop()[::2]


@pytest.fixture
def checkout(tmp_path, child_env, start_flussd):
    """See Checkout."""
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, module in SHIMS.items():
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (commands / name).chmod(0o755)
    yield Checkout(tmp_path, child_env, start_flussd)
    for file in tmp_path.glob("*.pid"):  # of what a command left in the background, if the test failed
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.fixture
def run_snippet(tmp_path, child_env):
    """Run a Python block of a page by itself, with *servers* for its address; return what it printed."""

    def run(snippet, servers=ADDRESS, *, program=PROGRAM, options=()):
        saved = tmp_path / "test_snippet.py"
        saved.write_text(snippet.replace(ADDRESS, servers), encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-c", program + LEAVE, saved, *options],
            cwd=tmp_path,
            env=child_env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert 0 == ran.returncode, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.fixture
def run_tests(run_snippet):
    """Run a Python block of a page as a test file, with the fixtures of an installed flussd."""
    installed = any(found.name == "flussd" for found in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "flussd.testing.pytest_plugin")
    return lambda snippet: run_snippet(snippet, program=TESTS, options=plugin)
