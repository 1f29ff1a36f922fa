"""The rows of a bucket are the fold of its changelog, whatever is put, committed and cut."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flussd.core.kv import rows
from flussd.core.kv.table import KvTable
from flussd.core.records.batch import read_head
from flussd.core.slices import finished

KEYS = st.integers(0, 12) | st.just(1)
TEXTS = st.sampled_from([None, "", "x", "longer text"])
NUMBERS = st.sampled_from([None, 0, 7, 1 << 40])
PUTS = st.lists(st.one_of(st.tuples(KEYS, TEXTS, NUMBERS), st.tuples(KEYS)), max_size=6)
TARGETS = {(0, 1): "a", (0, 2): "b", (0,): ""}


def after(model, records, targets):
    """What the default engine makes of the model."""
    made = dict(model)
    for key, *values in records:
        old = made.get(key)
        names = "ab" if not targets else TARGETS[targets]
        if values:
            new = dict(zip("ab", values, strict=True))
            kept = old or dict.fromkeys("ab")
            made[key] = {name: (new if name in names else kept)[name] for name in "ab"}
        elif old is not None:
            kept = {name: None if name in names else old[name] for name in "ab"}
            if any(value is not None for name, value in kept.items() if name not in names):
                made[key] = kept
            else:
                del made[key]
    return made


class Fold(RuleBasedStateMachine):
    """A bucket beside plain dicts: the rows after each batch that the log has."""

    make_rules = make_put = None

    @initialize(
        log=st.sampled_from(["arrow", "compacted"]),
        image=st.sampled_from(["full", "wal"]),
        kv=st.sampled_from(["compacted", "indexed"]),
    )
    def begin(self, log, image, kv):
        properties = {"table.log.format": log, "table.changelog.image": image, "table.kv.format": kv}
        self.rules = self.make_rules(**properties)
        self.table = KvTable(counts_rows=self.rules.counts_rows)
        self.log = []  # (end offset, batch)
        self.models = [{}]  # before the first batch, and after each
        self.committed_count = 0
        self.snapshots = []

    @property
    def end_offset(self):
        return self.log[-1][0] if self.log else 0

    @rule(records=PUTS, named=st.sampled_from([(), (), *TARGETS]), taken=st.booleans())
    def put(self, records, named, taken):
        merged = finished(self.table.merging(self.rules, self.make_put(self.rules, records), named))
        if not taken:
            return
        self.table.accept(merged, self.end_offset)
        self.log.append((self.end_offset + merged.offset_count, merged.log_batch))
        self.models.append(after(self.models[-1], records, named))

    @precondition(lambda self: len(self.log) > self.committed_count)
    @rule(data=st.data())
    def commit(self, data):
        self.committed_count = data.draw(st.integers(self.committed_count + 1, len(self.log)))
        self.table.commit(self.log[self.committed_count - 1][0])

    @precondition(lambda self: len(self.log) > self.committed_count)
    @rule(data=st.data())
    def cut(self, data):
        kept = data.draw(st.integers(self.committed_count, len(self.log) - 1))
        del self.log[kept:]
        del self.models[kept + 1 :]
        self.table.cut(self.end_offset)

    @rule()
    def snapshot(self):
        self.snapshots.append((self.table.rows(), self.expected(self.models[self.committed_count])))

    @precondition(lambda self: self.snapshots)
    @rule()
    def close(self):
        snapshot, expected = self.snapshots.pop(0)

        assert expected == self.read(snapshot)
        snapshot.close()
        assert [] == list(snapshot)

    @rule(limit=st.integers(-1, 5), key=KEYS)
    def look(self, limit, key):
        committed = self.models[self.committed_count]
        ordered = self.expected(committed)
        value, newest = (
            self.table.get(self.rules.key_of((key,))),
            self.table.newest(self.rules.key_of((key,))),
        )

        assert [row for row in ordered if row[0] == key] == self.read([value])
        assert [row for row in self.expected(self.models[-1]) if row[0] == key] == self.read([newest])
        assert ordered[: max(0, limit)] == self.read(self.table.first(limit))
        assert [row for row in ordered if row[0] == key] == self.read(self.table.with_prefix(bytes([key])))

    def read(self, values):
        return [self.rules.values_of(value) for value in values if value is not None]

    @staticmethod
    def expected(model):
        return [(key, row["a"], row["b"]) for key, row in sorted(model.items())]

    @invariant()
    def rows_are_the_fold(self):
        committed = self.models[self.committed_count]
        folded = KvTable()
        for _, batch in self.log[: self.committed_count]:
            view = memoryview(batch)
            folded.replay(self.rules, view, read_head(view, 0))

        assert self.expected(committed) == self.read(folded.first(100))
        newest = [self.table.newest(self.rules.key_of((key,))) for key in range(13)]
        assert self.expected(self.models[-1]) == self.read(newest)
        assert (len(committed) if self.rules.counts_rows else None) == self.table.row_count
        for snapshot, expected in self.snapshots:
            assert expected == self.read(snapshot)


def test_rows_are_the_fold_of_the_changelog(rules_of, put_of, monkeypatch):
    """Lookups, scans, snapshots and replays agree with dicts after any order of events."""
    monkeypatch.setattr(rows, "KV_BLOCK_KEYS", 2)

    class Case(Fold):
        make_rules, make_put = staticmethod(rules_of), staticmethod(put_of)

    Case.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
    Case.TestCase().runTest()


@pytest.mark.parametrize("key_count", [0, 1, 3, 50, 3000])
def test_order_of_many_keys(key_count, monkeypatch):
    """Keys that come and go between ordered reads are where they belong, in many blocks."""
    monkeypatch.setattr(rows, "KV_BLOCK_KEYS", 8)
    held = rows.Rows()
    keys = [n.to_bytes(2, "big") for n in range(0, 2 * key_count, 2)]
    for key in keys:
        held.put(key, b"v" + key)

    assert [b"v" + key for key in keys] == held.first(10_000)
    snapshot = held.snapshot()
    for n in range(0, key_count, 9):
        held.put((2 * n + 1).to_bytes(2, "big"), b"new")
        held.remove((2 * n).to_bytes(2, "big"))
        held.put((2 * n + 2).to_bytes(2, "big"), b"changed")
        held.put((2 * n + 2).to_bytes(2, "big"), b"changed again")
        held.first(1)  # works the three in
    assert [held.values[key] for key in sorted(held.values)] == held.first(10_000)
    assert [held.values[key] for key in sorted(held.values) if key[:1] == b"\1"] == held.with_prefix(b"\1")
    assert (key_count, [b"v" + key for key in keys]) == (snapshot.row_count, list(snapshot))


def test_nobody_who_reads_in_order_costs_puts_nothing(monkeypatch):
    """Without scans nothing is sorted and nothing is kept, and after the last one it ends at some time."""
    monkeypatch.setattr(rows, "KV_BLOCK_KEYS", 8)
    held = rows.Rows()
    for n in range(100):
        held.put(bytes([n]), b"")

    assert held._blocks is None
    held.first(1)
    for n in range(100):
        held.remove(bytes([n]))
    assert (None, {}) == (held._blocks, held._unsorted)
