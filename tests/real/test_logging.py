"""The log of `flussd local`: one line an event, as text or as JSON, and never in the server's way."""

import json
import logging
import os
import threading

import pyarrow as pa
import pytest

from flussd.core.machine import Announce
from flussd.runtime_real import logs
from flussd.runtime_real.announced import Announcements

SCHEMA = pa.schema([pa.field("id", pa.int64())])


@pytest.fixture
def logged(caplog):
    """The records of the logger `flussd`, from debug on."""
    caplog.set_level(logging.DEBUG, logger="flussd")
    return caplog


# ---- a process -----------------------------------------------------------------------------------


async def test_json_tells_a_whole_life(start_flussd, connect, append_rows, tmp_path):
    """Start, registration, leadership and orderly stop are there, each line an object by itself."""
    server = start_flussd(
        "--port", 0, "--data-dir", tmp_path, "--log-format", "json", "--log-level", "info"
    )
    async with connect(server.bootstrap_servers, database="shop") as client:
        await append_rows(await client.create("orders", SCHEMA), [{"id": 1}])

    status, _, err = server.stop()

    lines = [json.loads(line) for line in err.splitlines()]
    told = [(line.get("node", ""), line["event"]) for line in lines]
    expected = [
        ("", "starting"),
        ("registry", "recovered"),
        ("coordinator", "active"),
        ("tablet-0", "registered"),
        ("", "cluster ready"),
        ("tablet-0", "leading"),
        ("", "cluster stopping"),
        ("tablet-0", "stopped"),
        ("registry", "stopped"),
        ("", "ended"),
    ]
    assert 0 == status
    assert expected == [one for one in told if one in expected]
    (leading,) = [line for line in lines if line["event"] == "leading"]
    assert ("shop", "orders", 0, 0) == tuple(leading[k] for k in ("database", "table", "bucket", "epoch"))
    assert {"info"} == {line["level"] for line in lines}


async def test_a_cut_is_a_warning_with_its_size(start_flussd, connect, append_rows, tmp_path):
    """After a kill, a torn tail is cut, and the log says how many bytes went, without being asked."""
    server = start_flussd("--port", 0, "--data-dir", tmp_path)
    async with connect(server.bootstrap_servers) as client:
        await append_rows(await client.create("t", SCHEMA), [{"id": 1}])
    server.kill()
    (segment,) = tmp_path.glob("tablet-0/buckets/*/0/*.log")
    with segment.open("ab") as file:
        file.write(bytes(7))

    again = start_flussd("--port", 0, "--data-dir", tmp_path, "--log-format", "json")
    _, _, err = again.stop()

    (cut,) = [line for line in map(json.loads, err.splitlines()) if line["event"] == "bucket cut"]
    assert ("warning", "tablet-0", 7, 1) == (cut["level"], cut["node"], cut["cut_bytes"], cut["end_offset"])


def test_text_is_for_people(start_flussd):
    """A line has the program, the time, the level, the node, the event and its facts."""
    server = start_flussd("--port", 0, "--log-level", "info")
    _, _, err = server.stop()

    lines = err.splitlines()
    assert all(line.startswith("flussd: 20") for line in lines)
    assert any("Z info tablet-0: registered incarnation=" in line for line in lines), err


def test_nothing_is_said_when_all_is_well(start_flussd):
    """By default only what needs attention is logged: an ordinary life is silent."""
    assert "" == start_flussd("--port", 0).stop()[2]


@pytest.mark.parametrize("arguments", [("--log-level", "loud"), ("--log-format", "xml")])
def test_a_wrong_word_is_one_line(run_flussd, arguments):
    """What is not a level or a format is refused with what there is."""
    status, out, err = run_flussd("local", *arguments)

    assert (1, "") == (status, out)
    assert 1 == err.count("\n")
    assert arguments[1] in err


# ---- lines ---------------------------------------------------------------------------------------


def test_a_text_cannot_forge_lines(logged):
    """Line breaks, quotes and %-signs of a text stay within its line, in both forms."""
    logs.tell(logging.WARNING, "unreadable", "100%s\nflussd: all is well", node="tablet-0", file='a "b"')

    (record,) = logged.records
    line = logs.TextFormatter().format(record)
    fields = json.loads(logs.JsonFormatter().format(record))
    assert line.endswith('tablet-0: unreadable 100%s flussd: all is well file="a \\"b\\""')
    assert "\n" not in line
    assert ("100%s\nflussd: all is well", 'a "b"') == (fields["text"], fields["file"])


def test_facts_cannot_hide_the_head(logged):
    """A fact that is named like a field of the head does not replace it."""
    logs.tell(logging.INFO, "leading", level="none", time="never")

    (record,) = logged.records
    assert "info" == json.loads(logs.JsonFormatter().format(record))["level"]


def test_records_of_libraries_are_lines_too(logged):
    """What others log through the standard module has the same form."""
    logging.getLogger("flussd.other").warning("%d is odd", 3)

    (record,) = logged.records
    fields = json.loads(logs.JsonFormatter().format(record))
    assert ("message", "flussd.other", "3 is odd") == (fields["event"], fields["logger"], fields["text"])


def test_an_announcement_nobody_knows_is_a_warning(logged):
    """What is new is loud; what cut bytes is loud though it is usual otherwise."""
    announcements = Announcements()
    announcements.add("tablet-0", Announce("never heard of"))
    announcements.add("registry", Announce("recovered", facts=(("cut_bytes", 5),)))
    announcements.add("registry", Announce("recovered", facts=(("cut_bytes", 0),)))

    assert ["WARNING", "WARNING", "INFO"] == [record.levelname for record in logged.records]
    assert {("tablet-0", "never heard of"): 1, ("registry", "recovered"): 2} == announcements.counts
    assert 5 == announcements.cut_bytes["registry"]


def test_a_reader_that_hangs_holds_nobody_up(monkeypatch):
    """With a full pipe behind it, lines are dropped and counted; whoever logs goes on."""
    monkeypatch.setattr(logs, "LINES_MAX", 10)
    monkeypatch.setattr(logs, "END_SECONDS_MAX", 0.01)
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w") as stream:
        writer = logs.LineWriter(stream)
        record = logging.LogRecord("flussd", logging.INFO, "", 0, "x" * 10_000, (), None)
        for _ in range(100):
            writer.emit(record)
        writer.close()

        assert writer.dropped_count >= 100 - 10 - 10
        os.close(read_fd)  # wakes the writer's thread with an error, which it survives
        for thread in threading.enumerate():
            if thread.name == "flussd-log":
                thread.join(0.1)
