"""The 370 recorded wire cases: those listed pass, the others are told clearly that they are not served.

The list is strict in both directions: a case that begins to pass is added to it, by

    FLUSSD_REWRITE_CASES=1 .venv/bin/pytest tests/real/test_conformance.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
PASSING = DATA / "wire-cases-passing.txt"
SHARED = DATA.parents[2] / "shared" / "tools" / "conformance.py"


@pytest.fixture(scope="module")
def results(fluss_cluster):
    """Play every case against the session's cluster."""
    command = [sys.executable, DATA / "tools/conformance.py", fluss_cluster.bootstrap_servers, "--json"]
    command += ["--cases", DATA / "wire-cases.json", "--messages", DATA / "messages.json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout, ran.stderr
    return {result["name"]: result for result in json.loads(ran.stdout)}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_exactly_the_listed_cases_pass(results):
    """No case is lost, and none passes unnoticed."""
    passed = sorted(name for name, result in results.items() if result["status"] == "ok")
    if os.environ.get("FLUSSD_REWRITE_CASES"):
        PASSING.write_text("".join(f"{name}\n" for name in passed))
    listed = PASSING.read_text().split()

    lost = [f"{name}: {results[name]['why']}" for name in listed if name not in passed]
    assert [] == lost
    assert listed == passed


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_others_are_told_clearly(results):
    """Every case that fails does so at an API that is not served, never at silence or at a wrong answer."""
    unclear = [
        f"{name}: {result['why']}"
        for name, result in results.items()
        if result["status"] == "FAIL" and "not served" not in result["why"] and name not in PARTIAL
    ]

    assert [] == unclear


PARTIAL = frozenset(
    {
        # Target columns on a first_row table: 35 here, and -1, of an exception, in the Java server.
        "kv-first-row",
    }
)
"""Cases that fail for another reason, each with that reason; docs/compatibility.md has them too."""


@pytest.mark.slow
def test_the_runner_is_the_one_that_was_handed_out():
    """The copy is never edited."""
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not on this machine")

    assert SHARED.read_bytes() == (DATA / "tools/conformance.py").read_bytes()
