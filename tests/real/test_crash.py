"""The end of a process by our own bug, or by a machine that cannot go on: loud, at once, with a report."""

import socket
import subprocess
import sys

import pytest

import flussd.testing
from flussd.core.connections import ConnectionOpened
from flussd.core.tablet.tablet import TabletServer
from flussd.testing.running import ClusterFailed

PLANTED = """
import sys
from flussd.cli.flussd import main
from flussd.core.connections import ConnectionOpened
from flussd.core.machine import Fatal
from flussd.core.registry.registry import RegistryMachine
from flussd.core.tablet.tablet import TabletServer

def broken(self, event):
    assert event.internal, "planted"

if sys.argv[1] == "bug":
    TabletServer.TABLE[ConnectionOpened] = broken
else:
    RegistryMachine.step = lambda self, event, now_ms: [Fatal("the log is\\ndamaged")]
sys.exit(main(sys.argv[2:]))
"""


def test_our_own_bug(child_env, tmp_path):
    """An exception out of a step ends the process with 70 and a report, which is on the disk too."""
    process = subprocess.Popen(
        [sys.executable, "-c", PLANTED, "bug", "local", "--port", "0", "--data-dir", str(tmp_path)],
        env=child_env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    host, port = line.split("tablets=")[1].strip().split(":")
    with socket.create_connection((host, int(port))):
        _, err = process.communicate(timeout=30)
    (report,) = tmp_path.glob("crash-*.txt")

    assert 70 == process.returncode
    assert "AssertionError: planted" in err
    assert "last events of tablet-0" in err
    assert "last events of registry" not in err
    assert "internal=False)" in err.splitlines()[-2]
    assert err.startswith(report.read_text())
    assert str(report) in err


def test_a_node_that_cannot_go_on(child_env, tmp_path):
    """Its text is one line for the user, and the status is 1."""
    ran = subprocess.run(
        [sys.executable, "-c", PLANTED, "fatal", "local", "--port", "0", "--data-dir", str(tmp_path)],
        env=child_env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (1, "", "flussd: registry: the log is damaged\n") == (ran.returncode, ran.stdout, ran.stderr)
    assert [] == list(tmp_path.glob("crash-*"))


def test_a_bug_in_the_test_cluster(monkeypatch, tmp_path):
    """The in-process cluster hands its report to the test, at the next call."""

    def broken(self, event):
        assert event.internal, "planted"

    monkeypatch.setitem(TabletServer.TABLE, ConnectionOpened, broken)

    def use():
        with flussd.testing.cluster(data_dir=tmp_path) as cluster:
            host, port = cluster.tablet_addresses[0].split(":")
            with socket.create_connection((host, int(port))) as client:
                client.recv(1)
            return cluster.bootstrap_servers

    with pytest.raises(ClusterFailed, match="planted"):
        use()
