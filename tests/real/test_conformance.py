"""The 370 recorded wire cases, all of which pass."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
SHARED = DATA.parents[2] / "shared" / "tools" / "conformance.py"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_case_passes(fluss_cluster):
    """Each request of each case gets the answer that the Java server gave, or the documented one."""
    command = [sys.executable, DATA / "tools/conformance.py", fluss_cluster.bootstrap_servers, "--json"]
    command += ["--cases", DATA / "wire-cases.json", "--messages", DATA / "messages.json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout, ran.stderr
    results = json.loads(ran.stdout)

    assert {} == {result["name"]: result["why"] for result in results if result["status"] != "ok"}
    assert 370 == len(results)


@pytest.mark.slow
def test_the_runner_is_the_one_that_was_handed_out():
    """The copy is never edited."""
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not on this machine")

    assert SHARED.read_bytes() == (DATA / "tools/conformance.py").read_bytes()
