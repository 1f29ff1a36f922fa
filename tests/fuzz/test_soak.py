"""The soak: a real server that is killed, stopped and frozen under the official client."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "fuzz" / "soak.py"


def run(env, *arguments):
    """Run it; return its status and what it printed."""
    command = [sys.executable, SOAK, *map(str, arguments)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_acknowledged_is_there(tmp_path, child_env):
    """Half a minute with everything that it does."""
    status, text = run(child_env, "--seed", 5, "--minutes", 0.4, "--folder", tmp_path)

    assert (0, True) == (status, "soak: all held: " in text), text
    assert "0 kills" not in text.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_lost_is_noticed(tmp_path, child_env):
    """With each kill every log loses its last bytes."""
    status, text = run(child_env, "--canary", "--seed", 5, "--minutes", 0.2, "--folder", tmp_path)

    assert 1 == status, text
    assert f"kept: {tmp_path}/data, {tmp_path}/log" in text
