"""Names: what databases, tables, partitions and producers may be called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flussd.core.records import names
from flussd.core.records.refusal import Refused

GOOD = ["a", "A-z_0", "9", "_", "-", "_x", "x" * 200, "a-b"]
BAD = ["", ".", "..", "a.b", "a b", "a/b", "a$b", "ä", "x" * 201, "__x", "a\n", "٣", "\ud800"]
CHECKS = [(names.check_database_name, 16), (names.check_table_name, 15), (names.check_producer_id, 63)]


@pytest.mark.parametrize(("check", "code"), CHECKS)
@pytest.mark.parametrize("name", [name for name in BAD if name != "__x"])
def test_bad_names_are_refused_with_the_code_of_their_kind(check, code, name):
    """16 for databases, 15 for tables, 63 for producers; the text can be sent."""
    with pytest.raises(Refused) as refused:
        check(name)

    assert code == refused.value.code
    assert refused.value.text.encode()


def test_reserved_names_are_free_for_producers():
    """As recorded; databases and tables may not have them."""
    names.check_producer_id("__x")
    for check, code in CHECKS[:2]:
        with pytest.raises(Refused) as refused:
            check("__x")
        assert code == refused.value.code


@pytest.mark.parametrize(("check", "code"), CHECKS)
@pytest.mark.parametrize("name", GOOD)
def test_good_names_pass(check, code, name):
    """Letters, digits, _ and -, up to 200 characters."""
    check(name)


@pytest.mark.parametrize(("path", "code"), [(("a.b", "t"), 16), (("d", "a.b"), 15), (("a.b", "a.b"), 16)])
def test_of_a_path_the_database_is_looked_at_first(path, code):
    """As ALTER_TABLE was recorded to answer."""
    with pytest.raises(Refused) as refused:
        names.check_table_path(*path)

    assert code == refused.value.code


def test_reserved_values_of_partitions_cannot_be_created_but_dropped():
    """__historical__ is the server's to make."""
    names.check_partition_value("__historical__", creating=False)
    with pytest.raises(Refused) as refused:
        names.check_partition_value("__historical__", creating=True)

    assert refused.value.code == 43


@given(st.text(max_size=210) | st.text("ab-_.$9", max_size=210))
def test_what_passes_is_a_safe_part_of_a_path(name):
    """A name without fault has only the characters of the rule, and is no reserved or special one."""
    fault = names.fault_of(name)

    assert (fault is None) == bool(
        re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name)
        and not name.startswith("__")
        and name not in (".", "..")
    )
