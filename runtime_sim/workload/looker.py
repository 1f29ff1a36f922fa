"""A client that reads the rows of a primary-key table: by keys, by prefixes, the first, all, their number.

One question at a time, and what is told is noted with what was known before and after. A scan goes on for
some calls, with time for puts between them; a session whose answer was lost is left to its server. An
auditor asks everything of every bucket once, and begins again where it was refused. Some lookers insert
rows now and then by looking their keys up; whether one does that is not answered, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from flussd.core.records.rows.atoms import BadRow
from flussd.core.records.values import read_value_batch, split_value
from flussd.core.replica.events import BucketKey
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode
from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.oracles.inserts import Insertion
from flussd.runtime_sim.oracles.keyed import KeyedLedger
from flussd.runtime_sim.oracles.ledger import Ledgers
from flussd.runtime_sim.oracles.sightings import Count, Run, Seen, Sighting, Values
from flussd.runtime_sim.oracles.violation import Oracle, Violation
from flussd.runtime_sim.workload.client import LOST, Answer, Client, Place
from flussd.runtime_sim.workload.keyed_batches import Key, Row, drawn_key
from flussd.runtime_sim.workload.keyed_tables import KeyedSpec
from flussd.runtime_sim.workload.places import KnownBuckets, TableInUse
from flussd.runtime_sim.workload.reader import RETRIABLE
from flussd.runtime_sim.workload.writer import RETRIABLE as WRITE_RETRIABLE

OVER: Final = frozenset(
    {ErrorCode.SCANNER_EXPIRED, ErrorCode.UNKNOWN_SCANNER_ID, ErrorCode.TOO_MANY_SCANNERS}
)
"""What a scan may be told at any call: its server has another leader's rows, or none for it."""

ALL: Final = 10_000


@attrs.frozen
class LookerConfig:
    """How one looker asks; drawn from the seed."""

    pause_ms: tuple[int, int]
    inserts_ppm: int = 0  # of its lookups
    acks: int = -1
    timeout_ms: int = 3_000


@attrs.frozen
class Question:
    """What was known of a bucket when it was asked about."""

    place: Place
    key: BucketKey
    address: str
    ledger: KeyedLedger
    generation: int
    least_offset: int


@attrs.define(eq=False, repr=False)
class Scan:
    """A scan of all rows that is under way."""

    question: Question
    batch_bytes: int
    log_offset: int = -1
    limit: int | None = None
    scanner_id: bytes = b""
    call: int = 0
    values: list[Row] = attrs.Factory(list)


@attrs.define(eq=False, repr=False)
class Looker:
    """One reader of rows of *table*."""

    client: Client
    table: TableInUse
    ledgers: Ledgers
    config: LookerConfig
    insert_draws: Stream  # of lookups that insert, alone
    is_inserting: bool = False
    buckets: KnownBuckets = attrs.field(init=False)
    to_audit: list[tuple[BucketKey, int]] | None = None  # bucket, number of the question; None: it draws

    def __attrs_post_init__(self) -> None:
        self.buckets = KnownBuckets(self.client, self.table)

    @property
    def spec(self) -> KeyedSpec:
        """What the table is like."""
        assert isinstance(self.table.spec, KeyedSpec)
        return self.table.spec

    def start(self) -> None:
        """Begin to ask."""
        self.buckets.places.start()
        self._next()

    def audit(self, keys: Iterable[BucketKey]) -> None:
        """Ask everything of each of *keys*, from now on."""
        self.to_audit = [(key, n) for key in keys for n in range(len(self._questions))]

    def _next(self) -> None:
        self.client.later(*self.config.pause_ms, self._act)

    def _act(self) -> None:
        if self.client.is_stopping:
            return
        if not self.buckets.all or self.to_audit == []:
            self._next()
            return
        place, key = self.client.draws.choice(self.buckets.all)
        ask = self.client.draws.choice(self._questions)
        if self.to_audit:
            wanted, n = self.to_audit[0]
            found = [(place, key) for place, key in self.buckets.all if key == wanted]
            if not found:  # its partition is gone
                self._done(wanted)
                self._next()
                return
            ((place, key),), ask = found, self._questions[n]
        address = self.client.leader_of(place, key[2])
        if address is None:
            self.buckets.learn(place)
            self._next()
            return
        ledger = self.ledgers.of(key)
        assert isinstance(ledger, KeyedLedger)
        ask(Question(place, key, address, ledger, ledger.generation, ledger.committed_offset))

    @property
    def _questions(self) -> tuple[Callable[[Question], None], ...]:
        return (self._lookup, self._lookup, self._first, self._prefix, self._scan, self._count)

    def _done(self, key: BucketKey) -> None:
        if self.to_audit and self.to_audit[0][0] == key:
            del self.to_audit[0]

    # ---- answers -------------------------------------------------------------------------------

    def _ask(self, question: Question, api_key: ApiKey, request: Any, told: Callable[[Any], None]) -> None:
        """Ask; *told* gets the answer of the bucket, if it is one. It then goes on."""

        def answered(answer: Answer) -> None:
            if answer.message is None:
                self._failed(question, api_key, answer.code, answer.text)
                return
            parts = getattr(answer.message, "buckets_resp", None)
            (part,) = (answer.message,) if parts is None else parts
            if part.error_code:
                self._failed(question, api_key, part.error_code, part.error_message)
                return
            self.client.world.count(f"{api_key.name.lower().replace('_', ' ')} answers")
            told(part)

        self.client.ask(question.address, api_key, request, answered)

    def _failed(
        self,
        question: Question,
        api_key: ApiKey,
        code: int,
        text: str,
        retriable: frozenset[ErrorCode] = RETRIABLE,
    ) -> None:
        is_over = api_key is ApiKey.SCAN_KV and code in OVER
        if is_over:
            self.client.world.count("scans cut short")
        if is_over and code == ErrorCode.TOO_MANY_SCANNERS:
            self._done(question.key)  # lost ones stay open for longer than a run
        elif not (is_over or code in retriable or code == LOST):
            told = f"{self.client.name}: {api_key.name} of {question.place} got {code}: {text}"
            raise Violation(Oracle.ANSWERS_MAKE_SENSE, told)
        self.buckets.learn(question.place)
        self._next()

    def _saw(self, question: Question, seen: Seen) -> None:
        ledger = question.ledger
        least, most = question.least_offset, ledger.watermark_offset
        ledger.sightings.append(Sighting(self.client.name, seen, least, most, question.generation))
        self._done(question.key)
        self._next()

    def _found(self, question: Question, part: Any) -> tuple[Row | None, ...]:
        """Return the rows that a lookup was told; None: there is none."""
        values = [entry.values if entry.HasField("values") else None for entry in part.values]
        return tuple([None if value is None else self._row(question, value) for value in values])

    def _row(self, question: Question, value: bytes) -> Row:
        """Return the row of a stored value."""
        try:
            schema_id, row = split_value(value)
            return self.spec.codec(schema_id).decode(row)
        except BadRow as bad:
            where = f"{self.client.name}: bucket {question.key}: {value.hex()}: {bad}"
            raise Violation(Oracle.BYTES_ARE_WHOLE, where) from None

    def _rows(self, question: Question, records: bytes) -> tuple[Row, ...]:
        try:
            values = read_value_batch(records) if records else []
        except BadRow as bad:
            raise Violation(Oracle.BYTES_ARE_WHOLE, f"{self.client.name}: {question.key}: {bad}") from None
        return tuple([self._row(question, value) for value in values])

    # ---- questions -----------------------------------------------------------------------------

    def _bucket(self, question: Question, request: Any, **facts: Any) -> Any:
        bucket = request.buckets_req.add(bucket_id=question.key[2], **facts)
        if question.place.partition:
            bucket.partition_id = question.key[1]
        return request

    def _lookup(self, question: Question) -> None:
        may_insert = not (self.to_audit or self.spec.is_partitioned)
        if may_insert and self.insert_draws.chance(self.config.inserts_ppm):
            self._insert(question)
            return
        draws = self.client.draws
        keys: list[Key] = [drawn_key(draws, self.spec) for _ in range(draws.between(1, 6))]
        if self.to_audit:
            keys = self.spec.all_keys
        encoded = [self.spec.keys.encode(key) for key in keys]
        request = messages.LookupRequest(table_id=question.key[0])

        def told(part: Any) -> None:
            self._saw(question, Values(tuple(zip(keys, self._found(question, part), strict=True))))

        self._ask(question, ApiKey.LOOKUP, self._bucket(question, request, keys=encoded), told)

    def _insert(self, question: Question) -> None:
        draws, ledger = self.insert_draws, question.ledger
        keys = tuple([drawn_key(draws, self.spec) for _ in range(draws.between(1, 4))])
        cut_count = ledger.cut_count
        ledger.inserts[keys] = None
        request = messages.LookupRequest(
            table_id=question.key[0],
            insert_if_not_exists=True,
            acks=self.config.acks,
            timeout_ms=self.config.timeout_ms,
        )
        encoded = [self.spec.keys.encode(key) for key in keys]
        self._bucket(question, request, keys=encoded)
        self.is_inserting = True

        def answered(answer: Answer) -> None:
            self.is_inserting = False
            code, text, rows = answer.code, answer.text, None
            if answer.message is not None:
                (part,) = answer.message.buckets_resp
                code, text = part.error_code, part.error_message
                rows = None if code else self._found(question, part)
            is_refused = code == ErrorCode.UNKNOWN_SERVER_ERROR and not self.spec.takes_inserts
            if code and not is_refused:
                self._failed(question, ApiKey.LOOKUP, code, text, WRITE_RETRIABLE)
                return
            self.client.world.count("inserting lookups refused" if is_refused else "inserting lookups")
            if cut_count == ledger.cut_count:
                window = question.least_offset, ledger.tail_offset
                told = Insertion(self.client.name, keys, rows, *window, question.generation)
                ledger.insertions.append(told)
            self._next()

        self.client.ask(question.address, ApiKey.LOOKUP, request, answered)

    def _prefix(self, question: Question) -> None:
        if not self.spec.has_prefixes:
            self._lookup(question)
            return
        k = self.client.draws.below(self.spec.key_values)
        request = messages.PrefixLookupRequest(table_id=question.key[0])

        def told(part: Any) -> None:
            (found,) = part.value_lists
            self._saw(question, Run(tuple([self._row(question, one) for one in found.values]), (k,)))

        encoded = [self.spec.prefixes.encode((k,))]
        self._ask(question, ApiKey.PREFIX_LOOKUP, self._bucket(question, request, keys=encoded), told)

    def _first(self, question: Question) -> None:
        limit = ALL if self.to_audit else self.client.draws.choice((1, 3, 8, ALL))
        request = messages.LimitScanRequest(
            table_id=question.key[0], bucket_id=question.key[2], limit=limit
        )
        if question.place.partition:
            request.partition_id = question.key[1]

        def told(part: Any) -> None:
            self._saw(question, Run(self._rows(question, part.records), limit=limit))

        self._ask(question, ApiKey.LIMIT_SCAN, request, told)

    def _count(self, question: Question) -> None:
        if not self.spec.is_full:  # then there is no number
            self._lookup(question)
            return
        request = messages.GetTableStatsRequest(table_id=question.key[0])
        self._ask(
            question,
            ApiKey.GET_TABLE_STATS,
            self._bucket(question, request),
            lambda part: self._saw(question, Count(part.row_count)),
        )

    # ---- scans ---------------------------------------------------------------------------------

    def _scan(self, question: Question) -> None:
        draws = self.client.draws
        scan = Scan(question, draws.choice((1, 40, 200, ALL)))
        request = messages.ScanKvRequest(call_seq_id=0, batch_size_bytes=scan.batch_bytes)
        request.bucket_scan_req.table_id = question.key[0]
        request.bucket_scan_req.bucket_id = question.key[2]
        if question.place.partition:
            request.bucket_scan_req.partition_id = question.key[1]
        if not self.to_audit and draws.chance(250_000):
            scan.limit = request.bucket_scan_req.limit = draws.between(1, 6)

        def told(part: Any) -> None:
            scan.log_offset, scan.scanner_id = part.log_offset, part.scanner_id
            self._scanned(scan, part)

        self._ask(question, ApiKey.SCAN_KV, request, told)

    def _scanned(self, scan: Scan, part: Any) -> None:
        scan.values += self._rows(scan.question, part.records)
        scan.call += 1
        if not part.has_more_results:
            self._ended(scan, scan.limit)
        elif not self.to_audit and self.client.draws.chance(50_000):
            request = messages.ScanKvRequest(scanner_id=scan.scanner_id, close_scanner=True)
            limit = len(scan.values)  # of what it would have given, these are the first
            self._ask(scan.question, ApiKey.SCAN_KV, request, lambda _: self._ended(scan, limit))
        else:
            self.client.later(0, self.config.pause_ms[1], self._go_on, scan)

    def _go_on(self, scan: Scan) -> None:
        if self.client.is_stopping:
            return
        request = messages.ScanKvRequest(
            scanner_id=scan.scanner_id, call_seq_id=scan.call, batch_size_bytes=scan.batch_bytes
        )
        self._ask(scan.question, ApiKey.SCAN_KV, request, lambda part: self._scanned(scan, part))

    def _ended(self, scan: Scan, limit: int | None) -> None:
        question, ledger, at = scan.question, scan.question.ledger, scan.log_offset
        if question.generation == ledger.generation or ledger.promises_all:
            if not question.least_offset <= at <= ledger.watermark_offset:
                window = f"[{question.least_offset}, {ledger.watermark_offset}]"
                text = f"{self.client.name}: {question.key}: a scan at {at}, expected one within {window}"
                raise Violation(Oracle.SCANS_ARE_SNAPSHOTS, text)
            ledger.committed_offset = max(ledger.committed_offset, at)
        seen = Run(tuple(scan.values), limit=limit)
        ledger.sightings.append(
            Sighting(self.client.name, seen, at, at, question.generation, is_snapshot=True)
        )
        self._done(question.key)
        self._next()
