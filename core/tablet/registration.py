"""A tablet server's place in the registry: its node, and the writer ids that it takes there.

The node is ephemeral; its creation id is the server's incarnation. It is created only when every
bucket found on the disk was read. A node that a former process of the same data directory left is
replaced; one of another directory means that the server id is taken, and is waited for.
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.connections import Reply, ReplyError, RequestReceived
from flussd.core.machine import Announce
from flussd.core.registry.messages import (
    Answer,
    Create,
    Delete,
    GetData,
    Multi,
    Operation,
    Outcome,
    RegistrySubmit,
    SetData,
)
from flussd.core.tablet.parked import Waiter
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.tablet.tablet import TabletServer

IDS: Final = "/fluss/tabletservers/ids"
WRITER_IDS: Final = "/fluss/metadata/writer_id"

RETRY_MS: Final = 200
"""Pause before the registry is asked again: it may not have its base nodes yet."""


class Ask(enum.Enum):
    """What an operation was for."""

    REGISTER = "create our node"
    LOOK = "see whose node stands there"
    WATCH = "see whether our node still stands, and be told when it does not"
    READ_IDS = "read the writer id counter"
    TAKE_IDS = "advance the writer id counter"
    LEAVE = "delete our node"


@attrs.define(eq=False)
class RegistryRetry(Waiter):
    """Time to ask the registry again."""

    why: Ask = Ask.REGISTER


@attrs.define(eq=False)
class Registration:
    """Our node and our writer ids."""

    server: TabletServer
    session_id: int = 0
    incarnation: int = -1
    node_version: int = -1
    asked: dict[int, tuple[Ask, int]] = attrs.Factory(dict)  # token -> (why, session it was asked in)
    registering: bool = False
    leaving: bool = False
    left: bool = False
    next_writer_id: int = 0
    end_writer_id: int = 0
    taking: tuple[int, int] | None = None  # the block that a write in flight would give us
    wanting: list[tuple[int, int]] = attrs.Factory(list)  # INIT_WRITER requests that wait

    @property
    def path(self) -> str:
        """Where our node is."""
        return f"{IDS}/{self.server.config.server_id}"

    # ---- registering ---------------------------------------------------------------------------

    def session_opened(self, session_id: int) -> None:
        """The registry gave us a session."""
        self.session_id = session_id
        self.registering = False
        self.go_on()
        if self.wanting and not self._asking_ids():
            self._submit(Ask.READ_IDS, GetData(WRITER_IDS))

    def session_lost(self) -> None:
        """Our node is gone, or will be: serve nothing until we are registered anew."""
        self.server.emit(Announce("session lost"))
        self.session_id, self.incarnation, self.registering = 0, -1, False
        self.server.buckets.take_all()

    def go_on(self) -> None:
        """Register, if all is ready for it; leave, if all that was owed is done."""
        server = self.server
        if server.stopping:
            self._leave_if_done()
            return
        ready = self.session_id and server.buckets.recovered
        if ready and self.incarnation < 0 and not self.registering:
            self.registering = True
            self._submit(Ask.REGISTER, Multi((self._node(),)))

    def _node(self) -> Create:
        server = self.server
        value = {
            "version": 4,
            "listeners": f"CLIENT://{server.config.host}:{server.config.port}",
            "register_timestamp": server.wall_ms,
            "directory_id": server.directory_id,
            "boot_id": server.boot_id,
            "internal": server.config.internal_address,
        }
        return Create(self.path, json.dumps(value, sort_keys=True).encode(), ephemeral=True)

    def _submit(self, why: Ask, operation: Operation) -> None:
        token = self.server.next_token()
        self.asked[token] = (why, self.session_id)
        self.server.emit(RegistrySubmit(token, operation))

    def answered(self, token: int, answer: Answer) -> None:
        """The registry answered."""
        why, session_id = self.asked.pop(token)
        if why in (Ask.READ_IDS, Ask.TAKE_IDS):
            self._ids_answered(why, answer)
        elif why is Ask.LEAVE:
            self.left = True
            self._leave_if_done()
        elif session_id != self.session_id:
            return  # of a session that is gone, with all that was asked in it
        elif why is Ask.WATCH:
            self._watch_answered(answer)
        else:
            self._register_answered(why, answer)

    def _register_answered(self, why: Ask, answer: Answer) -> None:
        if why is Ask.REGISTER and answer.outcome is Outcome.OK:
            stat = answer.stats[-1]
            assert stat is not None
            self._registered(stat.czxid, stat.version)
        elif why is Ask.REGISTER and answer.outcome is Outcome.NO_NODE:
            self._again_later()  # the coordinator has not made the base nodes yet
        elif why is Ask.REGISTER:
            self._submit(Ask.LOOK, GetData(self.path))  # NODE_EXISTS, or unknown: see what is there
        elif answer.outcome is Outcome.OK:
            self._look_at(answer)
        else:
            self._again_later()

    def _look_at(self, answer: Answer) -> None:
        """A node stands where ours should: ours, a former process's, or a stranger's."""
        assert answer.stat is not None
        if answer.stat.ephemeral_owner == self.session_id:
            self._registered(answer.stat.czxid, answer.stat.version)
            return
        owner = json.loads(answer.data).get("directory_id")
        if owner == self.server.directory_id:
            self._submit(Ask.REGISTER, Multi((Delete(self.path, answer.stat.version), self._node())))
            return
        text = f"server id {self.server.config.server_id} is taken by data directory {owner}"
        self.server.emit(Announce("waiting", text))
        self._again_later()

    def _registered(self, czxid: int, version: int) -> None:
        self.incarnation, self.node_version, self.registering = czxid, version, False
        facts = (("incarnation", czxid), ("bucket_count", len(self.server.buckets.replicas)))
        self.server.emit(Announce("registered", facts=facts))
        self._watch()

    # ---- staying registered --------------------------------------------------------------------

    def _watch(self) -> None:
        self._submit(Ask.WATCH, GetData(self.path, watch=True))

    def watch_fired(self, path: str) -> None:
        """Something happened to a node that we watch; reading it sets the watch anew."""
        if path == self.path and self.session_id and self.incarnation >= 0 and not self.leaving:
            self._watch()

    def _watch_answered(self, answer: Answer) -> None:
        """The coordinator may have decreed us dead, by deleting our node: then register anew."""
        if self.incarnation < 0 or self.leaving:
            return
        if answer.outcome is Outcome.UNKNOWN:
            self.server.retry_later(RegistryRetry(-1, -1, self.server.now_ms + RETRY_MS, why=Ask.WATCH))
        elif answer.stat is None or answer.stat.czxid != self.incarnation:
            self.server.emit(Announce("unregistered", "its node is gone; it registers anew"))
            self.incarnation, self.registering = -1, False
            self.server.buckets.take_all()
            self.go_on()

    def _again_later(self) -> None:
        self.server.retry_later(RegistryRetry(-1, -1, self.server.now_ms + RETRY_MS))

    def retry(self, waiter: RegistryRetry) -> None:
        """A pause is over."""
        if waiter.why is Ask.REGISTER:
            self.registering = False
            self.go_on()
        elif waiter.why is Ask.WATCH:
            self.watch_fired(self.path)
        elif self.wanting and not self._asking_ids():
            self._submit(Ask.READ_IDS, GetData(WRITER_IDS))

    # ---- leaving -------------------------------------------------------------------------------

    def _leave_if_done(self) -> None:
        if self.server.buckets.checkpoints_due:
            return
        if self.left or not self.session_id or self.incarnation < 0:
            self.server.stopped()
        elif not self.leaving:
            self.leaving = True
            self._submit(Ask.LEAVE, Multi((Delete(self.path),)))

    # ---- writer ids ----------------------------------------------------------------------------

    def init_writer(self, event: RequestReceived) -> None:
        """INIT_WRITER: give out an id, or wait for a block of them."""
        if self.next_writer_id < self.end_writer_id:
            self._give(event.connection, event.request_id)
            return
        self.wanting.append((event.connection, event.request_id))
        if self.session_id and not self._asking_ids():
            self._submit(Ask.READ_IDS, GetData(WRITER_IDS))

    def _asking_ids(self) -> bool:
        return any(why in (Ask.READ_IDS, Ask.TAKE_IDS) for why, _ in self.asked.values())

    def _give(self, connection: int, request_id: int) -> None:
        writer_id, self.next_writer_id = self.next_writer_id, self.next_writer_id + 1
        response = messages.InitWriterResponse(writer_id=writer_id)
        self.server.emit(Reply(connection, request_id, response))

    def _ids_answered(self, why: Ask, answer: Answer) -> None:
        """Ids need only grow: a block whose outcome is unknown is lost, and the next one taken."""
        if why is Ask.READ_IDS and answer.outcome is Outcome.OK:
            assert answer.stat is not None
            first = int.from_bytes(answer.data, "big") if answer.data else 0
            self._take_ids(first, SetData(WRITER_IDS, b"", answer.stat.version))
        elif why is Ask.READ_IDS and answer.outcome is Outcome.NO_NODE:
            self._take_ids(0, Create(WRITER_IDS))
        elif why is Ask.TAKE_IDS and answer.outcome is Outcome.OK:
            assert self.taking is not None
            (self.next_writer_id, self.end_writer_id), self.taking = self.taking, None
            while self.wanting and self.next_writer_id < self.end_writer_id:
                connection, request_id = self.wanting.pop(0)
                if connection in self.server.connections:
                    self._give(connection, request_id)
            if self.wanting:
                self._submit(Ask.READ_IDS, GetData(WRITER_IDS))
        elif answer.outcome is Outcome.NOT_STORED:
            self._refuse_ids(f"the registry cannot store it: {answer.outcome.value}")
        else:
            due_ms = self.server.now_ms + RETRY_MS
            self.server.retry_later(RegistryRetry(-1, -1, due_ms, why=Ask.READ_IDS))

    def _refuse_ids(self, text: str) -> None:
        """Whoever wants an id asks again; there may be space by then."""
        self.taking = None
        for connection, request_id in self.wanting:
            if connection in self.server.connections:
                self.server.emit(ReplyError(connection, request_id, int(ErrorCode.DISK_WRITE_LOCKED), text))
        self.wanting.clear()

    def _take_ids(self, first: int, write: SetData | Create) -> None:
        end = first + self.server.config.writer_id_block
        self.taking = (first, end)
        self._submit(Ask.TAKE_IDS, Multi((attrs.evolve(write, data=end.to_bytes(8, "big")),)))
