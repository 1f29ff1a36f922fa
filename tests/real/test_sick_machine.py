"""A real process on a sick machine: what clients are told, what goes on, that it heals; nothing is lost.

Most rows of docs/operations.md, "When the machine is sick", are shown here.
"""

import contextlib
import ctypes
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

LOCKED, STORAGE, CORRUPT = 70, 10, 3
KIB = bytes(1024)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def addresses(server):
    """Coordinator and first tablet server."""
    tablets = server.lines[0].split("tablets=")[1].strip().split(",")
    return server.bootstrap_servers, tablets[0]


def until(call, wanted, seconds=15):
    """Call until it returns *wanted*."""
    deadline = time.monotonic() + seconds
    while (got := call()) != wanted:
        assert time.monotonic() < deadline, got
        time.sleep(0.05)


def log_files(folder):
    return sorted(path for path in Path(folder).glob("tablet-*/**/*.log") if path.stat().st_size)


@pytest.fixture
def small_disk():
    """A file system of 3 MiB."""
    with tempfile.TemporaryDirectory(prefix="flussd-small-") as folder:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip(f"cannot mount a small file system: {made.stderr.decode().strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def filled(folder):
    """Take all space of a file system, until the end."""
    filler = folder / "data" / "registry" / ".filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(KIB * 4)
    try:
        yield
    finally:
        filler.unlink()


@as_root
def test_a_full_disk(start_flussd, raw, small_disk):
    """1. No space. 2. Appends and changes are refused with 70, reads go on. 3. Space. 4. Nothing lost."""
    server = start_flussd("--port", 0, "--data-dir", small_disk / "data")
    coordinator, tablet = map(raw, addresses(server))
    assert coordinator.create("t") is None
    table_id = coordinator.table_id("t")
    for n in range(20):
        assert (0, "") == tablet.produce(table_id, b"%03d" % n + KIB)
    with filled(small_disk):
        refused = tablet.produce(table_id, KIB * 64)
        changed = coordinator.create("big", comment="x" * 100_000)
        _, _, during = tablet.fetch(table_id)
        again = tablet.produce(table_id, KIB * 64)
    until(lambda: tablet.produce(table_id, b"after" + KIB), (0, ""))
    until(lambda: coordinator.create("later"), None)
    time.sleep(1)  # it looks twice a second whether there is space
    server.kill()
    status_lines = server.process.stderr.read()
    server = start_flussd("--port", 0, "--data-dir", small_disk / "data")
    coordinator, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(table_id)[0], 0)
    records = tablet.fetch(table_id)[2]

    assert (LOCKED, "cannot write the log: no space left on the disk") == refused == again
    assert LOCKED == changed[0]
    assert "its disk takes no more" in changed[1]
    assert during in records
    assert all(b"%03d" % n + KIB in records for n in range(20))
    assert b"after" + KIB in records
    assert table_id + 1 == coordinator.table_id("later")
    assert "registry: refuses changes cannot make room in log-" in status_lines
    assert "registry: takes changes again" in status_lines


def test_a_file_that_cannot_be_read(start_flussd, raw, tmp_path):
    """1. A segment loses its end behind the server's back. 2. Its bucket alone is in error. 3. It heals."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    coordinator, tablet = map(raw, addresses(server))
    for name in ("sick", "well"):
        coordinator.create(name)
        tablet.produce(coordinator.table_id(name), name.encode() + KIB)
    sick, well = coordinator.table_id("sick"), coordinator.table_id("well")
    (path,) = [path for path in log_files(tmp_path) if b"sick" in path.read_bytes()]
    whole = path.read_bytes()
    os.truncate(path, 100)
    code, text, _ = tablet.fetch(sick)
    others = tablet.fetch(well)
    with path.open("r+b") as file:
        file.write(whole)
    healed = tablet.fetch(sick)
    _, _, err = server.stop()

    assert STORAGE == code
    assert text.endswith(f"at 0: expected {len(whole)} bytes, got 100")
    assert (0, True) == (others[0], b"well" in others[2])
    assert (0, whole) == (healed[0], healed[2])
    assert 1 == err.count("unreadable")


def test_bit_rot(start_flussd, raw, tmp_path):
    """1. A byte of an acknowledged batch flips. 2. The checksum tells. 3. A start says what it cuts."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t")
    table_id = coordinator.table_id("t")
    for n in range(3):
        tablet.produce(table_id, b"%03d" % n + KIB)
    (path,) = log_files(tmp_path)
    data = bytearray(path.read_bytes())
    batch_bytes = len(data) // 3
    data[batch_bytes + 200] ^= 1
    path.write_bytes(data)
    code, _, served = tablet.fetch(table_id)
    server.kill()
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    _, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(table_id)[0], 0)
    left = tablet.fetch(table_id)[2]
    _, _, err = server.stop()

    assert (0, data) == (code, served)  # byte by byte as stored: the checksum is the client's to check
    assert data[:batch_bytes] == left
    assert f"bucket cut batch at {batch_bytes} of buckets/" in err
    assert "expected checksum 0x" in err
    assert "it is damage, for a whole batch follows" in err
    assert f"cut_bytes={2 * batch_bytes}" in err


def obey_permissions():
    """Take root's right to write anywhere away from the process that is about to begin."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


def test_a_directory_that_lost_its_write_permission(start_flussd, raw, tmp_path):
    """1. New files are refused. 2. Appends to open ones go on. 3. A new segment: 10. 4. Healed."""
    options = ("--port", 0, "--data-dir", tmp_path, "-D", "log.segment.file-size=8kb")
    server = start_flussd(*options, preexec_fn=obey_permissions)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t")
    table_id = coordinator.table_id("t")
    assert (0, "") == tablet.produce(table_id, b"first" + KIB)
    (path,) = log_files(tmp_path)
    path.parent.chmod(0o555)
    told = [tablet.produce(table_id, b"%03d" % n + KIB) for n in range(10)]
    read = tablet.fetch(table_id)
    path.parent.chmod(0o755)
    until(lambda: tablet.produce(table_id, b"after" + KIB), (0, ""))
    server.kill()
    server = start_flussd(*options)
    coordinator, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(table_id)[0], 0)
    records = tablet.fetch(table_id, 0)[2] + tablet.fetch(table_id, 7)[2]

    acked = told.count((0, ""))
    assert 0 < acked < 10
    assert {(STORAGE, "cannot write the log: permission denied")} == set(told[acked:])
    assert 0 == read[0]
    assert all(b"%03d" % n + KIB in records for n in range(acked))
    assert b"after" + KIB in records


def test_a_checkpoint_that_cannot_be_written(start_flussd, raw, tmp_path):
    """1. The folder of a bucket takes no files. 2. An orderly stop leaves no checkpoint, and says so."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path, preexec_fn=obey_permissions)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t")
    table_id = coordinator.table_id("t")
    tablet.produce(table_id, KIB)
    (folder,) = {path.parent for path in log_files(tmp_path)}
    folder.chmod(0o555)
    code, _, err = server.stop()
    folder.chmod(0o755)
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    _, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(table_id)[0], 0)

    assert code == 0
    assert 1 == err.count("checkpoint failed cannot write it: permission denied")
    assert KIB in tablet.fetch(table_id)[2]
    server.stop()


def test_a_table_whose_folder_cannot_be_made(start_flussd, raw, tmp_path):
    """1. No folder can be made for a new table's bucket. 2. It has no leader. 3. It gets one later."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path, preexec_fn=obey_permissions)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("old")
    old = coordinator.table_id("old")
    assert (0, "") == tablet.produce(old, KIB)
    (tmp_path / "tablet-0" / "buckets").chmod(0o555)
    assert coordinator.create("new") is None
    new = coordinator.table_id("new")
    during = tablet.produce(new, KIB)
    others = tablet.produce(old, KIB)
    (tmp_path / "tablet-0" / "buckets").chmod(0o755)
    until(lambda: tablet.produce(new, KIB), (0, ""))
    _, _, err = server.stop()

    assert (STORAGE, "cannot write the epoch history: permission denied") == during
    assert (0, "") == others
    assert "bucket troubled" in err


def test_a_log_that_cannot_be_read_at_the_start(start_flussd, raw, tmp_path):
    """1. A killed process left a log that may not be read. 2. Its bucket alone is in trouble. 3. Healed."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    coordinator, tablet = map(raw, addresses(server))
    for name in ("sick", "well"):
        coordinator.create(name)
        tablet.produce(coordinator.table_id(name), name.encode() + KIB)
    sick, well = coordinator.table_id("sick"), coordinator.table_id("well")
    server.kill()
    (path,) = [path for path in log_files(tmp_path) if b"sick" in path.read_bytes()]
    path.chmod(0)
    server = start_flussd("--port", 0, "--data-dir", tmp_path, preexec_fn=obey_permissions)
    _, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(well)[0], 0)
    time.sleep(1)
    told = {tablet.produce(sick, KIB)[0], tablet.fetch(sick)[0]}
    path.chmod(0o644)
    until(lambda: tablet.fetch(sick)[0], 0)
    healed = tablet.fetch(sick)[2]
    _, _, err = server.stop()

    assert {STORAGE} == told
    assert b"sick" + KIB in healed
    assert "bucket troubled" in err
    assert "cannot recover the log: permission denied" in err


def test_bit_rot_in_a_sealed_segment(start_flussd, raw, tmp_path):
    """1. A byte flips in a segment that grows no more. 2. After a start readers get 3, nothing is cut."""
    options = ("--port", 0, "--data-dir", tmp_path, "-D", "log.segment.file-size=8kb")
    server = start_flussd(*options)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t")
    table_id = coordinator.table_id("t")
    for n in range(30):
        assert (0, "") == tablet.produce(table_id, b"%03d" % n + KIB)
    server.stop()
    path = log_files(tmp_path)[1]
    base_offset = int(path.stem)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    server = start_flussd(*options)
    coordinator, tablet = map(raw, addresses(server))
    until(lambda: tablet.fetch(table_id)[0], 0)
    code, text, _ = tablet.fetch(table_id, base_offset)
    last = tablet.fetch(table_id, 29)
    written = tablet.produce(table_id, b"after" + KIB)
    _, _, err = server.stop()

    assert (CORRUPT, True) == (code, "checksum mismatch" in text)
    assert (0, True) == (last[0], b"029" + KIB in last[2])
    assert (0, "") == written
    assert "bucket cut" not in err
    assert "unreadable" in err


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def test_more_connections_than_descriptors(start_flussd, raw, tmp_path):
    """1. 64 descriptors, 100 clients. 2. Those inside are served, the others wait. 3. It heals."""
    server = start_flussd(
        *("--port", 0, "--data-dir", tmp_path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t", buckets=12)  # more files than it may keep open
    table_id = coordinator.table_id("t")
    until(lambda: tablet.produce(table_id, b"0" + KIB, 11), (0, ""))
    with contextlib.ExitStack() as stack:
        host, port = addresses(server)[1].split(":")
        for _ in range(100):
            stack.enter_context(socket.create_connection((host, int(port)), 10))
        before = cpu_seconds(server.process.pid)
        time.sleep(1)
        burned = cpu_seconds(server.process.pid) - before
        told = [tablet.produce(table_id, b"%d" % n + KIB, n % 12) for n in range(24)]
        read = [tablet.fetch(table_id, 0, n)[0] for n in range(12)]
        taken = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    late = raw(addresses(server)[1])
    after = late.fetch(table_id)[0]
    status, _, err = server.stop()

    assert [(0, "")] * 24 == told
    assert [0] * 12 == read
    assert 0 == after
    assert burned < 0.5
    assert taken < 60  # connections left some for files
    assert 0 == status
    assert 0 < err.count("accepts no connections") < 5


@pytest.mark.alone
def test_idle_and_halting_clients_cost_little(start_flussd, raw):
    """1. 1000 clients say nothing, 1000 begin a frame of 100 MiB and halt. 2. Others are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"needs 4096 descriptors, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = start_flussd("--port", 0)
    coordinator, tablet = map(raw, addresses(server))
    coordinator.create("t")
    table_id = coordinator.table_id("t")
    assert (0, "") == tablet.produce(table_id, KIB)
    before = memory_kib(server.process.pid)
    with contextlib.ExitStack() as stack:
        host, port = addresses(server)[1].split(":")
        for n in range(2000):
            client = stack.enter_context(socket.create_connection((host, int(port)), 10))
            if n % 2:
                client.sendall(struct.pack(">I", 100 << 20) + bytes(50))
        assert (0, "") == tablet.produce(table_id, KIB)
        grown = memory_kib(server.process.pid) - before
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    print(f"2000 connections: {grown} KiB, {grown / 2000:.1f} KiB each", file=sys.stderr)
    assert grown < 2000 * 20
    server.stop()
