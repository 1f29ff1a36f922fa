"""Broken versions of the core, by name: what the oracles must catch, or they are worth nothing.

Each mutant replaces one function of the core while it is applied, and breaks one promise. It must be put
back by leaving the context, so that one process can run several. `detected_by` names the oracles that may
find it; a plain assertion of the core does not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs

from flussd.core.ahead import ReadAhead
from flussd.core.catalog import answers
from flussd.core.catalog.catalog import Catalog
from flussd.core.coordinator import activation, producer_offsets
from flussd.core.files import RemoveFile
from flussd.core.log import recovery
from flussd.core.log.index import DenseIndex, SparseIndex
from flussd.core.log.log import Log
from flussd.core.log.recovery import Recovery
from flussd.core.log.writers import Verdict, Writers
from flussd.core.records import predicate
from flussd.core.records.predicate import Function
from flussd.core.registry.registry import RegistryMachine
from flussd.core.replica.events import AppendAnswered
from flussd.core.replica.flights import NO_TICKET
from flussd.core.replica.replica import Replica
from flussd.core.replica.stored import Asked, StoredLog
from flussd.core.storage import Files
from flussd.core.tablet import fetch
from flussd.core.tablet.buckets import Buckets
from flussd.runtime_sim.mutants.keyed import KEYED_MUTANTS
from flussd.runtime_sim.mutants.mutant import Mutant
from flussd.runtime_sim.oracles.violation import Oracle


def _no_crc(_: Any) -> Any:
    return lambda _view, _head: True


def _ack_first(original: Any) -> Any:
    def write(self: Any, event: Any, timestamp_ms: int, undo: Any) -> None:
        base_offset = self.log.end_offset
        end_offset = base_offset + sum(head.last_offset_delta + 1 for head in event.heads)
        self._out.append(AppendAnswered(event.ticket, base_offset, end_offset=end_offset))
        original(self, attrs.evolve(event, ticket=NO_TICKET), timestamp_ms, undo)

    return write


def _no_duplicates(original: Any) -> Any:
    def judge(self: Any, writer_id: int, sequence: int) -> Any:
        verdict, batch = original(self, writer_id, sequence)
        return (Verdict.NEXT, None) if verdict is Verdict.DUPLICATE else (verdict, batch)

    return judge


def _a_second_early(original: Any) -> Any:
    return lambda state, wall_ms: original(state, wall_ms + 1_000)


def _over_at_once(original: Any) -> Any:
    return lambda producer_id, data: attrs.evolve(original(producer_id, data), expires_ms=0)


def _no_writers(original: Any) -> Any:
    def take(self: Any, head: Any) -> None:
        original(self, head)
        self.writers.states.pop(head.writer_id, None)

    return take


def _no_sync(_: Any) -> Any:
    return lambda _self, _file, done: done(None)


def _whole_segment(_: Any) -> Any:
    return lambda _replica, segment: segment.size_bytes


def _no_erasing(_: Any) -> Any:
    def erase(self: Any, key: Any) -> None:
        self.replicas.pop(key, None)
        epoch = self.dropping.pop(key, None)
        if epoch is None:
            return
        self.server.reports.deleted(key, epoch)

    return erase


def _any_age(_: Any) -> Any:
    return lambda self, _before_ms: self.segments[:-1]


def _with_active(original: Any) -> Any:
    def remove(self: Any) -> None:
        given_up = len(self.given_up)
        original(self)
        if given_up > len(self.given_up):
            token = self.next_token()
            self.asked[token] = Asked.OLD
            self._out.append(RemoveFile(token, self.log.file(self.log.active)))

    return remove


def _one_entry_on(original: Any) -> Any:
    before: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def note(self: Any, offset: int, position: int, timestamp_before_ms: int) -> None:
        # The entry names the batch before, and has the position of this one.
        original(self, before.get(self, offset), position, timestamp_before_ms)
        before[self] = offset

    return note


def _one_batch_on(_: Any) -> Any:
    def at(self: Any, offset: int) -> int:
        n = bisect_right(self.offsets, offset)
        return int(self.positions[min(n, len(self.positions) - 1)])

    return at


def _no_nulls(original: Any) -> Any:
    def may_match(leaf: Any, bounds: Any, row_count: int) -> bool:
        return leaf.function is not Function.IS_NULL and bool(original(leaf, bounds, row_count))

    return may_match


def _early(original: Any) -> Any:
    def send(self: Any) -> None:
        original(self)
        self._release()

    return send


def _unsorted(_: Any) -> Any:
    # The order of a set of texts depends on PYTHONHASHSEED: that is what must be seen.
    return lambda self, database: list(set(self.names.get(database, ())))


def _any_place(original: Any) -> Any:
    return lambda self, file, position: original(self, file, min(self._held[file], default=position))


def _unstamped(original: Any) -> Any:
    return lambda self, place, views: original(self, place, (bytes(8), b"".join(views)[8:]))


def _without_the_last(original: Any) -> Any:
    def introduce(catalog: Any, response: Any) -> None:
        original(catalog, response)
        del response.table_metadata[-1:]

    return introduce


MUTANTS: Final = {
    "no_crc_on_recovery": Mutant(
        "recovery believes a batch whose checksum is wrong",
        recovery,
        "crc_is_right",
        _no_crc,
        # The last: rows of a primary-key table cannot be folded from a batch that is damaged.
        (
            Oracle.BYTES_ARE_WHOLE,
            Oracle.ANSWERS_MAKE_SENSE,
            Oracle.NOTHING_INVENTED,
            Oracle.CLUSTER_RECOVERS,
        ),
    ),
    "ack_before_append": Mutant(
        "a batch is acknowledged before it is written",
        Replica,
        "_write",
        _ack_first,
        # The last two: a row of a primary-key table that was acknowledged is not there to be read.
        (
            Oracle.ACKED_SURVIVES,
            Oracle.READS_ARE_STABLE,
            Oracle.WRITERS_REMEMBERED,
            Oracle.ROWS_ARE_FRESH,
            Oracle.SCANS_ARE_SNAPSHOTS,
        ),
    ),
    "reuse_writer_sequence": Mutant(
        "a batch that is there already is appended again",
        Writers,
        "judge",
        _no_duplicates,
        (Oracle.EXACTLY_ONCE, Oracle.IN_ORDER),
    ),
    "forget_writers_on_recovery": Mutant(
        "a restarted server does not know the writers of what it scanned",
        Recovery,
        "_take",
        _no_writers,
        (Oracle.WRITERS_REMEMBERED, Oracle.EXACTLY_ONCE),
    ),
    "sync_lies": Mutant(
        "a sync is confirmed and not done",
        Files,
        "_sync_all",
        _no_sync,
        (
            Oracle.ACKED_SURVIVES,
            Oracle.SYNCED_SURVIVES,
            Oracle.READS_ARE_STABLE,
            Oracle.CATALOG_IS_TRUE,
            Oracle.FIRST_REGISTRATION,
        ),
    ),
    "read_uncommitted": Mutant(
        "readers get what lies above the high watermark",
        fetch,
        "end_in",
        _whole_segment,
        (Oracle.BELOW_WATERMARK, Oracle.READS_ARE_STABLE),
    ),
    "drop_leaves_files": Mutant(
        "the files of a dropped table stay",
        Buckets,
        "_erase_if_idle",
        _no_erasing,
        (Oracle.NOTHING_LEAKS,),
    ),
    "retention_ignores_age": Mutant(
        "retention gives up every segment but the one that grows",
        Log,
        "expired",
        _any_age,
        (Oracle.KEPT_LONG_ENOUGH,),
    ),
    "producers_end_early": Mutant(
        "the offsets of a producer end before their time",
        producer_offsets,
        "expire",
        _a_second_early,
        (Oracle.FIRST_REGISTRATION,),
    ),
    "producers_forgotten": Mutant(
        "a coordinator that starts takes registered offsets for old ones",
        activation,
        "decode_producer",
        _over_at_once,
        (Oracle.FIRST_REGISTRATION,),
    ),
    "retention_deletes_active": Mutant(
        "retention removes the file of the segment that grows, too",
        StoredLog,
        "_remove_given_up",
        _with_active,
        # The last: what is written behind the hole makes readers hear of damage, which there was not.
        (
            Oracle.ACKED_SURVIVES,
            Oracle.READS_ARE_STABLE,
            Oracle.READERS_PROGRESS,
            Oracle.BYTES_ARE_WHOLE,
            Oracle.ANSWERS_MAKE_SENSE,
        ),
    ),
    "index_one_batch_off": Mutant(
        "entries of the sparse index point one batch too far",
        SparseIndex,
        "note",
        _one_entry_on,
        (
            Oracle.CONTIGUOUS,
            Oracle.SCANS_TELL_THE_END,
            Oracle.TIMES_ARE_ORDERED,
            Oracle.FILTERS_KEEP_MATCHES,  # a reader that filters takes what is skipped for left out
        ),
        likely=(13,),
    ),
    "dense_index_one_batch_off": Mutant(
        "the dense index points one batch too far",
        DenseIndex,
        "at",
        _one_batch_on,
        (Oracle.CONTIGUOUS, Oracle.SCANS_TELL_THE_END),
    ),
    "filter_skips_null": Mutant(
        "a filter leaves out batches of which only nulls are wanted",
        predicate,
        "_leaf_may_match",
        _no_nulls,
        (Oracle.FILTERS_KEEP_MATCHES,),
        likely=(23,),
    ),
    "registry_confirms_before_sync": Mutant(
        "the registry tells what it did before its log is synced",
        RegistryMachine,
        "_send_group",
        _early,
        # Ids come from the registry, too: a block of writer ids given out twice is two writers in one.
        (
            Oracle.CATALOG_IS_TRUE,
            Oracle.IDS_ARE_NEW,
            Oracle.FIRST_REGISTRATION,
            Oracle.SCHEMAS_LAST,
            Oracle.WRITERS_REMEMBERED,
        ),
        likely=(18,),
    ),
    "ahead_of_another": Mutant(
        "what was read ahead is given to whoever reads that file, wherever",
        ReadAhead,
        "_take",
        _any_place,
        (Oracle.CONTIGUOUS, Oracle.ANSWERS_MAKE_SENSE),  # or it is taken for damage, which there was not
    ),
    "fresh_without_offset": Mutant(
        "a reader that waits gets what was just written as it came from the writer, without its offset",
        ReadAhead,
        "writes",
        _unstamped,
        (Oracle.CONTIGUOUS, Oracle.ANSWERS_MAKE_SENSE),
    ),
    "introduces_all_but_one": Mutant(
        "a client that forgets its tables is told of all but one of them",
        answers,
        "_introduce_tables",
        _without_the_last,
        (Oracle.CATALOG_IS_TRUE,),
    ),
    **KEYED_MUTANTS,
    "set_order": Mutant("a list has the order of a set", Catalog, "table_names", _unsorted, ()),
}
"""By name; `set_order` breaks no promise but that of the hash."""


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Break the core by mutant *name* for a while; None: leave it whole."""
    if name is None:
        yield
        return
    mutant = MUTANTS[name]
    original = getattr(mutant.owner, mutant.name)
    setattr(mutant.owner, mutant.name, mutant.make(original))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.name, original)
