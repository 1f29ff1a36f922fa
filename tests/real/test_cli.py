"""The command line: what it teaches, and that every mistake is one clear line and changes nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey

DATA_FILES = {"flussd.json", "flussd.lock", "registry", "coordinator", "tablet-0"}


def snapshot(folder: Path):
    """Everything below *folder* with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(ran, *words):
    """Assert that a run ended with one line for the user that holds all *words*."""
    status, out, err = ran

    assert (1, "") == (status, out)
    assert err.startswith("flussd: ")
    assert 1 == err.count("\n"), err
    for word in words:
        assert str(word) in err


@pytest.fixture
def taken_port():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


# ---- what it says --------------------------------------------------------------------------------


def test_version(run_flussd):
    """`--version` prints name and number."""
    status, out, err = run_flussd("--version")

    assert (0, "") == (status, err)
    assert re.fullmatch(r"flussd \d+\.\d+\.\d+\n", out)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("local", "--help")])
def test_help_teaches(run_flussd, arguments):
    """Help shows examples that can be typed, and the keys of -D."""
    status, out, err = run_flussd(*arguments)

    assert (0, "") == (status, err)
    assert "flussd local --port 0 --tablets 3" in out
    if arguments == ("local", "--help"):
        assert "log.segment.file-size" in out


# ---- typos ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("loacl",), ("loacl", "did you mean local?")),
        (("serve-everything",), ("no such command: serve-everything",)),
        (("--versoin",), ("--versoin", "did you mean --version?")),
        (("local", "--prot", "9123"), ("--prot", "did you mean --port?")),
        (("local", "--port", "x"), ("--port", "'x'")),
        (("local", "--port", "70000"), ("--port", "70000")),
        (("local", "--port"), ("--port",)),
        (("local", "--tablets", "0"), ("--tablets", "0")),
        (("local", "surplus"), ("surplus",)),
        (("local", "-D", "log.segment.file-szie=1mb"), ("did you mean log.segment.file-size?",)),
        (("local", "-D", "log.segment.file-size"), ("expected key=value",)),
        (("local", "-D", "log.segment.file-size=big"), ("expected a size", "'big'")),
        (("local", "-D", "log.durability=none"), ("expected page_cache or group_fsync", "'none'")),
        (("local", "-D", "default.bucket.number=0"), ("expected a whole number from 1", "'0'")),
        (("local", "--host", "no.such.host.invalid"), ("--host no.such.host.invalid",)),
        (
            ("local", "--advertised-host", "here:9123"),
            ("--advertised-host", "without a port", "'here:9123'"),
        ),
        (("local", "--advertised-host", "0.0.0.0"), ("--advertised-host", "'0.0.0.0'")),
        (("local", "--port", "65535", "--tablets", "3"), ("--port 65535", "65535")),
    ],
)
def test_a_typo_is_one_line(run_flussd, tmp_path, arguments, words):
    """A wrong command, option, key or value is named, with the right one where it is near."""
    refused(run_flussd(*arguments, cwd=tmp_path), *words)

    assert [] == list(tmp_path.iterdir())


def test_optimised_python_is_refused(run_flussd, child_env):
    """Assertions guard the data; without them the server does not start."""
    child_env["PYTHONOPTIMIZE"] = "1"

    refused(run_flussd("local"), "python -O")


# ---- ports ---------------------------------------------------------------------------------------


def test_a_port_in_use(run_flussd, tmp_path, taken_port):
    """The coordinator's port is taken: it is named, and so is the way out."""
    ran = run_flussd("local", "--port", taken_port, "--data-dir", tmp_path / "data")

    refused(ran, f"port {taken_port} of 127.0.0.1", "coordinator", "in use", "--port 0")


def test_a_port_of_a_tablet_server_in_use(run_flussd, port):
    """The ports after P are needed too, and the one that is taken is named."""
    with socket.create_server(("127.0.0.1", port + 1)):
        ran = run_flussd("local", "--port", port)

    refused(ran, f"port {port + 1} of", "tablet server 0", "in use")


# ---- data directories ----------------------------------------------------------------------------


def test_a_foreign_directory(run_flussd, tmp_path):
    """A directory with other things in it is not ours to fill."""
    (tmp_path / "letter.txt").write_text("dear")
    before = snapshot(tmp_path)

    refused(
        run_flussd("local", "--port", 0, "--data-dir", tmp_path), tmp_path, "letter.txt", "no flussd.json"
    )
    assert before == snapshot(tmp_path)


def test_a_file_for_a_directory(run_flussd, tmp_path):
    """A file, or a path below a file, is named."""
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        refused(run_flussd("local", "--port", 0, "--data-dir", path), path, "got a file")
    assert {"file": b"x"} == snapshot(tmp_path)


def test_an_unwritable_directory(run_flussd, tmp_path):
    """Where nothing may be written, the system's reason is told."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    path = Path("/sys/flussd-data") if os.geteuid() == 0 else folder  # root may write anywhere else

    refused(run_flussd("local", "--port", 0, "--data-dir", path), f"cannot write to data directory {path}")


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"format_level": "one"}', '{"format_level": 1}'])
def test_a_damaged_mark(run_flussd, tmp_path, mark):
    """A mark that cannot be read is not guessed at."""
    (tmp_path / "flussd.json").write_text(mark)
    before = snapshot(tmp_path)

    refused(run_flussd("local", "--port", 0, "--data-dir", tmp_path), "flussd.json", "damaged")
    assert before == snapshot(tmp_path)


# ---- whole runs ----------------------------------------------------------------------------------


def test_another_version(run_flussd, start_flussd, tmp_path):
    """A directory that a newer flussd wrote is left alone."""
    start_flussd("--port", 0, "--data-dir", tmp_path).stop()
    mark = json.loads((tmp_path / "flussd.json").read_text())
    mark["format_level"] += 1
    (tmp_path / "flussd.json").write_text(json.dumps(mark))
    before = snapshot(tmp_path)

    refused(run_flussd("local", "--port", 0, "--data-dir", tmp_path), "newer flussd", "got 2")
    assert before == snapshot(tmp_path)


def test_a_directory_in_use(run_flussd, start_flussd, tmp_path):
    """The second process names the first one, which goes on."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)

    ran = run_flussd("local", "--port", 0, "--data-dir", tmp_path)

    refused(ran, f"data directory {tmp_path} is in use by process {server.process.pid}")
    assert 0 == server.stop()[0]


def test_a_killed_process_leaves_no_lock(start_flussd, tmp_path):
    """The lock is the process's, not the file's."""
    start_flussd("--port", 0, "--data-dir", tmp_path).kill()

    assert 0 == start_flussd("--port", 0, "--data-dir", tmp_path).stop()[0]


def test_fewer_tablet_servers_than_before(run_flussd, start_flussd, tmp_path):
    """Their buckets would be gone; without a number as many start as there were."""
    start_flussd("--port", 0, "--data-dir", tmp_path, "--tablets", 2).stop()

    ran = run_flussd("local", "--port", 0, "--data-dir", tmp_path, "--tablets", 1)
    server = start_flussd("--port", 0, "--data-dir", tmp_path)

    refused(ran, "the buckets of 2 tablet servers, got --tablets 1")
    assert 2 == server.lines[0].split("tablets=")[1].count(":")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_stop(start_flussd, tmp_path, number):
    """Both signals end it with status 0 and without a word of complaint; the data is in its folders."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path / "data")
    status, out, err = server.stop(number)

    assert (0, "") == (status, err)
    assert "bootstrap.servers" in out
    assert "page_cache: a killed process loses nothing" in out
    assert DATA_FILES == {path.name for path in (tmp_path / "data").iterdir()}


def test_a_temporary_directory_goes_away(start_flussd, child_env, tmp_path):
    """Without --data-dir nothing is left behind after an orderly stop."""
    child_env["TMPDIR"] = str(tmp_path)
    server = start_flussd("--port", 0)
    during = list(tmp_path.iterdir())
    server.stop()

    assert 1 == len(during)
    assert [] == list(tmp_path.iterdir())


def test_ports_follow_each_other(start_flussd, port):
    """With port P the tablet servers are at P + 1 and on."""
    server = start_flussd("--port", port, "--tablets", 2)

    assert (
        f"flussd ready bootstrap.servers=127.0.0.1:{port}"
        f" tablets=127.0.0.1:{port + 1},127.0.0.1:{port + 2}\n" == server.lines[0]
    )


@pytest.mark.alone
def test_it_is_ready_within_a_second_and_small(start_flussd, child_env, tmp_path):
    """Ready within 1 s of the start of the process (best of six), and under 150 MB when idle.

    Modules are compiled once, as an installation does it, whatever this environment says of that.
    A machine on which Python and trio alone take more than 250 ms to load, just then, is given more in
    proportion: some change their speed by half within a second.
    """
    child_env.pop("PYTHONDONTWRITEBYTECODE", None)
    child_env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    times_ms, bare_ms = [], []
    for _ in range(6):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", "import attrs, trio"], check=True, env=child_env)
        bare_ms.append(int((time.monotonic() - begun) * 1000))
        begun = time.monotonic()
        server = start_flussd("--port", 0)
        times_ms.append(int((time.monotonic() - begun) * 1000))
        resident = Path(f"/proc/{server.process.pid}/status").read_text()
        server.kill()
    resident_mb = int(re.search(r"VmRSS:\s+(\d+)", resident)[1]) // 1024

    print(f"ready after {times_ms} ms, {resident_mb} MB resident, bare {bare_ms} ms", file=sys.stderr)
    pairs = list(zip(times_ms, bare_ms, strict=True))[1:]  # the first one compiles
    assert min(ready / max(1, bare / 250) for ready, bare in pairs) < 1000
    assert resident_mb < 150


def test_the_server_loads_nothing_heavy(child_env, run_flussd):
    """pyarrow, numpy, pandas and rich cost 100 MB and 250 ms; only tests and tools may load them."""
    code = (
        "import sys, flussd.cli.serve; "
        "print(sorted({'pyarrow', 'numpy', 'pandas', 'rich', 'asyncio'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=child_env, capture_output=True, text=True, check=True
    )

    assert "[]\n" == ran.stdout


def test_clients_are_told_another_name(start_flussd, raw):
    """In a container the address to listen on is not the one by which clients come."""
    server = start_flussd("--port", 0, "--advertised-host", "somewhere.example")
    coordinator, port = server.bootstrap_servers.split(":")
    answer = raw(f"127.0.0.1:{port}").ask(ApiKey.GET_METADATA, messages.MetadataRequest())
    servers = [answer.coordinator_server, *answer.tablet_servers]

    assert "somewhere.example" == coordinator
    assert [f"somewhere.example:{one.port}" for one in servers] == [
        f"{one.host}:{one.port}" for one in servers
    ]
    assert [int(port)] == [servers[0].port]
    assert server.lines[0].rstrip().endswith(f"tablets=somewhere.example:{servers[1].port}")
