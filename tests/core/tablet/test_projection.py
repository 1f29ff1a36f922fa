"""What a fetch is projected to follows from the table as it is known when the answer is made."""

from __future__ import annotations

from flussd.core.records.batch import build_batch
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.workload.rows import arrow_body, integers, texts

NUMBERS, TEXTS = integers((1, None)), texts([b"one", b"two"])
KINDS = ("INTEGER", "STRING", "INTEGER")
COLUMNS = [{"name": f"c{n}", "data_type": {"type": kind}, "id": n} for n, kind in enumerate(KINDS)]
NARROW = {"version": 1, "columns": COLUMNS[:2], "highest_field_id": 1}
WIDER = {"version": 1, "columns": COLUMNS, "highest_field_id": 2}


def told(*vectors, schema_id=1):
    """A batch of two rows with these columns."""
    return build_batch(arrow_body(2, vectors), record_count=2, schema_id=schema_id)


def records(server, fetch):
    """What the answer has behind the head of its batch."""
    answer = server.fetched(fetch)
    assert ErrorCode.NONE == answer.error_code, answer.error_message
    return answer.records[48:]


def test_a_fetch_that_comes_before_the_table(make_server):
    """1. A server starts, and is asked; 2. it hears of the table; 3. the answer had all columns."""
    server = make_server()
    fetch = server.fetch(0, wait_ms=5_000, columns=(1,))
    assert server.fetched(fetch) is None
    server.tell()
    server.produced(told(NUMBERS, TEXTS))

    assert arrow_body(2, [TEXTS]) == records(server, fetch)


def test_a_table_that_is_altered_while_a_fetch_waits(server):
    """1. A fetch waits; 2. a column is added; 3. a batch that has it was refused as unreadable (3)."""
    fetch = server.fetch(0, wait_ms=5_000, columns=(0,))
    server.tell(schemas=(NARROW, WIDER))
    server.produced(told(NUMBERS, TEXTS, NUMBERS, schema_id=2))

    assert arrow_body(2, [NUMBERS]) == records(server, fetch)


def test_a_batch_of_a_schema_that_is_not_known_yet(server):
    """A writer hears of a column before the server: readers get what is before, and wait for the rest."""
    server.produced(told(NUMBERS, TEXTS))
    server.produced(told(NUMBERS, TEXTS, NUMBERS, schema_id=2))

    assert arrow_body(2, [NUMBERS]) == records(server, server.fetch(0, columns=(0,)))
    refused = server.fetched(server.fetch(2, columns=(0,)))
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == refused.error_code
    assert "schema 2 of the table is not known here yet" == refused.error_message
    server.tell(schemas=(NARROW, WIDER))
    assert arrow_body(2, [NUMBERS]) == records(server, server.fetch(2, columns=(0,)))
