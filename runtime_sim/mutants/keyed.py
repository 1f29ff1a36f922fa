"""Broken versions of what keeps the rows of primary-key tables; see catalogue.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from flussd.core.kv import changelog
from flussd.core.kv.buffer import Buffer, Writes
from flussd.core.kv.merge import NewestVersion
from flussd.core.kv.partial import Numbered
from flussd.core.kv.rows import Snapshot
from flussd.core.kv.table import KvTable
from flussd.core.registry.messages import Multi, Outcome
from flussd.core.slices import Slices
from flussd.core.tablet.auto_ids import AutoIds
from flussd.core.tablet.keyed import Keyed
from flussd.core.tablet.parts import key_of
from flussd.core.tablet.puts import PutWaiter
from flussd.core.tablet.reads import InsertWaiter
from flussd.runtime_sim.mutants.mutant import Mutant
from flussd.runtime_sim.oracles.violation import Oracle

WRONG_ROWS: Final = (
    Oracle.ROWS_ARE_THE_FOLD,
    Oracle.ROWS_ARE_FRESH,
    Oracle.ROWS_ARE_COMMITTED,
    Oracle.SCANS_ARE_SNAPSHOTS,
)


def _at_once(original: Any) -> Any:
    def accept(self: Any, merged: Any, base_offset: int) -> None:
        original(self, merged, base_offset)
        self.commit(base_offset + merged.offset_count)

    return accept


def _keep_last(original: Any) -> Any:
    def cut(self: Any, end_offset: int) -> None:
        last = dict(self._last)
        original(self, end_offset)
        self._last.update(last)

    return cut


def _no_deletes(original: Any) -> Any:
    def replayed(*arguments: Any) -> Slices[Writes]:
        writes = yield from original(*arguments)
        return {key: value for key, value in writes.items() if value is not None}

    return replayed


def _all_the_same(original: Any) -> Any:
    def append(self: Any, key: Any, merged: Any, asked: Any) -> None:
        end_offset = self.server.buckets.replicas[key].log.end_offset
        original(self, key, merged, asked)
        if end_offset == self.server.buckets.replicas[key].log.end_offset and key in self.buckets:
            self.buckets[key].table._rows.apply(merged.writes)

    return append


def _as_they_are(_: Any) -> Any:
    def values(self: Any) -> Iterator[bytes]:
        for block in self._blocks:
            for key in block:
                value = self._rows.values.get(key)
                yield self._replaced[key] if value is None else value

    return values


def _half_restored(original: Any) -> Any:
    def writable(self: Any, key: Any) -> Any:
        bucket = self.buckets.get(key)
        if bucket is None or bucket.is_restored or bucket.table.row_count == 0:
            return original(self, key)
        return bucket

    return writable


def _newer_alone(original: Any) -> Any:
    def update(self: Any, old: bytes, new: bytes) -> Any:
        return old if self.version_of(old) == self.version_of(new) else original(self, old, new)

    return update


def _any_version(original: Any) -> Any:
    def submit(self: Any, asked: Any, operation: Any) -> None:
        if asked.blocks:
            (write,) = operation.writes
            operation = Multi((attrs.evolve(write, version=-1),))
        original(self, asked, operation)

    return submit


def _unknown_is_done(original: Any) -> Any:
    def answered(self: Any, token: int, answer: Any) -> None:
        if self.asked[token].blocks and answer.outcome is Outcome.UNKNOWN:
            answer = attrs.evolve(answer, outcome=Outcome.OK)
        original(self, token, answer)

    return answered


def _new_id(original: Any) -> Any:
    def update(self: Any, old: bytes, new: bytes) -> bytes:
        merged = original(self, old, new)
        values = list(self.rows.values(merged))
        values[self.column] = self.ids.draw()
        return old if merged is old else bytes(self.rows.stored(tuple(values)))

    return update


def _all_are_missing(original: Any) -> Any:
    def missing_rows(self: Any, rules: Any, keys: Any) -> Any:
        return original(type(self)(), rules, keys)  # as of a table without rows

    return missing_rows


def _committed_alone(original: Any) -> Any:
    def answer(self: Any, index: int, news: Any) -> Any:
        told, asked = original(self, index, news), self.asked.buckets_req[index]
        led = self.keyed.writable(key_of(self.table_id, asked))
        if not told.error_code:
            for value, key in zip(told.values, asked.keys, strict=True):
                value.ClearField("values")
                committed = led.table.get(key)
                if committed is not None:
                    value.values = committed
        return told

    return answer


def _first_end(original: Any) -> Any:
    def answer(self: Any, index: int, news: Any) -> Any:
        told = original(self, index, news)
        known = [one for one in self.answers if one is not None and not one.error_code]
        if known and not told.error_code:
            told.log_end_offset = known[0].log_end_offset
        return told

    return answer


KEYED_MUTANTS: Final = {
    "kv_commits_before_written": Mutant(
        "rows are visible as soon as the log took them, before they are written",
        KvTable,
        "accept",
        _at_once,
        (*WRONG_ROWS, Oracle.CHANGELOG_IS_TRUE),  # a cut log leaves rows for later puts to see
        likely=(1,),
    ),
    "kv_forgets_cut": Mutant(
        "rows that were cut from the log stay for later puts to see",
        Buffer,
        "cut",
        _keep_last,
        (Oracle.CHANGELOG_IS_TRUE,),
        likely=(1,),
    ),
    "kv_replay_skips_deletes": Mutant(
        "a new leader does not fold the deletes of its log",
        changelog,
        "replayed",
        _no_deletes,
        (*WRONG_ROWS, Oracle.CHANGELOG_IS_TRUE),
        likely=(1,),
    ),
    "kv_duplicate_merged_twice": Mutant(
        "the rows of a batch count again when the log has it already",
        Keyed,
        "append",
        _all_the_same,
        (*WRONG_ROWS, Oracle.CHANGELOG_IS_TRUE),
        likely=(1,),
    ),
    "kv_serves_half_restored": Mutant(
        "rows are served while they are being restored",
        Keyed,
        "writable",
        _half_restored,
        (*WRONG_ROWS, Oracle.CHANGELOG_IS_TRUE),
        likely=(5,),
    ),
    "kv_equal_version_stays": Mutant(
        "a row of the same version does not replace the one that is there",
        NewestVersion,
        "update",
        _newer_alone,
        (Oracle.CHANGELOG_IS_TRUE,),
    ),
    "scan_sees_later_puts": Mutant(
        "a scan gives rows as they are when it gets to them",
        Snapshot,
        "__iter__",
        _as_they_are,
        (Oracle.SCANS_ARE_SNAPSHOTS,),
    ),
    "ids_block_unchecked": Mutant(
        "a block of ids is taken whoever took one since its counter was read",
        AutoIds,
        "_submit",
        _any_version,
        (Oracle.IDS_ARE_NEW,),
        likely=(25,),
    ),
    "ids_unknown_is_done": Mutant(
        "a block of ids is used though nobody knows whether its counter was written",
        AutoIds,
        "answered",
        _unknown_is_done,
        (Oracle.IDS_ARE_NEW,),
        likely=(18,),
    ),
    "insert_does_not_look": Mutant(
        "a lookup that inserts puts rows of all its keys, whether they have one or not",
        KvTable,
        "missing_rows",
        _all_are_missing,
        # The second: where it has to be refused, it is refused without need.
        (Oracle.INSERTS_FILL_GAPS, Oracle.INSERTS_ARE_TOLD),
        likely=(5,),
    ),
    "insert_tells_committed": Mutant(
        "a lookup that inserts is answered out of the committed rows alone",
        InsertWaiter,
        "answer",
        _committed_alone,
        (Oracle.INSERTS_ARE_TOLD,),
        likely=(39,),
    ),
    "put_answers_another_end": Mutant(
        "a put of several buckets tells the end of one of them for all",
        PutWaiter,
        "answer",
        _first_end,
        (Oracle.EXACTLY_ONCE, Oracle.READS_ARE_STABLE, Oracle.ACKED_SURVIVES),
        likely=(5,),
    ),
    "ids_new_on_update": Mutant(
        "a row that is updated gets another id",
        Numbered,
        "update",
        _new_id,
        (Oracle.CHANGELOG_IS_TRUE,),
        likely=(5,),
    ),
}
"""By name."""
