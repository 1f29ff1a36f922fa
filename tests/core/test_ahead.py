"""Reading ahead: an answer never has what the file no longer has, and what is held stays small."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flussd.core import ahead
from flussd.core import files as f
from flussd.core.files import DiskError
from flussd.core.storage import Files

FILES = ("7/0/00.log", "7/0/40.log", "7/1/00.log")
PLACES = st.tuples(st.sampled_from(FILES[1:]), st.sampled_from((0, 4, 8)), st.integers(1, 8))
"""Few, so that they meet."""


class LazyDisk:
    """Does what is asked at once, but a read for later only when told to, in the order of the calls.

    While *tells_later*, it tells that a write has ended only then, too.
    """

    def __init__(self, disk):
        self.disk, self.later, self.tells_later = disk, [], False

    def __getattr__(self, name):
        return getattr(self.disk, name)

    def read_later(self, file, position, size_bytes, done):
        self.later.append(partial(self.disk.read, file, position, size_bytes, done))

    def write(self, file, position, views, done):
        if self.tells_later:
            self.disk.write(file, position, views, lambda error: self.later.append(lambda: done(error)))
        else:
            self.disk.write(file, position, views, done)

    def catch_up(self):
        while self.later:
            self.later.pop(0)()


class Reader:
    """Reads through `ReadAhead`, and counts what the disk was asked for."""

    def __init__(self, disk):
        self.disk = disk
        self.lazy = LazyDisk(disk)
        self.queue = []
        self.files = Files(self.lazy, self.queue.append)
        self.ahead = self.files.ahead
        self.ahead.least_bytes = 1

    def read(self, file, position, size_bytes):
        """Return what came, and what the disk was asked for meanwhile."""
        came, asked = [], len(self.disk.log)
        self.ahead.read(file, position, size_bytes, lambda *result: came.append(result))
        (result,) = came
        return result, self.disk.log[asked:]

    def truth(self, file, position, size_bytes):
        if file not in self.disk.files:
            return b"", DiskError.MISSING
        return bytes(self.disk.files[file][position : position + size_bytes]), None

    def write(self, file, position, data, patches=()):
        self.files.perform(f.WriteFile(1, file, position, (data,), patches))


@pytest.fixture
def reader(memory_disk):
    reader = Reader(memory_disk)
    reader.write(FILES[0], 0, bytes(range(100)))
    reader.ahead.run_ended()
    return reader


def test_what_follows_is_there_before_it_is_asked_for(reader):
    reader.ahead.goes_on(FILES[0], 10, 20)
    reader.lazy.catch_up()
    assert reader.read(FILES[0], 10, 20) == ((bytes(range(10, 30)), None), [])
    # It was given away: the same again comes from the disk.
    assert reader.read(FILES[0], 10, 20) == ((bytes(range(10, 30)), None), [f"read {FILES[0]}"])
    assert reader.ahead.held_bytes == 0


def test_a_longer_read_gets_the_rest_from_the_disk(reader):
    reader.ahead.goes_on(FILES[0], 10, 5)
    reader.lazy.catch_up()
    assert reader.read(FILES[0], 10, 20) == ((bytes(range(10, 30)), None), [f"read {FILES[0]}"])


def test_a_shorter_read_gets_its_part(reader):
    reader.ahead.goes_on(FILES[0], 10, 20)
    reader.lazy.catch_up()
    assert reader.read(FILES[0], 10, 3) == ((bytes(range(10, 13)), None), [])


def test_two_readers_of_one_file_both_go_on(reader):
    for _ in range(3):  # asked for again before it came, and after
        for position in (10, 50):
            reader.ahead.goes_on(FILES[0], position, 20)
    reader.lazy.catch_up()
    assert reader.disk.log.count(f"read {FILES[0]}") == 2
    for position in (10, 50):
        assert reader.read(FILES[0], position, 20) == ((bytes(range(position, position + 20)), None), [])


def test_a_read_does_not_wait_for_what_is_on_its_way(reader):
    reader.ahead.goes_on(FILES[0], 10, 20)
    assert reader.read(FILES[0], 10, 20)[0] == (bytes(range(10, 30)), None)
    reader.lazy.catch_up()
    assert reader.ahead.held_bytes == 0


def test_small_answers_are_not_followed(reader):
    reader.ahead.least_bytes = 64
    reader.ahead.goes_on(FILES[0], 10, 63)
    assert not reader.lazy.later


@pytest.mark.parametrize("error", [DiskError.IO, DiskError.TOO_MANY_FILES])
def test_an_error_is_told_to_whoever_asks(reader, error):
    reader.disk.failures.append(("read", error))
    reader.ahead.goes_on(FILES[0], 10, 20)
    reader.lazy.catch_up()  # fails, and nobody hears of it
    assert reader.read(FILES[0], 10, 20)[0] == (bytes(range(10, 30)), None)
    reader.ahead.goes_on(FILES[0], 30, 10)
    reader.lazy.catch_up()
    reader.disk.failures.append(("read", error))
    assert reader.read(FILES[0], 30, 20)[0] == (b"", error)  # the rest of it failed


def test_what_is_held_has_a_bound(reader, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_HELD_BYTES", 50)
    monkeypatch.setattr(ahead, "AHEAD_BYTES_MAX", 20)
    for position in (0, 30, 60):
        reader.ahead.goes_on(FILES[0], position, 30)
    reader.lazy.catch_up()
    assert reader.ahead.held_bytes == 40  # the oldest went, and none has more than 20
    assert reader.read(FILES[0], 0, 20)[1] == [f"read {FILES[0]}"]
    assert reader.read(FILES[0], 60, 20)[1] == []


def test_what_was_just_written_is_read_without_the_disk(reader):
    reader.write(FILES[0], 100, b"new batch", patches=((4, b"B"),))
    for _ in range(2):  # two readers wait for it
        assert reader.read(FILES[0], 100, 9) == ((b"new Batch", None), [])
    assert reader.read(FILES[0], 100, 3) == ((b"new", None), [])
    assert reader.read(FILES[0], 100, 20)[1] == [f"read {FILES[0]}"]  # it may be longer than what is held
    reader.ahead.run_ended()
    assert reader.read(FILES[0], 100, 9) == ((b"new Batch", None), [f"read {FILES[0]}"])


def test_a_write_is_held_once_it_has_ended(reader):
    reader.lazy.tells_later = True
    reader.write(FILES[0], 100, b"first")
    reader.write(FILES[0], 105, b"second")
    assert reader.read(FILES[0], 100, 5)[1] == [f"read {FILES[0]}"]
    reader.ahead.run_ended()  # that of the write itself
    reader.lazy.catch_up()
    assert reader.read(FILES[0], 100, 5) == ((b"first", None), [])
    assert reader.read(FILES[0], 105, 6) == ((b"second", None), [])


def test_a_write_over_one_that_has_not_ended_is_the_one_that_counts(reader):
    reader.lazy.tells_later = True
    reader.write(FILES[0], 100, b"first")
    reader.write(FILES[0], 100, b"other")
    reader.lazy.later.pop(0)()
    assert reader.read(FILES[0], 100, 5) == ((b"other", None), [f"read {FILES[0]}"])
    reader.lazy.catch_up()
    assert reader.read(FILES[0], 100, 5) == ((b"other", None), [])


def test_a_write_that_failed_or_is_large_is_not_held(reader, monkeypatch):
    reader.disk.failures.append(("write", DiskError.FULL))
    reader.write(FILES[0], 100, b"in part")
    assert reader.read(FILES[0], 100, 7)[1] == [f"read {FILES[0]}"]
    monkeypatch.setattr(ahead, "FRESH_BYTES_MAX", 4)
    reader.write(FILES[0], 100, b"large")
    assert reader.read(FILES[0], 100, 5) == ((b"large", None), [f"read {FILES[0]}"])


CHANGES = ("write", "write, told later", "write in part", "truncate", "replace", "remove", "remove folder")
STEPS = st.one_of(
    st.tuples(st.sampled_from(CHANGES), PLACES, st.binary(min_size=1, max_size=12)),
    st.tuples(st.sampled_from(("goes on", "goes on later", "run ends")), PLACES, st.none()),
    st.tuples(st.just("read"), PLACES, st.none()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=20, max_size=60))
def test_reads_tell_the_truth_whatever_changes(memory_disk, steps):
    reader = Reader(type(memory_disk)())
    for file in FILES:
        reader.write(file, 0, b"as it began")
    for kind, (file, position, size_bytes), data in steps:
        match kind:
            case "write":
                reader.write(file, position, data)
            case "write, told later":
                reader.lazy.tells_later = True
                reader.write(file, position, data)
                reader.lazy.tells_later = False
            case "write in part":
                reader.disk.failures.append(("write", DiskError.FULL))
                reader.write(file, position, data)
            case "truncate":
                reader.files.perform(f.TruncateFile(1, file, position))
            case "replace":
                reader.files.perform(f.ReplaceFile(1, file, data))
            case "remove":
                reader.files.perform(f.RemoveFile(1, file))
            case "remove folder":
                reader.files.perform(f.RemoveFolder(1, file.rpartition("/")[0]))
            case "read":
                expected = reader.truth(file, position, size_bytes)
                assert reader.read(file, position, size_bytes)[0] == expected
            case "run ends":
                reader.ahead.run_ended()
            case _:
                reader.ahead.goes_on(file, position, size_bytes)
                if kind == "goes on":
                    reader.lazy.catch_up()
        held = [data for held in reader.ahead._held.values() for data in held.values()]
        assert reader.ahead.held_bytes == sum(map(len, held))
