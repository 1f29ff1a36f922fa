"""The benches run: the blackhole serves the official client, and the tables of the page are written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / "bench"
PAGE = """\
before
<!-- written by bench/side_by_side.py -->
old
<!-- end of bench/side_by_side.py -->
after
"""


def run(*command, cwd, env):
    ran = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=env | {"PEER": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.alone
@pytest.mark.timeout(400)
def test_side_by_side(tmp_path, child_env):
    """A quick run of one workload measures both servers, shows them, and replaces the block of a page."""
    page, found = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text(PAGE)
    options = ("--quick", "--only", "scan wide", "--json", found, "--write", page)
    printed = run(BENCH / "side_by_side.py", *options, cwd=tmp_path, env=child_env)
    results = json.loads(found.read_text())["results"]
    before, *written, after = page.read_text().splitlines()

    expected = [
        (peer, scan) for peer in ("blackhole", "flussd") for scan in ("scan wide", "scan wide zstd")
    ]
    assert expected == [(result["peer"], result["workload"]) for result in results]
    assert all(result["rows_s"] > 0 and result["client_us"] > 0 for result in results)
    assert "scan wide zstd" in printed
    assert ("before", "after") == (before, after)
    assert "old" not in written
    assert any(line.startswith("| scan wide zstd | flussd | ") for line in written)


@pytest.mark.slow
def test_latencies(tmp_path, child_env):
    """One-row workloads measure both servers: the blackhole wakes readers, too."""
    found = tmp_path / "found.json"
    run(
        BENCH / "side_by_side.py",
        "--quick",
        "--only",
        "one row",
        "--json",
        found,
        cwd=tmp_path,
        env=child_env,
    )
    results = json.loads(found.read_text())["results"]

    seen = {peer: [r["workload"] for r in results if r["peer"] == peer] for peer in ("blackhole", "flussd")}
    reader = ["one row to a reader", "one row to a reader, with its write"]
    elsewhere = [name.replace("reader", "reader elsewhere") for name in reader]
    assert ["one row flushed", *reader, *elsewhere] == seen["flussd"] == seen["blackhole"]
    assert all(0 < result["p50_ms"] <= result["p99_ms"] for result in results)


@pytest.mark.slow
def test_stages_of_a_produce_request(tmp_path, child_env):
    """The stages of a produce request are printed beside their budget."""
    printed = run(BENCH / "produce_path.py", "0.1", cwd=tmp_path, env=child_env)

    stages = [
        "one request",
        "parse",
        "heads and CRC-32C",
        "objects of the edge",
        "two steps of the machine",
    ]
    stages += ["write", "reply", "driver", "system calls"]
    stages += ["after 1 MiB of others", "after 8 MiB of others", "after 64 MiB of others"]
    assert stages == [line[:26].strip() for line in printed.splitlines()]


@pytest.fixture
def report(monkeypatch):
    """The module of the bench that judges figures."""
    monkeypatch.syspath_prepend(BENCH)
    import report

    return report


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((95, 96), (100, 101), "yes"),
        ((80, 81), (79, 110), "within the spread"),
        ((80, 81), (90, 110), "NO"),
    ],
)
def test_verdicts_on_rates(report, ours, theirs, expected):
    """A rate is met by the medians, or by a median inside of the other's spread."""
    results = [
        {"workload": "scan wide", "peer": peer, "rows_s": rate}
        for peer, rates in (("flussd", ours), ("blackhole", theirs))
        for rate in rates
    ]

    assert expected == report.Figures(results).met(report.Goal("scan wide", "blackhole", 0.9))
    assert "-" == report.Figures(results).met(report.Goal("scan wide", "java", 1))


def test_verdicts_on_latencies(report):
    """A latency is met below a bound, or at the other's; its ratio says how much better flussd is."""
    results = [
        {"workload": "one row flushed", "peer": peer, "p50_ms": ms}
        for peer, ms in (("flussd", 2), ("java", 3))
    ]
    figures = report.Figures(results)

    assert 1.5 == figures.ratio("one row flushed", "java")
    assert "yes" == figures.met(report.Goal("one row flushed", "java"))
    assert "NO" == figures.met(report.Goal("one row flushed", "", most_ms=2))
