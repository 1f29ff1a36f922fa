"""Fixtures of all tests: those that flussd gives its users, and whole processes of flussd."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from flussd.testing.pytest_plugin import fluss_cluster, fluss_database

__all__ = ["fluss_cluster", "fluss_database"]

SOURCE = Path(__file__).resolve().parent.parent / "src"
COMMAND = (sys.executable, "-m", "flussd.cli.flussd")


@pytest.fixture
def child_env():
    """The environment in which a child process finds flussd, installed or not."""
    return os.environ | {"PYTHONPATH": str(SOURCE)}


@attrs.define(eq=False)
class Server:
    """A `flussd local` in a process of its own."""

    process: subprocess.Popen
    lines: list[str]

    @property
    def bootstrap_servers(self):
        return re.search(r"bootstrap\.servers=(\S+)", self.lines[0])[1]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, number=signal.SIGTERM):
        """Stop it in order; return its exit status and what it printed from the ready line on."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, "".join(self.lines) + out, err


@pytest.fixture
def start_flussd(child_env):
    """Start `flussd local` with the given arguments; all of them end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen(
                [*COMMAND, "local", *map(str, arguments)],
                env=child_env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(_end, process)
            first = process.stdout.readline()
            if not first.startswith("flussd ready"):
                out, err = process.communicate(timeout=30)
                raise AssertionError(f"not ready: {first}{out}{err}")
            return Server(process, [first])

        yield start


def _end(process):
    if process.poll() is None:
        process.kill()
        process.wait()
    process.stdout.close()
    process.stderr.close()


@pytest.fixture
def run_flussd(child_env):
    """Run `flussd` to its end; return exit status, standard output, standard error."""

    def run(*arguments, **popen):
        ran = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=child_env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **popen,
        )
        return ran.returncode, ran.stdout, ran.stderr

    return run
