"""One replica of one bucket of a log table: who leads, what is committed, whom to answer.

Pure. Its caller owes it completions of every disk effect, in any order between files, and hands it
the views of a produce request only for the time of one step. It never answers before what it says
is true: a base offset after the write, acks=-1 after the high watermark covers the batch.

At replication factor 1 the leader is alone in its ISR, so the watermark is what is written, or with
group_fsync what is durable. Roles, epochs, term start and incarnation are kept as rules 1-3 of the
replication protocol want them.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from flussd.core import files as f
from flussd.core.log.segment import index_name
from flussd.core.log.writers import Batch, Verdict
from flussd.core.machine import Continue
from flussd.core.records.batch import BatchHead, patches
from flussd.core.replica import events as e
from flussd.core.replica.flights import NO_TICKET, Flight, Undo
from flussd.core.replica.stored import Asked, Role, StoredLog
from flussd.core.wire.errors import ErrorCode


@attrs.define(eq=False)
class Replica(StoredLog):
    """Change it through step() alone; its fields are open to readers."""

    epoch: int = -1
    incarnation: int = -1
    term_start_offset: int = 0
    given: e.LeadershipGiven | None = None  # taken up, or to be once the log is whole
    waiting: list[tuple[int, int, int, int]] = attrs.Factory(list)  # heap: end, order, ticket, base
    _order: int = 0

    def step(self, event: Any, out: list[Any]) -> None:
        """Take *event* in; append effects and news to *out*, in order."""
        self._out = out
        self.TABLE[type(event)][self.role](self, event)
        self.check()

    def check(self) -> None:
        """Assert what holds between any two steps."""
        if self.role is Role.RECOVERING:
            return
        # Fields instead of properties: this is once a step, and calls are what it costs.
        written_offset, end_offset = self.written[0], self.log.segments[-1].end_offset
        assert self.committed[0] <= written_offset <= end_offset
        assert self.durable.end[0] <= written_offset
        if self.role is Role.TROUBLED:
            assert not self.waiting
        else:
            assert written_offset == end_offset or self.flights.queue

    @property
    def has_committed(self) -> bool:
        """Whether what earlier terms left is committed in ours; what is told before may disappear."""
        return self.high_watermark >= self.term_start_offset

    # ---- leadership ----------------------------------------------------------------------------

    def _keep(self, event: e.LeadershipGiven) -> None:
        """Remember the newest grant, for when the log is whole."""
        if self.given is None or event.epoch > self.given.epoch:
            self.given = event

    def _drop_grant(self, _: e.LeadershipTaken) -> None:
        """Drop a grant that was not taken up yet."""
        self.given = None

    def _recovered(self) -> None:
        self.role = Role.OFFLINE
        self._out.append(e.Recovered(self.key, self.last_cut))
        if self.given is not None:
            self._activate(self.given)

    def _activate(self, event: e.LeadershipGiven) -> None:
        """Make the epoch's entry durable before the first batch that it covers (rule 1)."""
        if event.epoch < self.epochs.last_epoch:
            return  # an old decision, overtaken by a newer one
        self.given = event
        if self.flights.queue or self.cut_to is not None:
            return  # the log's end is not known yet
        self.role, self.epoch, self.incarnation = Role.ACTIVATING, event.epoch, event.incarnation
        self.term_start_offset = self.log.end_offset
        self.epochs.begin(event.epoch, self.log.end_offset)
        self.durable.forget_plan()
        self._activate_on_disk()

    def _activate_again(self, event: e.LeadershipGiven) -> None:
        """A newer epoch, for us again: give the old one up in order, then take it."""
        if event.epoch > self.epoch:
            self._step_down(e.LeadershipTaken())
            self._activate(event)

    def _lead(self) -> None:
        self.role = Role.LEADER
        self._out.append(e.Leading(self.key, self.epoch))
        self._commit()
        self._go_on()

    def _step_down(self, _: e.LeadershipTaken) -> None:
        self._leave(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the bucket's leader changed")
        self.role, self.given = Role.OFFLINE, None

    def _leave(self, code: ErrorCode, text: str) -> None:
        """Lead no more. Batches of those who waited may be in the log: a retry finds out."""
        for _, _, ticket, _ in self.waiting:
            self._answer(ticket, -1, code, text)
        self.waiting.clear()
        self._refuse_beyond(-1, code, text)
        if self.role is Role.LEADER:
            self._out.append(e.LeadershipLeft(self.key))

    def _refuse_beyond(self, end_offset: int, code: ErrorCode, text: str) -> None:
        """Refuse the writes on their way, and the duplicates that wait for them."""
        for flight in self.flights.queue:
            if flight.ticket != NO_TICKET:
                self._answer(flight.ticket, -1, code, text)
                flight.ticket = NO_TICKET
        for entry in sorted(entry for entry in self.waiting if entry[0] > end_offset):
            self._answer(entry[2], -1, code, text)
        self.waiting = [entry for entry in self.waiting if entry[0] <= end_offset]
        heapq.heapify(self.waiting)

    # ---- appends -------------------------------------------------------------------------------

    def _refuse(self, event: e.AppendAsked) -> None:
        text = "this server does not lead the bucket"
        self._answer(event.ticket, -1, ErrorCode.NOT_LEADER_OR_FOLLOWER, text)

    def _refuse_troubled(self, event: e.AppendAsked) -> None:
        self._answer(event.ticket, -1, self.trouble_code, self.trouble)

    def _append(self, event: e.AppendAsked) -> None:
        if not event.heads:
            self._answer(event.ticket, -1)  # nothing to do is done
            return
        if self.cut_to is not None or self.flights.error is not None:
            self._refuse_troubled(event)
            return
        timestamp_ms = max(self.log.active.max_timestamp_ms, event.wall_ms)
        undo: list[Undo] = []
        refused = self._judge(event.heads, timestamp_ms, undo)
        if refused is None:
            self._write(event, timestamp_ms, undo)
            return
        for writer_id, before in reversed(undo):
            self.writers.undo(writer_id, before)
        self._answer_refused(event, *refused)

    def _judge(
        self, heads: tuple[BatchHead, ...], timestamp_ms: int, undo: list[Undo]
    ) -> tuple[BatchHead, Verdict] | None:
        """Note the batches with their writers; return the first one that is not the next."""
        offset = self.log.end_offset
        for head in heads:
            end_offset = offset + head.last_offset_delta + 1
            if head.writer_id >= 0:
                verdict, _ = self.writers.judge(head.writer_id, head.batch_sequence)
                if verdict is not Verdict.NEXT:
                    return head, verdict
                before = self.writers.add(
                    head.writer_id, head.batch_sequence, offset, end_offset, timestamp_ms
                )
                undo.append((head.writer_id, before))
            offset = end_offset
        return None

    def _answer_refused(self, event: e.AppendAsked, head: BatchHead, verdict: Verdict) -> None:
        if verdict is Verdict.DUPLICATE and head is event.heads[0]:
            self._answer_known(event)
            return
        expected = self.writers.expected(head.writer_id)
        text = f"writer {head.writer_id}: expected sequence {expected}, got {head.batch_sequence}"
        self._answer(event.ticket, -1, ErrorCode.OUT_OF_ORDER_SEQUENCE_EXCEPTION, text)

    def _answer_known(self, event: e.AppendAsked) -> None:
        """Acknowledge what is there already, and append what is behind it: a client may group anew."""
        known: list[Batch] = []
        for head in event.heads:
            verdict, batch = self.writers.judge(head.writer_id, head.batch_sequence)
            if verdict is not Verdict.DUPLICATE or batch is None:
                break
            known.append(batch)
        if len(known) < len(event.heads):
            self._append(_behind(event, len(known), known[0][1]))  # begins with no duplicate
            return
        # A duplicate is acknowledged when the original is, not before (rule 2).
        self._answer_at(event.ticket, event.acks, known[0][1], max(batch[2] for batch in known))

    def _write(self, event: e.AppendAsked, timestamp_ms: int, undo: list[Undo]) -> None:
        end_before = self.log.end
        size_bytes = len(event.records)
        active = self.log.active
        if active.size_bytes and active.size_bytes + size_bytes > self.config.segment_bytes:
            self._roll()
            active = self.log.active
        position, offset = active.size_bytes, active.end_offset
        changes: list[tuple[int, bytes]] = []
        for head in event.heads:
            changes += patches(head, offset, timestamp_ms, self.epoch)
            end_offset = offset + head.last_offset_delta + 1
            active.append(offset, end_offset, head.size_bytes, timestamp_ms)
            offset = end_offset
        token = self.next_token()
        base_offset = event.first_offset if event.first_offset >= 0 else end_before[0]
        flight = Flight(end_before, self.log.end, event.ticket, event.acks, undo, base_offset)
        self.flights.add(token, flight)
        self.bytes_since_checkpoint += size_bytes
        counts = self.counts
        counts.append_count += 1
        counts.record_count += offset - end_before[0]
        counts.in_bytes += size_bytes
        if event.wants_place:
            self._out.append(e.Appended(self.key, event.ticket, end_before[0], offset))
        file = self.log.file(active)
        self.durable.wrote(file)
        self._out.append(f.WriteFile(token, file, position, (event.records,), tuple(changes)))

    def _roll(self) -> None:
        full = self.log.roll()
        self.writers.expire(full.max_timestamp_ms)
        token = self.next_token()
        self.asked[token] = Asked.INDEX
        name = f"{self.folder}/{index_name(full.base_offset)}"
        self._out.append(f.ReplaceFile(token, name, full.index_file()))
        self.checkpoint_wanted = True

    def _written(self, event: f.FileWritten) -> None:
        ended = self.flights.ended(event.token, event.error)
        if ended:
            self.written = ended[-1].end_after
            self._commit()  # first, so that most writers need not wait for it
        for flight in ended:
            if flight.ticket != NO_TICKET:
                self._answer_at(flight.ticket, flight.acks, flight.base_offset, flight.end_after[0])
        if self.flights.must_cut:
            self._take_back()
        self._go_on()
        if self.role is Role.OFFLINE and self.given is not None:
            self._activate(self.given)

    def _asked_ended(self, event: Any) -> None:
        self._asked_done(event)
        if self.role is Role.OFFLINE and self.given is not None:
            self._activate(self.given)

    # ---- answers -------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Move the watermark, and answer whom it covers."""
        if self.role is not Role.LEADER:
            return
        committable, high_watermark = self.committable, self.committed[0]
        moved = committable[0] > high_watermark
        if moved:
            self.committed, high_watermark = committable, committable[0]
        while self.waiting and self.waiting[0][0] <= high_watermark:
            end_offset, _, ticket, base_offset = heapq.heappop(self.waiting)
            self._out.append(e.AppendAnswered(ticket, base_offset, ErrorCode.NONE, "", end_offset))
        if moved:
            self._out.append(e.WatermarkMoved(self.key, high_watermark))

    def _answer_at(self, ticket: int, acks: int, base_offset: int, end_offset: int) -> None:
        """Answer once what the writer asked for holds for a batch that is in the log."""
        reached = self.high_watermark if acks == -1 else self.written[0]
        if end_offset <= reached:
            self._out.append(e.AppendAnswered(ticket, base_offset, ErrorCode.NONE, "", end_offset))
        else:
            self._order += 1
            heapq.heappush(self.waiting, (end_offset, self._order, ticket, base_offset))

    def _answer(
        self, ticket: int, base_offset: int, code: ErrorCode = ErrorCode.NONE, text: str = ""
    ) -> None:
        if code:
            self.counts.failed_append_count += 1
        self._out.append(e.AppendAnswered(ticket, base_offset, code, text))

    def _fall_of_rows(self, event: e.RowsUnreadable) -> None:
        """Serve nothing rather than a part of the rows; the files may be readable the next time."""
        self._fall(event.text)

    def _ignore(self, _: Any) -> None:
        """Of a role given up since, or no news: nobody waits for it."""

    # ---- for dumps and the simulator -----------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return the state in a few words, for a dump."""
        return {
            "key": list(self.key),
            "role": self.role.name,
            "epoch": self.epoch,
            "term_start": self.term_start_offset,
            "high_watermark": self.high_watermark,
            "written": self.written[0],
            "durable": self.durable.end[0],
            "end": self.log.end_offset,
            "epochs": [list(entry) for entry in self.epochs.entries],
            "segments": [[s.base_offset, s.end_offset, s.size_bytes] for s in self.log.segments],
            "in_flight": len(self.flights.queue),
            "waiting": len(self.waiting),
            "trouble": self.trouble,
        }

    def digest(self) -> bytes:
        """Return a digest of the state: equal states, equal digests, in any process."""
        state = [self.facts(), self.writers.to_json()]
        return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=16).digest()

    TABLE: ClassVar[dict[type, tuple[Callable[[Replica, Any], None], ...]]]


def _behind(event: e.AppendAsked, known_count: int, first_offset: int) -> e.AppendAsked:
    """Return what is left of a request without its first batches."""
    cut = event.heads[known_count].position
    heads = tuple([head._replace(position=head.position - cut) for head in event.heads[known_count:]])
    return e.AppendAsked(event.ticket, event.acks, event.records[cut:], heads, event.wall_ms, first_offset)


_R = Replica
Replica.TABLE = {
    # event             RECOVERING          OFFLINE             ACTIVATING          LEADER              TROUBLED
    e.FilesListed:     (_R._recover,        _R._ignore,         _R._ignore,         _R._ignore,         _R._ignore),
    e.LeadershipGiven: (_R._keep,           _R._activate,       _R._activate_again, _R._activate_again, _R._keep),
    e.LeadershipTaken: (_R._drop_grant,     _R._drop_grant,     _R._step_down,      _R._step_down,      _R._drop_grant),
    e.AppendAsked:     (_R._refuse,         _R._refuse,         _R._refuse,         _R._append,         _R._refuse_troubled),
    e.RetryDue:        (_R._ignore,         _R._ignore,         _R._ignore,         _R._ignore,         _R._begin_again),
    e.RowsUnreadable:  (_R._ignore,         _R._ignore,         _R._ignore,         _R._fall_of_rows,   _R._ignore),
    e.RetentionDue:    (_R._ignore,         _R._retain,         _R._ignore,         _R._retain,         _R._ignore),
    e.CheckpointAsked: (_R._no_checkpoint,  _R._ask_checkpoint, _R._no_checkpoint,  _R._ask_checkpoint, _R._no_checkpoint),
    f.FileWritten:     (_R._recovering,     _R._written,        _R._written,        _R._written,        _R._written_in_trouble),
    f.FileSynced:      (_R._recovering,     _R._synced,         _R._synced,         _R._synced,         _R._synced),
    f.FileReplaced:    (_R._ignore,         _R._replaced,       _R._replaced,       _R._replaced,       _R._replaced),
    f.FileTruncated:   (_R._recovering,     _R._asked_ended,    _R._asked_ended,    _R._asked_ended,    _R._asked_ended),
    f.FileRemoved:     (_R._recovering,     _R._asked_ended,    _R._asked_ended,    _R._asked_ended,    _R._asked_ended),
    Continue:          (_R._recovering,     _R._ignore,         _R._ignore,         _R._ignore,         _R._ignore),
    f.FileRead:        (_R._recovering,     _R._ignore,         _R._ignore,         _R._ignore,         _R._ignore),
}  # fmt: skip
