"""A smoke test with the official Java client: tests/java, built by Maven, against the session's cluster.

Skipped where java or mvn are missing; `-rs` in pyproject.toml makes pytest say so at the end of the run.
A machine whose Maven has no copy of the client yet loads it from Maven Central.
"""

import datetime as dt
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = ROOT / "tests" / "java"
POM = (PROJECT / "pom.xml").read_text(encoding="utf-8")
SOURCES = Path("src") / "main" / "java"
ADDRESS = "127.0.0.1:9123"
CLASSPATH = Path("target") / "classpath.txt"
MVN = ("mvn", "-q", "-B", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={CLASSPATH}")
# Arrow reads memory by its address, which Java 17 allows only when told to.
JAVA = (
    "java",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
UNREACHABLE = re.compile(
    r"Could not (transfer|resolve|find) artifact|Unknown host|Connect(ion)? (timed out|refused)"
)
MISSING = [name for name in ("java", "mvn") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the first build on a machine loads 70 MB
    pytest.mark.skipif(
        bool(MISSING), reason=f"THE JAVA CLIENT IS NOT TESTED: no {' and no '.join(MISSING)} on the PATH"
    ),
]

CREATED = """\
database exists: true
tables: [smoke]
columns: [id, name, score, born]
"""
APPENDED = "appended: 5\n"
SCANNED = """\
0: APPEND_ONLY 0, name 0, 0.0, 2024-01-01T12:00
1: APPEND_ONLY 1, name 1, 0.5, 2024-01-02T12:00
2: APPEND_ONLY 2, name 2, 1.0, 2024-01-03T12:00
3: APPEND_ONLY 3, null, 1.5, 2024-01-04T12:00
4: APPEND_ONLY 4, name 4, 2.0, 2024-01-05T12:00
"""
PROJECTED = """\
0: name 0 of 1 column
1: name 1 of 1 column
2: name 2 of 1 column
3: null of 1 column
4: name 4 of 1 column
"""
DROPPED = """\
tables: []
database exists: false
"""


@pytest.fixture(scope="module")
def java(tmp_path_factory, page, fluss_cluster):
    """Build tests/java and the snippet of docs/clients.md; return what runs one of their classes."""
    built = tmp_path_factory.mktemp("java")
    shutil.copytree(PROJECT, built, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target"))
    (snippet,) = page("docs/clients.md").blocks("java")
    assert 1 == snippet.count(ADDRESS)
    snippet = snippet.replace(ADDRESS, fluss_cluster.bootstrap_servers)
    (built / SOURCES / "Visits.java").write_text(snippet, encoding="utf-8")
    ran = _mvn(built, "-o")
    if ran.returncode != 0:
        ran = _mvn(built)
    if ran.returncode != 0 and UNREACHABLE.search(ran.stdout + ran.stderr):
        pytest.skip("THE JAVA CLIENT IS NOT TESTED: Maven cannot fetch it from where this runs")
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    path = os.pathsep.join([str(built / "target" / "classes"), (built / CLASSPATH).read_text().strip()])

    def run(main, *arguments):
        ran = subprocess.run(
            [*JAVA, "-cp", path, main, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert 0 == ran.returncode, ran.stdout + ran.stderr
        return ran.stdout

    return run


def _mvn(folder, *options):
    return subprocess.run(
        [*MVN, *options], cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture
def database():
    return f"java_{secrets.token_hex(4)}"


def test_the_whole_life_of_a_log_table(java, fluss_cluster, database):
    """It creates, appends, scans, scans one column, lists offsets, drops; each step prints what it saw."""
    steps = ("create", "append", "scan", "project", "offsets", "drop")

    printed = java("Smoke", fluss_cluster.bootstrap_servers, database, *steps)

    assert CREATED + APPENDED + SCANNED + PROJECTED + "offsets: {0=0} to 5\n" + DROPPED == printed


def test_many_batches(java, fluss_cluster, database):
    """More rows than one batch holds come back, all of them, whole and projected."""
    printed = java("Smoke", fluss_cluster.bootstrap_servers, database, "create", "bulk", "append", "count")

    expected = f"{CREATED}appended: 20000\n{APPENDED}scanned: 20005 of 20005\nprojected: 20005 of 20005\n"
    assert expected == printed


async def test_java_and_python_read_each_other(java, fluss_cluster, connect, database):
    """Rows of both clients lie in one table, and each client reads the other's."""
    servers = fluss_cluster.bootstrap_servers
    java("Smoke", servers, database, "create", "append")
    async with connect(database=database) as client:
        table = await client.table("smoke")
        found = (await client.arrow(table)).to_pylist()
        rows = [{**found[-1], "id": 5, "name": "from python", "score": -1.0}]
        async with table.new_append().create_writer() as writer:
            writer.write_arrow_batch(
                pa.RecordBatch.from_pylist(rows, schema=(await client.arrow(table)).schema)
            )
    printed = java("Smoke", servers, database, "scan")

    noon = dt.datetime(2024, 1, 5, 12)  # noqa: DTZ001 - a TIMESTAMP without a zone
    assert {"id": 4, "name": "name 4", "score": 2.0, "born": noon} == found[4]
    assert ["name 0", "name 1", "name 2", None, "name 4"] == [row["name"] for row in found]
    assert SCANNED + "5: APPEND_ONLY 5, from python, -1.0, 2024-01-05T12:00\n" == printed


def test_the_snippet_of_the_page(java, page):
    """The program of docs/clients.md prints what the page says, and names the version tested here."""
    clients = page("docs/clients.md")
    version = re.search(r"<artifactId>fluss-client</artifactId>\s+<version>(.+)</version>", POM)[1]

    assert clients.blocks("text")[-1] == java("Visits")
    assert f"`org.apache.fluss:fluss-client:{version}`" in clients.text
