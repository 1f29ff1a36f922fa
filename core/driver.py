"""Between one machine and its runtime: effects go out to ports, completions come back as events.

Both runtimes share it, so the simulator tests it too. One FIFO queue; the effects of a step are
started in order; a completion, even an immediate one, is queued and never re-entered. The runtime owes
it calls from one thread only, and `run` after everything that posts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from flussd.core import connections as c
from flussd.core import files as f
from flussd.core.edge.budget import Budget
from flussd.core.edge.frames import (
    error_frame,
    request_frame,
    response_frame,
    response_head,
    split_response,
)
from flussd.core.edge.meter import TIMED_SHIFT, Meter
from flussd.core.edge.requests import Edge
from flussd.core.edge.spans import Gathering
from flussd.core.files import DiskError
from flussd.core.machine import (
    Announce,
    Continue,
    ContinueLater,
    Fatal,
    Machine,
    Started,
    Stopped,
    StopRequested,
    WakeAt,
    Woken,
)
from flussd.core.ports import Clock, Disk, Network, RegistryPort, Sessions
from flussd.core.records.project import Projections
from flussd.core.registry import messages as r
from flussd.core.ring import Ring
from flussd.core.storage import Files
from flussd.core.wire import hot, messages, private

ANSWERED_AT_THE_EDGE = (c.Reply, c.ReplyError)
"""What parsing a request may give instead of an event; a tuple, since a union is built at each look."""


@attrs.define(eq=False)
class Ports:
    """The outside of one node; a machine that never uses a port need not have it."""

    clock: Clock
    disk: Disk
    network: Network | None = None
    registry: RegistryPort | None = None
    sessions: Sessions | None = None
    later: Callable[..., None] | None = None  # calls with arguments, once others had their turn
    announce: Callable[[Announce | Stopped | Fatal], None] = lambda _: None


@attrs.define(eq=False)
class Driver:
    """Steps *machine*; see the module's text. `halted` once it stopped or failed for good."""

    machine: Machine
    ports: Ports
    edge: Edge | None = None
    meter: Meter | None = None  # counts while somebody wants to know
    halted: bool = False
    now_ms: int = 0
    ring: Ring = attrs.Factory(Ring)
    files: Files = attrs.field(init=False)
    projections: Projections = attrs.Factory(Projections)
    _queue: deque[Any] = attrs.Factory(deque)
    _running: bool = False
    _budgets: dict[int, Budget] = attrs.Factory(dict)
    _asked: dict[tuple[int, int], int] = attrs.Factory(dict)  # (connection, request id) -> API key

    def __attrs_post_init__(self) -> None:
        self.files = Files(self.ports.disk, self.post)

    # ---- what the runtime calls ----------------------------------------------------------------

    def start(self, started: Started) -> None:
        """Begin; the first call."""
        self.post(started)
        self.run()

    def stop(self) -> None:
        """Ask for an orderly stop; announce(Stopped) follows."""
        self.post(StopRequested())
        self.run()

    def wake(self) -> None:
        """Ring the alarm that the machine asked for."""
        self.post(Woken())
        self.run()

    def post(self, event: Any) -> None:
        """Queue *event*; it is delivered by the next run."""
        self._queue.append(event)

    def run(self) -> None:
        """Deliver what is queued, until nothing is; calls from within only return."""
        if self._running:
            return
        self._running = True
        try:
            while self._queue and not self.halted:
                self.now_ms = self.ports.clock.now_ms()
                self.deliver(self._queue.popleft())
        finally:
            self._running = False
            self.files.ahead.run_ended()

    def connection_opened(self, connection: int, *, internal: bool) -> None:
        """A peer connected."""
        self._budgets[connection] = Budget(internal)
        self.post(c.ConnectionOpened(connection, internal))
        self.run()

    def connection_closed(self, connection: int) -> None:
        """A connection of either direction is gone."""
        self._budgets.pop(connection, None)
        for key in [key for key in self._asked if key[0] == connection]:
            del self._asked[key]
        self.post(c.ConnectionClosed(connection))
        self.run()

    def frame_received(self, connection: int, frame: memoryview) -> None:
        """A whole request came in; *frame* (writable) is free again when this returns."""
        assert self.edge is not None
        budget = self._budgets.get(connection)
        if budget is None:
            return  # closed while its last frames were on the way
        meter = self.meter
        if meter is not None:
            # Written out, and with two bytes of the head instead of all: this is once a request.
            counts = meter.apis.get(frame[0] << 8 | frame[1], meter.unserved)
            counts.request_count += 1
            counts.request_bytes += len(frame)
            if counts.timed_at != self.now_ms >> TIMED_SHIFT:
                meter.time(budget, frame, counts, self.now_ms)
        wall_ms = self.ports.clock.wall_ms()
        parsed = self.edge.parse(connection, frame, wall_ms, internal=budget.internal, client=budget.client)
        if budget.accepted(parsed.request_id, len(frame)):
            self._network.pause(connection)
        if isinstance(parsed, ANSWERED_AT_THE_EDGE):
            self.perform(parsed)
        else:
            self.post(parsed)
        self.run()

    def response_received(self, connection: int, frame: memoryview) -> None:
        """A whole response came in on a connection that we opened."""
        kind, request_id, body = split_response(frame)
        api_key = self._asked.pop((connection, request_id), None)
        if api_key is None:
            return  # not asked, or twice
        if kind == 0:
            message = private.response_class(api_key)()
            message.ParseFromString(bytes(body))
            self.post(c.ResponseReceived(connection, request_id, message))
        else:
            error = messages.ErrorResponse()
            error.ParseFromString(bytes(body))
            self.post(
                c.ResponseReceived(connection, request_id, None, error.error_code, error.error_message)
            )
        self.run()

    # ---- delivery, open to the simulator -------------------------------------------------------

    def deliver(self, event: Any) -> None:
        """Step the machine with *event* and start its effects, in order."""
        self.ring.add(self.now_ms, event)
        for effect in self.machine.step(event, self.now_ms):
            self.perform(effect)

    def perform(self, effect: Any) -> None:
        """Start one effect."""
        PERFORM[type(effect)](self, effect)

    # ---- effects -------------------------------------------------------------------------------

    @property
    def _network(self) -> Network:
        assert self.ports.network is not None
        return self.ports.network

    def _file(self, effect: f.FileEffect) -> None:
        self.files.perform(effect)

    def _wake_at(self, effect: WakeAt) -> None:
        self.ports.clock.wake_at(effect.at_ms)

    def _continue_later(self, effect: ContinueLater) -> None:
        if self.ports.later is None:
            self.post(Continue(effect.token))
        else:
            self.ports.later(self._go_on, effect.token)

    def _go_on(self, token: int) -> None:
        self.post(Continue(token))
        self.run()

    def _announce(self, effect: Announce | Stopped | Fatal) -> None:
        if not isinstance(effect, Announce):
            self.halted = True
        self.ports.announce(effect)

    def _answered(self, connection: int, request_id: int, answer_bytes: int) -> None:
        budget = self._budgets.get(connection)
        if budget is None:
            return
        meter = self.meter
        if meter is not None:
            meter.answer_bytes += answer_bytes
            if budget.timed:
                meter.timed(budget, request_id)
        if budget.done(request_id):
            self._network.resume(connection)

    def _reply(self, effect: c.Reply) -> None:
        frame = response_frame(effect.request_id, effect.message.SerializeToString())
        self._network.send(effect.connection, (frame,))
        self._answered(effect.connection, effect.request_id, len(frame))

    def _greet(self, effect: c.Greeting) -> None:
        self._budgets[effect.connection].client = effect.client
        self._reply(effect)

    def _reply_error(self, effect: c.ReplyError) -> None:
        frame = error_frame(effect.request_id, effect.code, effect.text)
        self._network.send(effect.connection, (frame,))
        self._answered(effect.connection, effect.request_id, len(frame))
        if self.meter is not None:
            self.meter.errors[effect.code] += 1

    def _reply_produce(self, effect: c.ReplyProduce) -> None:
        frame = response_frame(effect.request_id, hot.produce_response(effect.answers))
        self._network.send(effect.connection, (frame,))
        self._answered(effect.connection, effect.request_id, len(frame))

    def _send_spans(self, effect: c.SendSpans) -> None:
        gathering = Gathering.of(effect)
        if not gathering.outstanding_count:
            self._send_gathered(gathering)
            return
        for slot, n, (file, position, size_bytes) in gathering.spans():

            def done(data: bytes, error: DiskError | None, slot: int = slot, n: int = n) -> None:
                if gathering.filled(slot, n, data, error):
                    self._send_gathered(gathering)

            self.files.ahead.read(file, position, size_bytes, done)

    def _send_gathered(self, gathering: Gathering) -> None:
        effect = gathering.effect
        parts = gathering.encode(self.projections)
        body_bytes = sum(map(len, parts))
        head = response_head(effect.request_id, body_bytes)
        self._network.send(effect.connection, (head, *parts))
        self._answered(effect.connection, effect.request_id, len(head) + body_bytes)
        for unreadable in gathering.unreadable:
            self.post(unreadable)
        for file, position, size_bytes in gathering.last_spans():
            self.files.ahead.goes_on(file, position + size_bytes, size_bytes)

    def _close(self, effect: c.CloseConnection) -> None:
        self._network.close(effect.connection)

    def _connect(self, effect: c.Connect) -> None:
        def done(connection: int | None) -> None:
            self.post(c.Connected(effect.token, connection))

        self._network.connect(effect.address, done)

    def _send_request(self, effect: c.SendRequest) -> None:
        self._asked[effect.connection, effect.request_id] = effect.api_key
        body = effect.message.SerializeToString()
        frame = request_frame(effect.api_key, effect.api_version, effect.request_id, body)
        self._network.send(effect.connection, (frame,))

    def _registry_submit(self, effect: r.RegistrySubmit) -> None:
        assert self.ports.registry is not None
        self.ports.registry.submit(effect.token, effect.operation)

    def _answer_session(self, effect: r.AnswerSession) -> None:
        assert self.ports.sessions is not None
        self.ports.sessions.answer_session(effect.link, effect.session_id)

    def _answer_operation(self, effect: r.AnswerOperation) -> None:
        assert self.ports.sessions is not None
        self.ports.sessions.answer(effect.link, effect.xid, effect.answer)

    def _fire_watch(self, effect: r.FireWatch) -> None:
        assert self.ports.sessions is not None
        self.ports.sessions.fire(effect.link, effect.path, effect.changed)


PERFORM: dict[type, Callable[[Driver, Any], None]] = {
    f.WriteFile: Driver._file,
    f.ReadFile: Driver._file,
    f.SyncFile: Driver._file,
    f.TruncateFile: Driver._file,
    f.ReplaceFile: Driver._file,
    f.RemoveFile: Driver._file,
    f.RemoveFolder: Driver._file,
    f.ListFolder: Driver._file,
    WakeAt: Driver._wake_at,
    ContinueLater: Driver._continue_later,
    Announce: Driver._announce,
    Stopped: Driver._announce,
    Fatal: Driver._announce,
    c.Reply: Driver._reply,
    c.Greeting: Driver._greet,
    c.ReplyError: Driver._reply_error,
    c.ReplyProduce: Driver._reply_produce,
    c.SendSpans: Driver._send_spans,
    c.CloseConnection: Driver._close,
    c.Connect: Driver._connect,
    c.SendRequest: Driver._send_request,
    r.RegistrySubmit: Driver._registry_submit,
    r.AnswerSession: Driver._answer_session,
    r.AnswerOperation: Driver._answer_operation,
    r.FireWatch: Driver._fire_watch,
}
"""Every effect that a machine may emit, and how it is started."""
