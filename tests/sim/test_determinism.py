"""The same seed gives the same hash: in another process, under other hash seeds, on other Pythons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (2, 9)
# More interpreters, with the libraries of the core, can be named: FLUSSD_PYTHONS=/path/python:/other/python
NAMED = [name for name in os.environ.get("FLUSSD_PYTHONS", "").split(":") if name]
OTHER_PYTHONS = ["python3.11", "python3.12", "python3.13", *NAMED]


def verdicts(*seeds, python=sys.executable, hash_seed="0", mutant=None):
    """Run seeds in a process of their own; return their last lines."""
    lines = []
    for seed in seeds:
        command = [python, "-m", "flussd.cli.sim", "--seed", str(seed)]
        command += ["--mutant", mutant] if mutant else []
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.stdout, ended.stderr
        lines.append(ended.stdout.splitlines()[-1])
    return lines


def test_the_hash_does_not_depend_on_the_hash_seed():
    """Three processes with three orders of every set: one hash."""
    first = verdicts(*SEEDS)

    assert all(" verdict=ok " in line for line in first)
    assert first == verdicts(*SEEDS, hash_seed="1")
    assert first == verdicts(*SEEDS, hash_seed="random")


def test_a_planted_iteration_over_a_set_changes_the_hash():
    """The order of a set of names reaches a client in some answer: two hash seeds, two hashes."""
    hashes = {verdicts(SEEDS[1], hash_seed=str(n), mutant="set_order")[0] for n in range(3)}

    assert len(hashes) > 1


def has_what_it_needs(python):
    """Whether an interpreter is there, with the libraries of the core."""
    if shutil.which(python) is None:
        return False
    probe = "import attrs, click, crc32c, google.protobuf, rich"
    return not subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_the_hash_does_not_depend_on_the_version(python):
    """Another Python, other internals: the same hash."""
    if not has_what_it_needs(python):
        pytest.skip(f"{python} with attrs, click, crc32c, protobuf and rich is not here")

    assert verdicts(*SEEDS) == verdicts(*SEEDS, python=python)
