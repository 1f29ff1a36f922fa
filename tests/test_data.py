"""The vectors in tests/data/ are whole, and the same as those they were copied from.

The copies exist so that a clone alone passes its tests; ../shared exists only where flussd is made.
"""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parent / "data"
SPEC = DATA.parent.parent.parent / "shared" / "spec"
COPIES = sorted(path.name for path in DATA.glob("*.json"))


def test_the_copies_that_the_tests_read_are_there() -> None:
    """Without this, an empty folder would pass the test below with no case at all."""
    assert {"messages.json", "vectors.json", "wire-cases.json"} <= set(COPIES)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_json(name: str) -> None:
    """A copy that was cut off does not parse."""
    assert json.loads((DATA / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_equals_its_source(name: str) -> None:
    """Byte for byte; copy the file again when this fails, never edit the copy."""
    source = SPEC / name
    if not SPEC.is_dir():
        pytest.skip(f"{SPEC} is not on this machine")

    assert source.read_bytes() == (DATA / name).read_bytes()
