"""The README tells the truth: its snippet runs as it stands, and it begins with what a new user types."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_snippet_prints_what_the_page_says(fluss_cluster, page, run_snippet) -> None:
    """The snippet, saved to a file and run by itself with the address of a cluster; and again.

    1. It makes a database and a table, appends Arrow batches, pandas frames and rows.
    2. It scans from the start, from an offset, and at the tail.
    3. It prints, line for line, the block that follows it on the page.
    4. A second run finds the database and the table of the first, and prints the same.
    """
    readme = page("README.md")
    snippet, (printed,) = readme.blocks("python")[0], readme.blocks("text")
    first = run_snippet(snippet, fluss_cluster.bootstrap_servers)
    second = run_snippet(snippet, fluss_cluster.bootstrap_servers)

    assert 1 == snippet.count("127.0.0.1:9123")
    assert printed == first
    assert printed == second


def test_the_page_starts_with_two_commands(page) -> None:
    """What a new user types first is `make run` and `make test`, and both are targets."""
    first = [line.split("#")[0].strip() for line in page("README.md").blocks("sh")[0].splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert ["make run", "make test"] == first
    assert re.search(r"^run:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)
