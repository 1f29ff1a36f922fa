"""What tests share: the blocks of a page, a folder in which its commands run as typed, and a raw client."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pytest

from flussd.core.edge.frames import request_frame, split_response
from flussd.core.records.batch import build_batch
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

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


# ---- a client that tries once ----------------------------------------------------------------------

TABLE = {
    "version": 1,
    "schema": {
        "version": 1,
        "columns": [{"name": "id", "data_type": {"type": "BIGINT"}, "id": 0}],
        "highest_field_id": 0,
    },
    "partition_key": [],
    "bucket_count": 1,
    "properties": {},
    "custom_properties": {},
}


class RawClient:
    """Ask with `ask`; errors of whole requests come back as (code, text)."""

    def __init__(self, address, timeout_s=10):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.number = 0

    def close(self):
        self.socket.close()

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the server closed")
            data += more
        return data

    def ask(self, api_key, message):
        """Send one request and return its answer."""
        self.number += 1
        self.socket.sendall(request_frame(api_key, 0, self.number, message.SerializeToString()))
        (length,) = struct.unpack(">I", self._exactly(4))
        kind, number, body = split_response(memoryview(bytearray(self._exactly(length))))
        assert number == self.number
        if kind == 0:
            answer = messages.response_class(api_key)()
            answer.ParseFromString(bytes(body))
            return answer
        error = messages.ErrorResponse()
        error.ParseFromString(bytes(body))
        return error.error_code, error.error_message

    def create(self, name, buckets=1, comment=""):
        """Create a table in the database that every cluster has; None, or (code, text)."""
        wanted = json.dumps({**TABLE, "bucket_count": buckets, "comment": comment}).encode()
        request = messages.CreateTableRequest(table_json=wanted, ignore_if_exists=False)
        request.table_path.database_name, request.table_path.table_name = "fluss", name
        answer = self.ask(ApiKey.CREATE_TABLE, request)
        return answer if isinstance(answer, tuple) else None

    def table_id(self, name):
        """The id of a table."""
        request = messages.GetTableInfoRequest()
        request.table_path.database_name, request.table_path.table_name = "fluss", name
        return self.ask(ApiKey.GET_TABLE_INFO, request).table_id

    def produce(self, table_id, text, bucket=0):
        """Append one batch; return (code, text), with code 0 when it is acknowledged."""
        request = messages.ProduceLogRequest(acks=-1, table_id=table_id, timeout_ms=5_000)
        request.buckets_req.add(bucket_id=bucket, records=build_batch(text, record_count=1))
        answer = self.ask(ApiKey.PRODUCE_LOG, request)
        if isinstance(answer, tuple):
            return answer
        (one,) = answer.buckets_resp
        return one.error_code, one.error_message

    def fetch(self, table_id, offset=0, bucket=0):
        """Read from an offset; return (code, text, bytes)."""
        request = messages.FetchLogRequest(follower_server_id=-1, max_bytes=1 << 24)
        table = request.tables_req.add(table_id=table_id, projection_pushdown_enabled=False)
        table.buckets_req.add(bucket_id=bucket, fetch_offset=offset, max_fetch_bytes=1 << 24)
        answer = self.ask(ApiKey.FETCH_LOG, request)
        if isinstance(answer, tuple):
            return (*answer, b"")
        ((one,),) = [table.buckets_resp for table in answer.tables_resp]
        return one.error_code, one.error_message, one.records


@pytest.fixture
def raw():
    """Connect a RawClient to an address; all of them are closed with the test."""
    with contextlib.ExitStack() as stack:

        def connected(address):
            client = RawClient(address)
            stack.callback(client.close)
            return client

        yield connected
