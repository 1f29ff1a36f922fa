"""A client that asks about logs without following them: last rows, offsets by time, counts, old schemas.

What it is told is judged by what was known when it asked, at once where that is possible and at the end
where all of the log must be known.
"""

from __future__ import annotations

from typing import Any

import attrs

from flussd.core.records.batch import crc_is_right, read_head
from flussd.core.replica.events import BucketKey
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.oracles.ledger import Ledger, Ledgers
from flussd.runtime_sim.oracles.probes import ByTime
from flussd.runtime_sim.oracles.schemas import SchemaTruth
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.alterer import read_schema
from flussd.runtime_sim.workload.batches import identity_of
from flussd.runtime_sim.workload.client import Answer, Client, Place
from flussd.runtime_sim.workload.places import KnownBuckets, TableInUse
from flussd.runtime_sim.workload.reader import RETRIABLE

BY_TIME = 2
PAUSE_MS = (80, 900)


@attrs.frozen
class Known:
    """What was known of a log when a question was sent."""

    ledger: Ledger
    generation: int
    committed_offset: int
    start_offset: int

    @classmethod
    def of(cls, ledger: Ledger) -> Known:
        """Return what is known now."""
        return cls(ledger, ledger.generation, ledger.committed_offset, ledger.start_offset)

    @property
    def holds(self) -> bool:
        """Whether the log cannot have lost any of it since."""
        return not self.ledger.may_have_been_cut(self.generation)


@attrs.define(eq=False, repr=False)
class Prober:
    """Asks about *table*; one question at a time."""

    client: Client
    table: TableInUse
    ledgers: Ledgers
    schema: SchemaTruth
    buckets: KnownBuckets = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.buckets = KnownBuckets(self.client, self.table)

    def start(self) -> None:
        """Begin to ask."""
        self.buckets.places.start()
        self._next()

    def _next(self) -> None:
        self.client.later(*PAUSE_MS, self._act)

    def _act(self) -> None:
        if self.client.is_stopping:
            return
        draws = self.client.draws
        if not self.buckets.all:
            self._next()
            return
        if draws.chance(200_000):
            schema_id = draws.between(1, self.schema.newest)
            read_schema(self.client, self.client.any_server(), self.schema, schema_id, self._next)
            return
        place, key = draws.choice(self.buckets.all)
        address = self.client.leader_of(place, key[2])
        if address is None:
            self.buckets.learn(place)
            self._next()
            return
        ask = draws.choice((self._scan, self._offset, self._stats))
        ask(place, key, address, Known.of(self.ledgers.of(key)))

    def _refused(self, place: Place, what: str, code: int, text: str) -> None:
        if code not in RETRIABLE:
            told = f"{self.client.name}: {what} of {place} got {code}: {text}"
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, told)
        self.buckets.learn(place)

    def _lost(self, place: Place, what: str, answer: Answer) -> None:
        if answer.is_lost:
            self.buckets.learn(place)
        else:
            self._refused(place, what, answer.code, answer.text)

    # ---- the last rows -------------------------------------------------------------------------

    def _scan(self, place: Place, key: BucketKey, address: str, known: Known) -> None:
        limit = self.client.draws.choice((0, 1, 3, 20, 1_000))
        request = messages.LimitScanRequest(table_id=key[0], bucket_id=key[2], limit=limit)
        if place.partition:
            request.partition_id = key[1]

        def answered(answer: Answer) -> None:
            if answer.message is None:
                self._lost(place, "a scan", answer)
            elif answer.message.error_code:
                self._refused(place, "a scan", answer.message.error_code, answer.message.error_message)
            else:
                self._scanned(known, limit, memoryview(answer.message.records))
            self._next()

        self.client.ask(address, ApiKey.LIMIT_SCAN, request, answered)

    def _scanned(self, known: Known, limit: int, view: memoryview) -> None:
        where = f"{self.client.name}: the last {limit} of {known.ledger.key}"
        first = first_end = end = -1
        at = 0
        while at < len(view):
            head = read_head(view, at)
            if head is None or at + head.size_bytes > len(view) or not crc_is_right(view, head):
                raise Violation(Oracle.BYTES_ARE_WHOLE, f"{where}: not a whole batch: {head}")
            if end not in (-1, head.base_offset):
                raise Violation(Oracle.CONTIGUOUS, f"{where}: {head.base_offset} behind {end}")
            identity = identity_of(view, head)
            if identity is None:
                raise Violation(Oracle.NOTHING_INVENTED, f"{where}: nobody wrote this: {head}")
            end = head.base_offset + head.last_offset_delta + 1
            if first < 0:
                first, first_end = head.base_offset, end
            known.ledger.read(head, identity, known.generation, end)
            at += head.size_bytes
        self.client.world.count("limit scans")
        if known.holds:
            self._judge(known, limit, (first, first_end, end), where)

    def _judge(self, known: Known, limit: int, got: tuple[int, int, int], where: str) -> None:
        """The last of what is there must be the end, and the first batch must be where it begins."""
        first, first_end, end = got
        start_offset = known.ledger.start_offset  # retention may have gone on meanwhile
        text = f"{where}: got [{first}, {end}), committed were {known.committed_offset}"
        if first < 0:
            if limit and start_offset < known.committed_offset:
                raise Violation(Oracle.SCANS_TELL_THE_END, text)
            return
        least, most = max(known.start_offset, end - limit), max(start_offset, end - limit)
        if not limit or end < known.committed_offset or first > most or first_end <= least:
            raise Violation(Oracle.SCANS_TELL_THE_END, f"{text}, expected one that holds {most} first")

    # ---- offsets by time -----------------------------------------------------------------------

    def _offset(self, place: Place, key: BucketKey, address: str, known: Known) -> None:
        times = [entry.commit_ms for entry in known.ledger.entries.values() if entry.commit_ms >= 0]
        if not times:
            self._next()
            return
        draws = self.client.draws
        commit_ms = draws.choice(times) + draws.choice((-1, 0, 0, 0, 1))
        request = messages.ListOffsetsRequest(
            follower_server_id=-1,
            offset_type=BY_TIME,
            table_id=key[0],
            bucket_id=[key[2]],
            startTimestamp=commit_ms,
        )
        if place.partition:
            request.partition_id = key[1]

        def answered(answer: Answer) -> None:
            if answer.message is None:
                self._lost(place, "an offset", answer)
            else:
                (told,) = answer.message.buckets_resp
                if not told.error_code:
                    self.client.world.count("offsets by time")
                    probe = ByTime(commit_ms, told.offset, known.committed_offset, known.generation)
                    known.ledger.probes.append(probe)
                elif told.error_code != ErrorCode.INVALID_TIMESTAMP_EXCEPTION:  # its clock jumped back
                    self._refused(place, "an offset", told.error_code, told.error_message)
            self._next()

        self.client.ask(address, ApiKey.LIST_OFFSETS, request, answered)

    # ---- counts --------------------------------------------------------------------------------

    def _stats(self, place: Place, key: BucketKey, address: str, known: Known) -> None:
        request = messages.GetTableStatsRequest(table_id=key[0])
        bucket: Any = request.buckets_req.add(bucket_id=key[2])
        if place.partition:
            bucket.partition_id = key[1]

        def answered(answer: Answer) -> None:
            if answer.message is None:
                self._lost(place, "a count", answer)
            else:
                (told,) = answer.message.buckets_resp
                if told.error_code:
                    self._refused(place, "a count", told.error_code, told.error_message)
                else:
                    self._counted(known, told.row_count)
            self._next()

        self.client.ask(address, ApiKey.GET_TABLE_STATS, request, answered)

    def _counted(self, known: Known, row_count: int) -> None:
        self.client.world.count("row counts")
        ledger = known.ledger
        least = known.committed_offset - ledger.start_offset if known.holds else 0
        if not least <= row_count <= ledger.sent_count:
            text = f"{self.client.name}: {ledger.key}: expected {least} to {ledger.sent_count} rows"
            raise Violation(Oracle.COUNTS_ARE_PLAUSIBLE, f"{text}, got {row_count}")
