"""The coordinator: one machine for the catalog, the tablet servers, and who leads which bucket.

This module is its life: starting, standing by, loading, being active, stopping. The parts have modules
of their own. It changes its state only by what the registry confirmed, and answers only what is true:
decide, write, confirmed, apply, announce. The driver owes it completions, and the alarm it asks for.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from flussd.core import connections as c
from flussd.core.catalog.records import NodeRecord
from flussd.core.coordinator import layout
from flussd.core.coordinator.activation import Activation, Step, Verdict
from flussd.core.coordinator.autopartition import AutoPartitions
from flussd.core.coordinator.cluster_configs import initial_configs
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.links import Links
from flussd.core.coordinator.pipeline import Pipeline
from flussd.core.coordinator.proposals import Proposal, Why
from flussd.core.coordinator.requests import Requests
from flussd.core.coordinator.scan import Scan, ScanEnd
from flussd.core.coordinator.state import State
from flussd.core.coordinator.stopping import Leave, Stop
from flussd.core.machine import (
    Announce,
    Continue,
    ContinueLater,
    Fatal,
    Started,
    StopRequested,
    WakeAt,
    Woken,
)
from flussd.core.registry import messages as r

__all__ = ["Coordinator", "CoordinatorConfig", "Role"]

RESTART_PAUSE_MS: Final = 50
"""Before everything is read again: what made it necessary may last a moment."""

READY_WAIT_MS: Final = 10_000
"""After this time `ready` is announced though some buckets are in trouble or not led."""


class Role(enum.IntEnum):
    """What the coordinator is in its cluster."""

    STARTING = 0  # it has no session with the registry
    STANDBY = 1  # another coordinator is active
    LOADING = 2  # it becomes active, and reads everything
    ACTIVE = 3
    STOPPING = 4


@attrs.frozen
class Question:
    """A read of an Activation."""

    step: Step
    argument: Any


@attrs.frozen
class Look:
    """A read of a Scan; *server_id* is -1 for the list."""

    server_id: int


Asked: TypeAlias = Question | Look | Leave | Proposal


@attrs.define(eq=False)
class Coordinator:
    """Change it through step() alone; its fields are open to readers."""

    config: CoordinatorConfig
    role: Role = Role.STARTING
    now_ms: int = 0
    wall_ms: int = 0  # as it was seen last, at wall_seen_ms
    wall_seen_ms: int = 0
    directory_id: str = ""
    session_id: int = 0
    epoch: int = -1
    epoch_version: int = -1
    state: State = attrs.Factory(State)
    activation: Activation | None = None
    links: Links = attrs.field(init=False)
    scan: Scan = attrs.Factory(Scan)
    requests: Requests = attrs.field(init=False)
    pipeline: Pipeline = attrs.field(init=False)
    auto: AutoPartitions = attrs.field(init=False)
    stop: Stop = attrs.field(init=False)
    connections: dict[int, None] = attrs.Factory(dict)  # of clients
    asked: dict[int, tuple[int, Asked]] = attrs.Factory(dict)  # token -> (generation, why)
    generation: int = 0  # of questions; answers to those of an earlier one are ignored
    begin_ms: int = -1  # when to begin another attempt to become active; -1: not waiting for that
    active_since_ms: int = -1
    is_continuing: bool = False  # it asked itself for a step, for more work
    is_ready: bool = False
    alarm_ms: int = -1
    _change_count: int = 0
    _token: int = 0
    _out: list[Any] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.links = self._new_links()
        self.requests = Requests(self)
        self.pipeline = Pipeline(self)
        self.auto = AutoPartitions(self)
        self.stop = Stop(self)

    def _new_links(self) -> Links:
        me = NodeRecord(self.config.server_id, self.config.host, self.config.port)
        interval_ms = self.config.ping_interval_ms
        return Links(me, self.epoch, interval_ms + self.config.ping_slack_ms, interval_ms)

    def step(self, event: Any, now_ms: int) -> list[Any]:
        """Take *event* in, and return what to do about it, in order."""
        assert now_ms >= self.now_ms, "time runs forward"
        self.now_ms = now_ms
        self.TABLE[type(event)][self.role](self, event)
        self._settle()
        self.check()
        effects, self._out = self._out, []
        return effects

    # ---- what its parts use --------------------------------------------------------------------

    def emit(self, effect: Any) -> None:
        """Ask for *effect*, after those of this step so far."""
        self._out.append(effect)

    def submit(self, why: Asked, operation: r.Operation) -> None:
        """Ask the registry."""
        self._token += 1
        self.asked[self._token] = (self.generation, why)
        self._out.append(r.RegistrySubmit(self._token, operation))

    @property
    def wall_now_ms(self) -> int:
        """The wall time, as far as events told it."""
        return self.wall_ms + self.now_ms - self.wall_seen_ms

    def next_change_id(self) -> str:
        """Return the mark of a change: no other change of any coordinator has it."""
        self._change_count += 1
        return f"{self.epoch}-{self._change_count}"

    def restart(self, text: str) -> None:
        """What we believe may be wrong: read everything again, under a new epoch."""
        if self.role is Role.STOPPING:
            return
        self._out.append(Announce("reloading", text))
        self._drop_term()
        self.role = Role.LOADING
        self.begin_ms = self.now_ms + RESTART_PAUSE_MS

    # ---- after each event ----------------------------------------------------------------------

    def _settle(self) -> None:
        """Do all that the new state asks for."""
        if self.role is Role.ACTIVE:
            self._settle_active()
        self._pump()
        if self.role is Role.STOPPING:
            self.stop.go_on()
        self._set_alarm()

    def _settle_active(self) -> None:
        self.requests.look_again()
        self.auto.look_at_time()
        is_long = self.pipeline.go_on()
        links = self.links
        links.changed(self.state.take_items(), self.state)
        self._token = links.follow(self.state, self._token + 1, self.now_ms) - 1
        if not is_long:
            links.push(self.state, self.now_ms, self.wall_now_ms)
        self._take_from(links)
        if (is_long or links.is_behind or self.pipeline.has_work) and not self.is_continuing:
            self.is_continuing = True
            self._out.append(ContinueLater(0))
        self.requests.look_again()  # a change that no server had to be told of
        if not self.is_ready and self._may_announce():
            self.is_ready = True
            self._out.append(Announce("ready"))

    def _take_from(self, links: Links) -> None:
        self._out += links.out
        links.out.clear()
        for text in links.failures:
            self._out.append(Announce("bucket failed", text))
        links.failures.clear()

    def _may_announce(self) -> bool:
        if self.links.told_count() < self.config.tablets_expected:
            return False
        state = self.state
        waits_for = state.unelected or state.unmade or state.awaited
        return not waits_for or self.now_ms >= self.active_since_ms + READY_WAIT_MS

    def _pump(self) -> None:
        """Send the reads that may be sent."""
        while self.activation is not None and (question := self.activation.next_question()) is not None:
            step, argument, operation = question
            self.submit(Question(step, argument), operation)
        while self.role is Role.ACTIVE and (look := self.scan.next_question()) is not None:
            self.submit(Look(look[0]), look[1])

    def _set_alarm(self) -> None:
        times = [ms for ms in (self.begin_ms, self.stop.give_up_ms, self.auto.check_ms) if ms >= 0]
        asks = self.requests.next_ms()
        times += [] if asks is None else [asks]
        if self.role is Role.ACTIVE:
            times += [self.pipeline.rest_ms] if self.pipeline.rest_ms >= 0 else []
            misses = self.links.next_ms(self.now_ms)
            times += [] if misses is None else [misses]
            end_ms = self.state.producers.next_end_ms()
            if end_ms is not None and end_ms > self.wall_now_ms:  # else it is being deleted
                times.append(self.now_ms + end_ms - self.wall_now_ms)
            if not self.is_ready and self.now_ms < self.active_since_ms + READY_WAIT_MS:
                times.append(self.active_since_ms + READY_WAIT_MS)
        next_ms = min(times, default=-1)
        if next_ms >= 0 and (self.alarm_ms < 0 or next_ms < self.alarm_ms):
            self.alarm_ms = next_ms
            self._out.append(WakeAt(next_ms))

    def _woken(self, _: Woken) -> None:
        self.alarm_ms = -1
        if 0 <= self.begin_ms <= self.now_ms:
            self._begin()
        if self.role is Role.ACTIVE:
            self.links.count_misses(self.now_ms)
        elif self.role is not Role.STOPPING:
            self.requests.give_up_late()

    def _continue(self, _: Continue) -> None:
        """What is left to do is done after each event."""
        self.is_continuing = False

    # ---- becoming active -----------------------------------------------------------------------

    def _start(self, event: Started) -> None:
        self.wall_ms, self.wall_seen_ms = event.wall_ms, self.now_ms
        self.directory_id = event.directory_id
        if self.session_id:
            self._begin()

    def _join(self, event: r.RegistrySessionOpened) -> None:
        self.session_id = event.session_id
        if self.directory_id:  # else Started is behind this event
            self._begin()

    def _rejoin(self, event: r.RegistrySessionOpened) -> None:
        """A new session without the loss of the old one: all the same, what was ours is not."""
        self._lose(r.RegistrySessionLost())
        self._join(event)

    def _lose(self, _: r.RegistrySessionLost) -> None:
        """Our active node is gone, and with it the right to answer."""
        if self.role in (Role.ACTIVE, Role.LOADING, Role.STANDBY):
            self._out.append(Announce("session lost"))
        self._drop_term()
        self.role, self.session_id = Role.STARTING, 0

    def _drop_term(self) -> None:
        """Forget everything but what clients are owed."""
        self.generation += 1
        self.links.close()
        self._take_from(self.links)
        self.links = self._new_links()
        self.requests.finish_waits()
        self.auto.end()
        self.pipeline.drop()
        self.pipeline.rest_ms = -1
        self.activation, self.scan, self.state = None, Scan(), State()
        self.begin_ms = self.active_since_ms = -1

    def _begin(self) -> None:
        """Begin an attempt to become active."""
        self.role, self.begin_ms = Role.LOADING, -1
        self.generation += 1
        self.activation = Activation(self.config, self.session_id, self.directory_id, self.wall_now_ms)
        self.activation.begin()

    def _loaded(self, question: Question, answer: r.Answer) -> None:
        activation = self.activation
        assert activation is not None
        verdict = activation.answered(question.step, question.argument, answer)
        if verdict is Verdict.GOING_ON:
            return
        self.activation = None
        if verdict is Verdict.DONE:
            self._activate(activation)
        elif verdict is Verdict.STANDBY:
            self._stand_by()
        elif verdict is Verdict.AGAIN:
            self.restart(activation.trouble)
        else:
            self._out.append(Fatal(activation.trouble))

    def _activate(self, activation: Activation) -> None:
        self.role, self.active_since_ms = Role.ACTIVE, self.now_ms
        self.epoch, self.epoch_version = activation.epoch, activation.epoch_version
        self.state = activation.state
        self.links = self._new_links()
        catalog = self.state.catalog
        catalog.put_coordinator(self.links.coordinator)
        initial = initial_configs(self.config.defaults, self.config.settings)
        catalog.put_configs(attrs.evolve(catalog.configs, initial=initial))
        self.state.take_items()  # every link begins with a snapshot
        facts = (("epoch", self.epoch), ("table_count", len(self.state.catalog.by_id)))
        self._out.append(Announce("active", f"epoch {self.epoch}", facts))
        self.auto.begin()
        self.requests.resolve()

    def _stand_by(self) -> None:
        self.role = Role.STANDBY
        self.generation += 1
        self.requests.refuse_all()
        self.requests.disown_current()
        self._out.append(Announce("standby"))

    # ---- the registry --------------------------------------------------------------------------

    def _answered(self, event: r.RegistryAnswered) -> None:
        generation, why = self.asked.pop(event.token)
        if generation != self.generation and not isinstance(why, Leave):
            return  # of a term that is over
        if isinstance(why, Question):
            self._loaded(why, event.answer)
        elif isinstance(why, Look):
            self._looked(why, event.answer)
        elif isinstance(why, Proposal):
            self.pipeline.answered(why, event.answer)
        else:
            self.stop.end()

    def _looked(self, look: Look, answer: r.Answer) -> None:
        end = self.scan.answered(look.server_id, answer)
        if end is ScanEnd.FAILED:
            self.restart(f"cannot read {layout.SERVERS}: {answer.outcome.value}")
        elif end is ScanEnd.DONE:
            for change in self.scan.changes(self.state.servers):
                self.state.apply(change)
            if self.scan.again:
                self.scan.begin()

    def _look_again(self, event: r.WatchFired) -> None:
        """A hint; while we load, it waits until we are active."""
        if event.path == layout.SERVERS:
            self.scan.begin()

    def _take_over(self, event: r.WatchFired) -> None:
        if event.path == layout.ACTIVE:
            self._begin()

    # ---- connections and requests --------------------------------------------------------------

    def _welcome(self, event: c.ConnectionOpened) -> None:
        self.connections[event.connection] = None

    def _part(self, event: c.ConnectionClosed) -> None:
        if event.connection in self.connections:
            del self.connections[event.connection]
            self.requests.forget(event.connection)
        else:
            self.links.closed(event.connection)

    def _link(self, event: c.Connected) -> None:
        self.links.connected(event, self.state)
        self._take_from(self.links)

    def _hear(self, event: c.ResponseReceived) -> None:
        if not self.links.owns(event.connection):
            return  # of a link that ended
        self.links.responded(event, self.state, self.now_ms)
        if self.links.deposed:
            self.restart("a tablet server knows a newer coordinator")

    def _serve(self, event: c.RequestReceived) -> None:
        self.wall_ms, self.wall_seen_ms = event.wall_ms, self.now_ms
        self.requests.received(event)

    def _hold(self, event: c.RequestReceived) -> None:
        self.wall_ms, self.wall_seen_ms = event.wall_ms, self.now_ms
        self.requests.hold(event)

    def _refuse(self, event: c.RequestReceived) -> None:
        self.requests.refuse_as_inactive(event)

    # ---- stopping ------------------------------------------------------------------------------

    def _stop(self, _: StopRequested) -> None:
        was_active = self.role is Role.ACTIVE
        self.role = Role.STOPPING
        self.auto.end()
        self.stop.begin(was_active=was_active)
        self.requests.refuse_all()
        self.links.close()
        self._take_from(self.links)
        self.activation, self.begin_ms = None, -1
        if not was_active:
            self.generation += 1  # what was asked for the loading is of no interest any more

    def _forget_session(self, _: r.RegistrySessionLost) -> None:
        self.session_id = 0

    def _ignore(self, _: Any) -> None:
        """It changes nothing for a coordinator in this role."""

    def _impossible(self, event: Any) -> None:
        raise AssertionError(f"coordinator: {event} while {self.role.name}")

    # ---- check, digest, clone ------------------------------------------------------------------

    def check(self) -> None:
        """Assert what holds between any two steps."""
        is_active = self.role is Role.ACTIVE
        assert is_active or not self.links.links
        assert is_active or not self.requests.waits
        flight = self.pipeline.flight
        unowned = flight is not None and flight.why is Why.DDL and self.requests.current is None
        assert not unowned or self.stop.is_done  # a stop that could wait no longer disowns what is in doubt

    def check_all(self) -> None:
        """Assert all that holds between any two steps."""
        self.check()
        self.state.check_all()
        self.links.check_all()
        if self.pipeline.flight is not None and self.pipeline.applied_count < 0:
            mine = [why for generation, why in self.asked.values() if generation == self.generation]
            assert sum(why is self.pipeline.flight for why in mine) == 1

    def digest(self) -> bytes:
        """Return a digest of the state: equal states, equal digests, in any process."""
        rest = (
            self.role,
            self.session_id,
            self.epoch,
            self.epoch_version,
            self.links.facts(),
            self.requests.facts(),
            self.auto.facts(),
            self.pipeline.rest_ms,
            list(self.connections),
            sorted((token, generation) for token, (generation, _) in self.asked.items()),
            self.stop.facts(),
            (self.begin_ms, self.is_ready, self.is_continuing, self._token, self.pipeline.applied_count),
        )
        return hashlib.blake2b(self.state.digest() + repr(rest).encode(), digest_size=16).digest()

    def clone(self) -> Coordinator:
        """Return a copy that shares nothing that changes."""
        copy = attrs.evolve(self, state=self.state.clone(), scan=self.scan.clone(), out=list(self._out))
        copy.connections, copy.asked = dict(self.connections), dict(self.asked)
        if self.activation is not None:
            copy.activation = self.activation.clone()
        copy.links = self.links.clone()
        copy.requests = self.requests.clone(copy)
        copy.pipeline = attrs.evolve(self.pipeline, owner=copy)
        copy.auto = self.auto.clone(copy)
        copy.stop = attrs.evolve(self.stop, owner=copy)
        return copy

    TABLE: ClassVar[dict[type, tuple[Callable[[Coordinator, Any], None], ...]]] = {
        # event                    STARTING   STANDBY       LOADING       ACTIVE        STOPPING
        Started:                 (_start,    _impossible,  _impossible,  _impossible,  _impossible),
        StopRequested:           (_stop,     _stop,        _stop,        _stop,        _ignore),
        Woken:                   (_woken,    _woken,       _woken,       _woken,       _woken),
        Continue:                (_continue, _continue,    _continue,    _continue,    _continue),
        r.RegistrySessionOpened: (_join,     _rejoin,      _rejoin,      _rejoin,      _ignore),
        r.RegistrySessionLost:   (_lose,     _lose,        _lose,        _lose,        _forget_session),
        r.RegistryAnswered:      (_answered, _answered,    _answered,    _answered,    _answered),
        r.WatchFired:            (_ignore,   _take_over,   _look_again,  _look_again,  _ignore),
        c.ConnectionOpened:      (_welcome,  _welcome,     _welcome,     _welcome,     _welcome),
        c.ConnectionClosed:      (_part,     _part,        _part,        _part,        _part),
        c.RequestReceived:       (_hold,     _refuse,      _hold,        _serve,       _refuse),
        c.Connected:             (_link,     _link,        _link,        _link,        _link),
        c.ResponseReceived:      (_ignore,   _ignore,      _ignore,      _hear,        _ignore),
    }  # fmt: skip
