"""A cluster of the Java server to compare with: ZooKeeper, a coordinator and one tablet server.

    python bench/java_peer.py [--dir DIR]       prints `java ready bootstrap.servers=HOST:PORT`

Needs `java` (11 or later) and `mvn`, which fetches the released server once, 86 MB, from Maven Central into
~/.cache. ZooKeeper is the one inside of that jar. All settings are the defaults but addresses and folders.
Ends with SIGTERM; its children die with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import attrs

VERSION = "0.9.1-incubating"
JARS = (
    f"org.apache.fluss:fluss-server:{VERSION}",
    "org.slf4j:slf4j-api:1.7.36",
    "org.slf4j:slf4j-simple:1.7.36",
)
ZOOKEEPER = "org.apache.fluss.shaded.zookeeper3.org.apache.zookeeper.server.ZooKeeperServerMain"
COORDINATOR = "org.apache.fluss.server.coordinator.CoordinatorServer"
TABLET = "org.apache.fluss.server.tablet.TabletServer"
JAVA = (
    "java",
    "-XX:+UseG1GC",
    # Arrow looks into these, which Java 17 allows only when told to.
    *(f"--add-opens=java.base/java.{part}=ALL-UNNAMED" for part in ("nio", "lang", "util")),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dzookeeper.admin.enableServer=false",
)
HOST = "127.0.0.1"
PORT_SECONDS = 60


def class_path(folder: Path) -> str:
    """Return the class path of the released server, fetched into *folder* if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for artifact in JARS:
        _, name, version = artifact.split(":")
        if not (folder / f"{name}-{version}.jar").exists():
            subprocess.run(
                [
                    "mvn",
                    "-q",
                    "-B",
                    "dependency:copy",
                    f"-Dartifact={artifact}",
                    f"-DoutputDirectory={folder}",
                ],
                check=True,
            )
    return os.pathsep.join(str(jar) for jar in sorted(folder.glob("*.jar")))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@attrs.define(eq=False)
class JavaCluster:
    """The three processes; logs and data are below *folder*."""

    folder: Path
    classes: str
    processes: list[subprocess.Popen[bytes]] = attrs.Factory(list)

    def start(self) -> int:
        """Start all; return the port of the coordinator once it and the tablet server listen."""
        zookeeper, coordinator, tablet = (free_port() for _ in range(3))
        keeping = self.folder / "zoo.cfg"
        keeping.write_text(
            f"tickTime=2000\ndataDir={self.folder}/zookeeper\nclientPort={zookeeper}\nclientPortAddress={HOST}\n"
            "maxClientCnxns=0\n"
        )
        self.java("zookeeper", "-Xmx512m", ZOOKEEPER, str(keeping))
        self.wait_for(zookeeper)
        common = {"zookeeper.address": f"{HOST}:{zookeeper}", "remote.data.dir": self.folder / "remote"}
        self.server("coordinator", "-Xmx1g", COORDINATOR, coordinator, common)
        own = {"tablet-server.id": 0, "data.dir": self.folder / "data"}
        self.server("tablet", "-Xmx4g", TABLET, tablet, common | own)
        self.wait_for(coordinator)
        self.wait_for(tablet)
        return coordinator

    def server(self, name: str, heap: str, main: str, port: int, settings: dict[str, object]) -> None:
        configured = self.folder / f"conf-{name}"
        configured.mkdir()
        settings = settings | {"bind.listeners": f"FLUSS://{HOST}:{port}"}
        lines = "".join(f"{key}: {value}\n" for key, value in settings.items())
        (configured / "server.yaml").write_text(lines)
        self.java(name, heap, main, "--configDir", str(configured))

    def java(self, name: str, heap: str, main: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [*JAVA, heap, "-cp", self.classes, main, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def wait_for(self, port: int) -> None:
        """Wait until something listens on *port*; raise if a process ended instead."""
        end = time.monotonic() + PORT_SECONDS
        while time.monotonic() < end:
            for process in self.processes:
                if process.poll() is not None:
                    raise SystemExit(f"java ended with {process.returncode}; its logs are in {self.folder}")
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, port), 1).close()
                return
            time.sleep(0.02)
        raise SystemExit(f"port {port}: expected a listener in {PORT_SECONDS} s; logs are in {self.folder}")

    def kill(self) -> None:
        """End all at once: nothing of it is needed any more."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, help="for data and logs; emptied first")
    parser.add_argument("--jars", type=Path, default=Path.home() / ".cache" / "fluss-java-jars")
    options = parser.parse_args()
    folder = options.dir or Path(tempfile.mkdtemp(prefix="fluss-java-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda _number, _frame: exit_now())
    cluster = JavaCluster(folder, class_path(options.jars))
    try:
        port = cluster.start()
        print(f"java ready bootstrap.servers={HOST}:{port} logs={folder}", flush=True)
        for process in cluster.processes:
            process.wait()
    finally:
        cluster.kill()


def exit_now() -> None:
    """Leave through the `finally` of main."""
    raise SystemExit


if __name__ == "__main__":
    main()
