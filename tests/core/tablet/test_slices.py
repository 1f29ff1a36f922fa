"""Large puts are merged, and large batches folded, in slices: what others do meanwhile, what ends it."""

from __future__ import annotations

import pytest

from flussd.core.files import DiskError
from flussd.core.records.rows.codec import RowFormat, row_codec
from flussd.core.records.types import DataType
from flussd.core.tablet.restore import Pace
from flussd.core.wire.errors import ErrorCode

ROWS = [(n, f"row {n}") for n in range(5)]


class Turns:
    """What a server put off, one turn at a time."""

    def __init__(self, server):
        self.server, self.put_off = server, []
        server.driver.ports.later = lambda call, *arguments: self.put_off.append((call, arguments))

    def take(self, count=1):
        """Let it go on *count* times; return how many turns there were."""
        for taken in range(count):
            if not self.put_off:
                return taken
            call, arguments = self.put_off.pop(0)
            call(*arguments)
            self.server.machine.check_all()
        return count


@pytest.fixture
def sliced(make_keyed):
    """Calls to a table with two buckets whose server merges two records at a time."""
    keyed = make_keyed(merge_slice_records=2)
    keyed.tell(buckets=(0, 1))
    keyed.turns = Turns(keyed.server)
    return keyed


def test_others_have_their_turn(sliced):
    """A put of another bucket overtakes; one of the same bucket waits, and is merged with the first."""
    sliced.put((1, "old"))
    large = sliced.ask_put(*ROWS)
    same, other = sliced.ask_put((1, "new")), sliced.ask_put((1, "other"), bucket=1)

    sliced.turns.take(2)
    assert 1 == sliced.put_answer(other).log_end_offset
    assert [(1, "old"), None] == sliced.lookup(1, 2)
    assert [None, None] == [sliced.put_answer(one) for one in (large, same)]
    assert 2 < sliced.turns.take(100) < 100
    assert [7, 9] == [sliced.put_answer(one).log_end_offset for one in (large, same)]
    assert [ROWS[0], (1, "new"), *ROWS[2:]] == sliced.lookup(*range(5))


def test_the_batch_is_as_in_one_piece(sliced, make_keyed):
    """Slices end between records, and nothing tells where."""
    sliced.ask_put(*ROWS, 2, (3, "again"))
    sliced.turns.take(100)
    file = f"buckets/9/0/{0:020d}.log"
    whole = sliced.server.disk.files.pop(file)

    keyed = make_keyed()
    keyed.tell(buckets=(0, 1), epoch=2)
    keyed.put(*ROWS, 2, (3, "again"))
    assert whole[12:] == keyed.server.disk.files[file][12:]  # without offset and length, all but times
    assert 8 == keyed.put((9, "x")).log_end_offset - 1


def test_a_put_that_nobody_waits_for_is_dropped(sliced):
    """Its time is up; those behind it are put."""
    large, behind = sliced.ask_put(*ROWS, timeout_ms=50), sliced.ask_put((7, "x"))
    sliced.turns.take(2)
    sliced.server.pass_ms(60)

    sliced.turns.take(100)
    assert ErrorCode.REQUEST_TIME_OUT == sliced.put_answer(large).error_code
    assert 1 == sliced.put_answer(behind).log_end_offset
    assert [None, (7, "x")] == sliced.lookup(1, 7)


def test_a_cut_of_the_log_begins_the_merge_again(sliced):
    """What it was merged with never was: its rows are inserts, not updates."""
    write, held = sliced.server.disk.write, []
    sliced.server.disk.write = lambda *arguments: held.append(arguments)
    lost, large = sliced.ask_put((1, "lost"), acks=1), sliced.ask_put(*ROWS, acks=1)
    sliced.turns.take(2)
    sliced.server.disk.write = write
    ((*_, done),) = held
    done(DiskError.FULL)
    sliced.server.driver.run()
    sliced.turns.take(100)

    assert sliced.put_answer(lost).error_code
    sliced.server.pass_ms(1000)
    sliced.turns.take(100)
    assert 5 == sliced.put_answer(large).log_end_offset


def test_an_altered_table_begins_the_merge_again(sliced):
    """The changelog has the columns of the newest schema."""
    large = sliced.ask_put(*ROWS)
    sliced.turns.take(2)
    more = {"name": "c", "data_type": {"type": "INTEGER"}, "id": 2}
    first = sliced.schemas[0]
    sliced.schemas += (first | {"columns": [*first["columns"], more], "highest_field_id": 2},)
    sliced.tell(buckets=(0, 1))
    sliced.turns.take(100)

    assert 5 == sliced.put_answer(large).log_end_offset
    sliced.codec = row_codec(RowFormat.COMPACTED, (*sliced.TYPES, DataType("INTEGER")))
    view = bytes(sliced.server.disk.files[f"buckets/9/0/{0:020d}.log"])
    assert 2 == int.from_bytes(view[25:27], "little")  # its schema


@pytest.mark.parametrize("comes_back", [False, True])
def test_leadership_lost_in_between(sliced, comes_back):
    """The put is refused, with those behind it; nothing of it is there when the bucket is led again."""
    puts = [sliced.ask_put(*ROWS), sliced.ask_put((1, "behind"))]
    sliced.turns.take(2)
    sliced.tell(buckets=(0, 1), leader=4, epoch=2)
    if comes_back:
        sliced.tell(buckets=(0, 1), epoch=3)
    sliced.turns.take(100)
    sliced.server.pass_ms(100)

    code = ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert [code, code] == [sliced.put_answer(one).error_code for one in puts]
    if not comes_back:
        sliced.tell(buckets=(0, 1), epoch=3)
        sliced.turns.take(100)
    assert 1 == sliced.put((7, "x")).log_end_offset
    assert [None, (7, "x")] == sliced.lookup(1, 7)


def test_a_large_batch_is_folded_in_slices(make_keyed):
    """A restart takes more turns the smaller they are, and the rows are the same."""
    keyed = make_keyed()
    keyed.tell()
    keyed.put(*[(n, f"row {n}") for n in range(40)])
    counts = []
    for epoch, records in enumerate((100, 10, 1), 2):
        object.__setattr__(keyed.server.config, "restore_pace", Pace(1 << 20, 1000, records))
        keyed.server.restart()
        turns = Turns(keyed.server)
        keyed.tell(epoch=epoch)
        counts.append(turns.take(1000))
        assert [(0, "row 0"), (39, "row 39")] == keyed.lookup(0, 39)
    assert counts[0] < counts[1] < counts[2]
