"""The pages for each kind of user tell the truth: commands and snippets run, tables are complete."""

import asyncio
import re
import socket
import time
import urllib.parse
from pathlib import Path

import fluss
import pyarrow as pa
import pytest

from flussd.core.wire.errors import ErrorCode
from flussd.runtime_real.config import KEYS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
ROWS = pa.schema([pa.field("id", pa.int64())])


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(page, path):
    """Links to files of the repository name files that are there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page(path).text)

    assert [] == [
        link for link in links if not ((ROOT / path).parent / urllib.parse.unquote(link)).exists()
    ]


@pytest.mark.parametrize("path", [path for path in PAGES if path != "README.md"])
def test_every_page_can_be_found(page, path):
    """README links to every page, so that nobody has to list the folder."""
    assert f"]({path})" in page("README.md").text


# ---- testing-with-flussd.md ----------------------------------------------------------------------


def test_a_block_prints_what_the_page_says(page, run_snippet):
    """The first snippet of the page for testers is a program."""
    testing = page("docs/testing-with-flussd.md")

    assert testing.blocks("text")[1] == run_snippet(testing.blocks("python")[0])


@pytest.mark.parametrize("number", [1, 2])
def test_the_tests_of_the_page_pass(page, run_tests, number):
    """The other snippets are test files; the fixtures come from the plugin, as for an installed flussd."""
    snippet = page("docs/testing-with-flussd.md").blocks("python")[number]

    assert "1 passed" in run_tests(snippet)


def test_the_commands_of_the_ci_example(page, checkout):
    """The server starts, says where it is, and ends."""
    testing = page("docs/testing-with-flussd.md")
    *before, kill = [command for command, _ in testing.commands()]
    printed = [checkout.run(command) for command in before]
    host, port = printed[-1].split(":")
    socket.create_connection((host, int(port)), 5).close()
    checkout.run(kill)
    _wait_until_refused(host, int(port))

    assert (ROOT / "pyproject.toml").read_text().count("pyfluss==1.0.0") == 1
    assert 2 == testing.text.count("pyfluss==1.0.0")


def _wait_until_refused(host, port):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), 5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("the server did not end")


# ---- running.md ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_for_those_who_run_it(page, checkout):
    """Every command works, and a data directory has what was there before, a restored one too."""
    seen = []

    def look(command, server):
        found = re.search(r"--data-dir (\S+)", command)
        if found:
            seen.append((found[1], found[1] in _databases(server.bootstrap_servers, found[1])))

    checkout.run_all(page("docs/running.md"), look)

    assert [
        ("data", False),
        ("data", True),
        ("data", True),
        ("shop", False),
        ("restored/shop", True),
    ] == seen


def _databases(servers, folder):
    """The databases that are there, by the name of the folder; one is created for the next look."""

    async def look():
        async with await fluss.FlussConnection.create(fluss.Config({"bootstrap.servers": servers})) as c:
            found = await c.get_admin().list_databases()
            await c.get_admin().create_database(folder.split("/")[-1], ignore_if_exists=True)
            return [folder for name in found if name == folder.split("/")[-1]]

    return asyncio.run(look())


def test_the_options_are_all_on_the_page(page):
    """The table has each key of -D once."""
    assert sorted(KEYS) == [row[0] for row in page("docs/running.md").rows("key")]


@pytest.mark.slow
def test_the_error_messages_are_those_of_the_page(page, run_flussd, start_flussd, tmp_path):
    """Each mistake gives exactly one of the messages, and no row is left over."""
    rows = [row[0] for row in page("docs/running.md").rows("message")]
    patterns = {
        row: re.compile("flussd: " + re.sub(r"\\?\b[A-Z]{2,}\b", "(.+?)", re.escape(row))) for row in rows
    }
    told = {}
    for arguments in _mistakes(start_flussd, tmp_path):
        status, out, err = run_flussd("local", *arguments)
        fitting = [row for row in rows if patterns[row].fullmatch(err.rstrip("\n"))]
        assert (1, "", 1) == (status, out, len(fitting)), err
        told[fitting[0]] = err

    assert rows == [row for row in rows if row in told]


def _mistakes(start_flussd, tmp_path):
    """Arguments of `flussd local`, each wrong in one way."""
    running = start_flussd("--port", 0, "--data-dir", tmp_path / "used", "--tablets", 2)
    (tmp_path / "letter.txt").write_text("dear")
    for name, mark in (("new", '{"format_level": 99, "directory_id": "x", "tablets": 1}'), ("bad", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flussd.json").write_text(mark)
    for path in ("used", ".", "letter.txt", "new", "bad"):
        yield "--port", 0, "--data-dir", tmp_path / path
    yield "--port", 0, "--data-dir", "/sys/flussd-data"
    yield "--port", running.bootstrap_servers.split(":")[1]
    yield "--host", "no.such.host.invalid"
    yield "--advertised-host", "here:9123"
    yield "-D", "log.durabilty=group_fsync"
    yield "-D", "log.durability=none"
    running.stop()
    yield "--port", 0, "--data-dir", tmp_path / "used", "--tablets", 1


# ---- changing-replication.md ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_commands_for_those_who_change_it(page, checkout, run_tests):
    """The simulator is asked, a plan written, run and traced, a mutant caught; the page's plan is one."""
    changing = page("docs/changing-replication.md")
    (plan,), (snippet,) = changing.blocks("toml"), changing.blocks("python")
    checkout.run_all(changing)
    (checkout.path / "own.toml").write_text(plan)
    own = checkout.run(".venv/bin/fluss-sim --plan own.toml")
    failure = (checkout.path / "failure.txt").read_text().splitlines()

    assert "  power             1            1" in own
    assert plan in snippet
    assert "1 passed" in run_tests(snippet)
    assert re.fullmatch(r"repeat: fluss-sim --seed \d+ --mutant ack_before_append", failure[-2])
    assert "verdict=FAILED" in failure[-1]
    assert "acked" in (checkout.path / "story.txt").read_text()


# ---- clients.md ----------------------------------------------------------------------------------


def test_the_client_prints_what_the_page_says(page, fluss_cluster, run_snippet):
    """The Python programs; the Java one is run by test_java_client.py."""
    clients = page("docs/clients.md")

    for program, printed in zip(clients.blocks("python"), clients.blocks("text"), strict=False):
        assert printed == run_snippet(program, fluss_cluster.bootstrap_servers)


def _descriptor(**properties):
    return fluss.TableDescriptor(fluss.Schema(ROWS), bucket_count=1, properties=properties)


async def test_the_codes_are_those_of_the_page(page, connect):
    """Each error of the table is provoked, and has its code; the names are those of Fluss."""
    rows = page("docs/clients.md").rows("code")
    got = []
    async with connect() as client:
        table = await client.create("there", ROWS)
        for call in (
            lambda: client.admin.create_table(fluss.TablePath("nowhere", "t"), _descriptor()),
            lambda: client.admin.drop_database(client.database, cascade=False),
            lambda: client.admin.create_database(client.database),
            lambda: client.table("missing"),
            lambda: client.admin.create_table(client.path("there"), _descriptor()),
            lambda: client.admin.create_table(client.path("a b"), _descriptor()),
            lambda: client.admin.create_table(
                client.path("r"), _descriptor(**{"table.replication.factor": "99"})
            ),
            lambda: client.ends(table, fluss.OffsetSpec.timestamp(int(time.time() * 1000) + 3_600_000)),
            lambda: client.admin.create_table(client.path("o"), _descriptor(**{"table.no.such": "1"})),
            lambda: fluss.FlussConnection.create(fluss.Config({"bootstrap.servers": "127.0.0.1:1"})),
            lambda: client.records(_beyond(table), 1),
        ):
            with pytest.raises(fluss.FlussError) as raised:
                await call()
            got.append(raised.value.error_code)

    assert [int(row[0]) for row in rows] == got
    assert [row[1] for row in rows[:-1]] == [ErrorCode(code).name for code in got[:-1]]
    assert fluss.ErrorCode.CLIENT_ERROR == got[-1]
    assert "The fetching offset 99 is out of range" in str(raised.value)


class _beyond:  # noqa: N801 - stands for a scanner
    """A scanner that was subscribed beyond the end."""

    def __init__(self, table):
        self.table = table

    async def poll(self, timeout_ms):
        scanner = await self.table.new_scan().create_log_scanner()
        scanner.subscribe(0, 99)
        return await scanner.poll(timeout_ms)


async def test_a_dropped_table_under_a_writer(connect):
    """What the page says of flush and of handles: flush is silent, the handle raises."""
    async with connect() as client:
        table = await client.create("gone", ROWS)
        await client.admin.drop_table(client.path("gone"))
        writer = table.new_append().create_writer()
        handle = writer.append([1])
        await writer.flush()

        with pytest.raises(fluss.FlussError) as raised:
            await handle.wait()

    assert fluss.ErrorCode.TABLE_NOT_EXIST == raised.value.error_code


async def test_a_long_poll_is_woken(connect):
    """A row that comes after the first 500 ms of a poll ends it.

    When this passes, take out the sentence of docs/clients.md that warns of it.
    """
    async with connect() as client:
        table = await client.create("late", ROWS)
        scanner = await table.new_scan().create_log_scanner()
        scanner.subscribe(0, 0)
        polling = asyncio.ensure_future(scanner.poll(4000))
        await asyncio.sleep(0.8)
        async with table.new_append().create_writer() as writer:
            writer.append([1])
        found = await polling

    assert 1 == len(list(found))
