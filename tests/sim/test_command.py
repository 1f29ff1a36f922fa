"""`fluss-sim` as its user sees it: the last line, exit status, files, and one line for a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flussd.cli.sim import main
from flussd.runtime_sim.oracles.violation import Oracle

ROOT = Path(__file__).resolve().parents[2]
VERDICT = re.compile(r"seed=\d+ verdict=(ok|FAILED) events=\d+ sim_seconds=\d+\.\d hash=[0-9a-f]{16}")


@pytest.fixture
def fluss_sim(capsys):
    """Run the command; return exit status, lines of standard output, and standard error."""

    def run(*arguments):
        try:
            status = main(list(arguments))
        except SystemExit as ended:
            status = ended.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return run


def test_a_run_ends_with_its_verdict(fluss_sim):
    """One line, exit status 0, and what took effect above it."""
    status, lines, _ = fluss_sim("--seed", "2")

    assert 0 == status
    assert VERDICT.fullmatch(lines[-1])
    assert 1 == sum(bool(VERDICT.fullmatch(line)) for line in lines)
    assert " verdict=ok " in lines[-1]
    assert lines[0].startswith("faults")


def test_a_failure_says_what_broke_and_how_to_repeat_it(fluss_sim):
    """The oracle, the states, the command, and exit status 1."""
    status, lines, _ = fluss_sim("--seed", "2", "--mutant", "read_uncommitted")

    assert 1 == status
    assert " verdict=FAILED " in lines[-1]
    assert "broken: BELOW_WATERMARK" in lines
    assert "repeat: fluss-sim --seed 2 --mutant read_uncommitted" in lines
    assert any(line.startswith("---- tablet-0") for line in lines)


def test_a_plan_can_be_written_and_run(fluss_sim, tmp_path):
    """The file gives the same run; an edited one another."""
    plan = tmp_path / "plan.toml"
    _, lines, _ = fluss_sim("--seed", "2", "--write-plan", str(plan))
    _, same, _ = fluss_sim("--plan", str(plan))
    plan.write_text("seed = 2\n")
    status, calm, _ = fluss_sim("--plan", str(plan))

    assert lines[-1] == same[-1]
    assert 0 == status
    assert lines[-1] != calm[-1]


def test_the_story_has_its_columns(fluss_sim, tmp_path):
    """Time, node, kind, details; and telling it does not change the run."""
    story = tmp_path / "story.txt"
    _, told, _ = fluss_sim("--seed", "2", "--trace", str(story))
    _, silent, _ = fluss_sim("--seed", "2")
    lines = story.read_text().splitlines()

    assert told[-1] == silent[-1]
    assert len(lines) > 1000
    assert not [line for line in lines if not re.match(r" *\d+\.\d{3} \S+ +\S+ +", line)]


def test_a_range_stops_at_a_failure(fluss_sim):
    """With the command that repeats it, and the medians of what was run."""
    status, lines, _ = fluss_sim("--seeds", "1..9", "--jobs", "1", "--mutant", "read_uncommitted")

    assert 1 == status
    assert lines[-2].startswith("repeat: fluss-sim --seed ")
    assert re.match(r"[1-8] of 9 seeds", lines[-3])
    assert "median: " in lines[-3]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--seeds", "5..1"),
        ("--seeds", "many"),
        ("--seeds", "1..2", "--seed", "1"),
        ("--seeds", "1..2", "--trace", "x"),
        ("--seed", "1", "--mutant", "nobody"),
        ("--plan", "/no/such/file"),
        ("--seed", "-1"),
        ("--sed", "1"),
        ("--seed", "1", "--trace", "/no/such/folder/story"),
    ],
)
def test_a_mistake_is_one_clear_line(fluss_sim, arguments):
    """On standard error, with exit status 1, and nothing else."""
    status, lines, error = fluss_sim(*arguments)

    assert (1, []) == (status, lines)
    assert error.startswith("fluss-sim: ")
    assert 1 == error.count("\n")


def test_every_oracle_and_option_is_documented():
    """A reader of the output finds each name on the page."""
    page = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")

    assert [] == [oracle.name for oracle in Oracle if f"| `{oracle.name}` | {oracle.value} |" not in page]
    for option in ("--seeds", "--plan", "--write-plan", "--trace", "--mutant", "--jobs", "--twice"):
        assert option in page
