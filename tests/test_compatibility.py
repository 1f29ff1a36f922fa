"""docs/compatibility.md says the truth: which APIs are served, and a row for each of Fluss's features.

The page is for people who decide whether flussd does for them; a row that promises too much is a bug.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
SPEC = ROOT.parent / "shared" / "spec" / "storage-lake-ops.md"
STATES = ("done", "partial", "not yet")


def tables(text: str, *, after: str, until: str | None = None) -> list[list[str]]:
    """The cells of every table row between two headings, without heads and rules."""
    part = text.split(f"\n{after}\n", 1)[1]
    if until is not None:
        part = part.split(until, 1)[0]
    return [cells(line) for line, below in _pairs(part.splitlines()) if _is_row(line, below)]


def cells(line: str) -> list[str]:
    """`| a | b |` is `["a", "b"]`."""
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return list(zip(lines, [*lines[1:], ""], strict=True))


def _is_row(line: str, below: str) -> bool:
    rule = re.compile(r"\|( ?-+ ?\|)+")
    return line.startswith("|") and not rule.fullmatch(line) and not rule.fullmatch(below)


def api_rows() -> list[list[str]]:
    return tables(PAGE.read_text(encoding="utf-8"), after="## APIs", until="\n## ")


def feature_rows() -> list[list[str]]:
    return tables(PAGE.read_text(encoding="utf-8"), after="## Features")


def test_each_api_has_a_row() -> None:
    """All 65, in order, with the versions and servers of Fluss's own table."""
    apis = json.loads((ROOT / "tests/data/messages.json").read_text(encoding="utf-8"))["apis"]
    expected = [
        [
            str(api["key"]),
            api["name"],
            str(api["min"]) if api["min"] == api["max"] else f"{api['min']}-{api['max']}",
            ", ".join(api["servers"]),
        ]
        for api in apis
    ]

    assert 65 == len(expected)
    assert expected == [row[:4] for row in api_rows()]


def test_each_row_has_a_state() -> None:
    """One of three words; what is partial says which part."""
    rows = [(row[1], row[4], row[5]) for row in api_rows()]
    rows += [(row[0], row[1], row[2]) for row in feature_rows()]

    assert [] == [name for name, state, _ in rows if state not in STATES]
    assert [] == [name for name, state, note in rows if state == "partial" and not note]


def test_the_page_marks_what_is_served() -> None:
    """Done or partial means that a server answers it: nothing less on the page, nothing more."""
    from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET

    served = {key.name for key in SERVED_BY_COORDINATOR | SERVED_BY_TABLET}

    assert served == {row[1] for row in api_rows() if row[4] != "not yet"}


def test_servers_serve_only_what_is_theirs() -> None:
    """A coordinator answers no API that Fluss gives to tablet servers alone, and the reverse."""
    from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET

    servers = {row[1]: row[3].split(", ") for row in api_rows()}

    assert [] == sorted(k.name for k in SERVED_BY_COORDINATOR if "coordinator" not in servers[k.name])
    assert [] == sorted(k.name for k in SERVED_BY_TABLET if "tablet" not in servers[k.name])


def test_each_feature_has_a_row() -> None:
    """The checklist of Fluss's features, in its order; nothing is left out because it is missing."""
    if not SPEC.is_file():
        pytest.skip(f"{SPEC} is not on this machine")
    text = SPEC.read_text(encoding="utf-8")
    checklist = text.split("\n## 7. Feature parity", 1)[1].split("\n## ", 1)[0]
    expected = tables(f"\n## 7\n{checklist}", after="## 7")

    assert len(expected) > 100
    assert [row[0] for row in expected] == [row[0] for row in feature_rows()]
