"""The README tells the truth: its snippet runs as it stands, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
ADDRESS = "127.0.0.1:9123"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in the order of the page."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_snippet_prints_what_the_page_says(fluss_cluster, tmp_path: Path) -> None:
    """The snippet, saved to a file and run by itself with the address of a cluster.

    1. It makes a database and a table, appends Arrow batches, pandas frames and rows.
    2. It scans from the start, from an offset, and at the tail.
    3. It prints, line for line, the block that follows it on the page.
    """
    snippet, (printed,) = blocks("python")[0], blocks("text")
    assert 1 == snippet.count(ADDRESS)
    saved = tmp_path / "quickstart.py"
    saved.write_text(snippet.replace(ADDRESS, fluss_cluster.bootstrap_servers), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, saved],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    assert printed == ran.stdout


def test_the_snippet_can_be_run_again(fluss_cluster, tmp_path: Path) -> None:
    """A second run finds the database and the table of the first, and prints the same."""
    for _ in range(2):
        test_the_snippet_prints_what_the_page_says(fluss_cluster, tmp_path)


def test_the_page_starts_with_two_commands() -> None:
    """What a new user types first is `make run` and `make test`, and both are targets."""
    first = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert ["make run", "make test"] == first
    assert re.search(r"^run:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/compatibility.md", "docs/simulation.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Links to files of the repository name files that are there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)

    assert [] == [link for link in links if not ((ROOT / page).parent / link).exists()]
