"""Fixtures of all tests: those that flussd gives its users, and whole processes of flussd."""

import asyncio
import contextlib
import inspect
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import fluss
import pytest

from flussd.testing.pytest_plugin import fluss_cluster, fluss_database

__all__ = ["fluss_cluster", "fluss_database"]

SOURCE = Path(__file__).resolve().parent.parent / "src"
SERVERS = os.environ.get("FLUSS_SERVERS")  # of another cluster to run the pyfluss tests against
COMMAND = (sys.executable, "-m", "flussd.cli.flussd")


@pytest.fixture
def child_env():
    """The environment in which a child process finds flussd, installed or not."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    }


@pytest.fixture
def port():
    """The first of three free ports in a row, below those that the system hands out by itself."""
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for n in range(3):
                stack.enter_context(socket.create_server(("127.0.0.1", port + n)))
            return port


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
        # Not communicate(): the reader of the first line holds what came with it.
        out, err = self.process.stdout.read(), self.process.stderr.read()
        return self.process.wait(30), "".join(self.lines) + out, err


@pytest.fixture
def start_flussd(child_env):
    """Start `flussd local` with the given arguments; all of them end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **popen):
            process = subprocess.Popen(
                [*COMMAND, "local", *map(str, arguments)],
                env=child_env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **popen,
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


# ---- the official client -------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is a coroutine in a loop of its own: pyfluss speaks asyncio."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}), 60))
    return True


@attrs.define(eq=False)
class Client:
    """A pyfluss connection, with the few words that most tests need."""

    connection: fluss.FlussConnection
    database: str

    @property
    def admin(self):
        return self.connection.get_admin()

    def path(self, name):
        return fluss.TablePath(self.database, name)

    async def create(self, name, schema, *, buckets=1, primary_keys=None, **descriptor):
        """Create a table, a log table without *primary_keys*, and return it."""
        described = fluss.Schema(schema, primary_keys=primary_keys)
        wanted = fluss.TableDescriptor(described, bucket_count=buckets, **descriptor)
        await self.admin.create_table(self.path(name), wanted)
        return await self.table(name)

    async def table(self, name):
        return await self.connection.get_table(self.path(name))

    async def ends(self, table, spec=None):
        """The latest offset of each bucket, or the one that *spec* asks for."""
        buckets = list(range(table.get_table_info().num_buckets))
        return await self.admin.list_offsets(
            table.get_table_path(), buckets, spec or fluss.OffsetSpec.latest()
        )

    async def arrow(self, table, start=fluss.EARLIEST_OFFSET, scan=None):
        """All rows from offset *start* of each bucket to the present ends."""
        scanner = await (scan or table.new_scan()).create_record_batch_log_scanner()
        buckets = range(table.get_table_info().num_buckets)
        scanner.subscribe_buckets(dict.fromkeys(buckets, start))
        return await scanner.to_arrow()

    async def records(self, scanner, count, timeout_ms=15_000):
        """Poll until *count* records have come, or more."""
        found = []
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        while len(found) < count:
            assert asyncio.get_running_loop().time() < deadline, f"{len(found)} of {count} records came"
            found += list(await scanner.poll(500))
        return found


async def append(table, rows):
    """Append *rows* and wait until all are acknowledged."""
    async with table.new_append().create_writer() as writer:
        for row in rows:
            writer.append(row)


@pytest.fixture
def append_rows():
    """The function that appends rows and waits for their acknowledgement."""
    return append


@pytest.fixture
def connect(request):
    """Connect a pyfluss client: to the session's cluster and a fresh database, or to given ones."""

    @contextlib.asynccontextmanager
    async def connected(servers=None, database=None, config=None):
        if servers is None:
            servers = SERVERS or request.getfixturevalue("fluss_cluster").bootstrap_servers
        database = database or f"db_{secrets.token_hex(4)}"
        settings = {"bootstrap.servers": servers, **(config or {})}
        async with await fluss.FlussConnection.create(fluss.Config(settings)) as connection:
            await connection.get_admin().create_database(database, ignore_if_exists=True)
            yield Client(connection, database)

    return connected
