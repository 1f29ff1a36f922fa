"""The runner of the fuzz targets: what it must notice, what it says of it, and a slice of every target."""

from __future__ import annotations

import random
import re
import time
from collections import Counter

import campaign
import pytest
import segments
import trials
from answers import ALLOWED, asked_by, judge

from flussd.core.edge.frames import error_frame, request_frame, response_frame
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.core.wire.served import SERVED_BY_COORDINATOR, SERVED_BY_TABLET

SLICE = {
    "frames": 300,
    "log_batches": 5000,
    "messages": 60,  # sessions of 30 requests
    "produce_request": 5000,
    "registry_log": 1000,
    "segments": 600,
    "table_descriptor": 2000,
}
PURE = [name for name in campaign.names() if name != "live"]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus of its own."""
    monkeypatch.setattr(trials, "CORPUS", tmp_path)
    return tmp_path


def target(check, **fields):
    """A target whose inputs are three parts of two bytes."""
    return trials.Target("planted", lambda draw: draw.randbytes(6), check, lambda: None, **fields)


def report_of(planted, monkeypatch, count=20):
    """Run a slice of a planted target."""
    monkeypatch.setattr(campaign, "target_of", lambda _: planted)
    return campaign.run_slice(campaign.Slice("planted", 1, 0, count, replays=True))


def planted_exception(data):
    if 7 in data:
        raise KeyError("planted")
    return "fine"


def test_an_exception_is_kept_and_can_be_repeated(corpus, monkeypatch):
    """Many inputs fail alike: one is kept by its hash, told with its command, and comes first later."""
    monkeypatch.setattr(campaign, "keep", trials.keep)
    first = report_of(target(planted_exception), monkeypatch, 300)
    (failure,) = first.failures
    again = report_of(target(planted_exception), monkeypatch, 0)

    assert "exception" == failure.kind
    assert first.failure_count > 1
    (path,) = trials.kept("planted")
    assert failure.data == path.read_bytes()
    assert f"python fuzz/planted.py fuzz/corpus/planted/{path.name}" in str(failure)
    assert (1, 1) == (again.replay_count, again.failure_count)


def test_a_hang_is_ended_by_its_deadline(corpus, monkeypatch):
    """A loop without end in the code under test, even one that catches every Exception."""

    def check(data):
        while data:
            try:
                data = bytes(data)
            except Exception:  # noqa: BLE001 - that is the point
                continue
        return "never"

    failure = trials.attempt(target(check), b"x", deadline_s=0.05)

    assert "hang" == failure.kind
    assert Counter(fine=1) == trials.attempt(target(lambda _: "fine"), b"x", deadline_s=0.05)


def test_a_failing_input_is_made_smaller(corpus):
    """Of six parts only those that are needed for the failure are left."""

    def check(data):
        assert not (b"a" in data and b"d" in data)
        return "fine"

    parted = target(check, parts=lambda data: [bytes([byte]) for byte in data])
    failure = trials.attempt(parted, b"xaxxdx")

    assert "exception" == failure.kind
    assert b"ad" == trials.shrunk(parted, failure).data


def test_a_process_that_is_stuck_is_ended(corpus, monkeypatch):
    """Nothing that a signal could interrupt: whoever watches ends the process, and keeps its input."""
    monkeypatch.setattr(campaign, "keep", trials.keep)
    monkeypatch.setattr(campaign, "target_of", lambda _: target(lambda _: "fine"))
    monkeypatch.setattr(campaign, "_work", _sleep)
    (report,) = campaign.run([campaign.Slice("planted", 1, 4, 9, replays=False)], jobs=1, stuck_s=0.3)

    (failure,) = report.failures
    assert ("hang", target(None).input(1, 4)) == (failure.kind, failure.data)
    assert [trials.file_name(failure.data)] == [path.name for path in trials.kept("planted")]


def _sleep(*_):
    time.sleep(60)


def test_a_leak_is_told(corpus, monkeypatch):
    """What stays behind each input is found at the end of a slice."""
    left = []

    def check(_):
        left.extend([None] for _ in range(100))
        return "fine"

    report = report_of(target(check), monkeypatch, 100)

    assert "objects" in report.leak
    assert not report_of(target(lambda _: "fine"), monkeypatch, 100).leak
    text, is_good = campaign.summary([report], 2.0)
    assert not is_good
    assert (
        "fuzz: 100 inputs (0 kept ones replayed first) in 2 s, 50/s: 0 hangs, 1 leaks, 0 failures" in text
    )


def whole(api_key, body=b""):
    return request_frame(api_key, 0, 5, body)[4:]


WRONG = {
    "a success where there is nothing to parse": (b"\xff", response_frame(5, b"")[4:]),
    "a code of another kind": (b"", error_frame(5, ErrorCode.TABLE_NOT_EXIST, "no")[4:]),
    "no text": (b"\xff", error_frame(5, ErrorCode.CORRUPT_MESSAGE)[4:]),
    "a code that is none": (b"\xff", error_frame(5, 999, "no")[4:]),
    "another request": (b"\xff", error_frame(6, ErrorCode.CORRUPT_MESSAGE, "no")[4:]),
    "a success that is none": (b"", response_frame(5, b"\xff")[4:]),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_of_the_wrong_class_is_one(name):
    """LIST_DATABASES is refused with CORRUPT_MESSAGE, or answered with a list; nothing else will do."""
    body, answer = WRONG[name]

    with pytest.raises(trials.WrongAnswer):
        judge(asked_by(0, whole(ApiKey.LIST_DATABASES, body)), answer)


def test_a_right_answer_is_none():
    """The same request, answered as documented."""
    asked, refused = (asked_by(0, whole(ApiKey.LIST_DATABASES, body)) for body in (b"", b"\xff"))
    listed = messages.ListDatabasesResponse(database_name=["a"]).SerializeToString()

    assert "success" == judge(asked, response_frame(5, listed)[4:])
    assert "CORRUPT_MESSAGE" == judge(refused, error_frame(5, ErrorCode.CORRUPT_MESSAGE, "no")[4:])


def test_each_api_has_its_documented_refusals():
    """Whoever serves a new API says what it may be refused with; -1 alone says nothing."""
    assert sorted(SERVED_BY_COORDINATOR | SERVED_BY_TABLET) == sorted(ALLOWED)


@pytest.mark.parametrize("name", PURE)
def test_a_slice_of_every_target(name):
    """Some inputs of another seed than make fuzz has; the kept ones are in test_corpus.py."""
    count = SLICE.get(name, 500)
    found = campaign.run_slice(campaign.Slice(name, 2, 0, count, replays=False))

    assert [] == [str(failure) for failure in found.failures]
    assert found.ended.total() >= count


@pytest.mark.slow
@pytest.mark.parametrize("name", PURE)
def test_every_canary_sings(name, child_env):
    """Each target notices that the code under test is broken on purpose."""
    import subprocess
    import sys

    command = [sys.executable, str(campaign.HERE / f"{name}.py"), "canary"]
    ran = subprocess.run(command, env=child_env, capture_output=True, text=True, timeout=110, check=False)

    assert ran.returncode
    assert re.search(rf"{name}: (wrong answer|exception) at |failed; again with", ran.stderr), ran.stderr


def test_inputs_depend_on_nothing_but_their_number():
    """The same seed and number give the same input, whatever came before."""
    one = segments.TARGET.input(3, 7)
    segments.TARGET.input(3, 8)
    random.seed(5)

    assert one == segments.TARGET.input(3, 7)
    assert one != segments.TARGET.input(4, 7)
