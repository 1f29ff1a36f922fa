"""What is asked of the registry, what it answers, and the events and effects on both sides.

The data model is ZooKeeper's: a tree of nodes with versions, ephemeral and sequential nodes, sessions,
one-shot watches and atomic multis. A client machine emits RegistrySubmit and gets RegistryAnswered; the
registry machine gets OperationReceived and emits AnswerOperation. Whoever carries them between the two
may lose the question or the answer: then the client gets the outcome UNKNOWN and must read the truth.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs


class Outcome(enum.Enum):
    """How an operation ended; UNKNOWN may have been applied, or may still be.

    NOT_STORED was not applied: the registry found no room for it on its disk. It may be asked again.
    """

    OK = "ok"
    NO_NODE = "no node"
    NODE_EXISTS = "node exists"
    BAD_VERSION = "bad version"
    NOT_EMPTY = "not empty"
    NO_CHILDREN_FOR_EPHEMERALS = "ephemerals have no children"
    TOO_LARGE = "larger than a transaction may be"
    BAD_PATH = "not a path, or not one that this may be done to"
    SESSION_EXPIRED = "session expired"
    NOT_STORED = "its disk takes no more"
    UNKNOWN = "unknown"


@attrs.frozen
class Stat:
    """What the registry knows of a node; *ephemeral_owner* is 0 for a persistent one."""

    czxid: int
    mzxid: int
    version: int
    cversion: int
    ephemeral_owner: int
    children_count: int


@attrs.frozen
class Create:
    """Create *path*; its parent must exist. *sequential* appends ten digits to the name.

    Result of one operation: the path that was created, with its Stat.
    """

    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequential: bool = False


@attrs.frozen
class SetData:
    """Replace the data of *path* if it has *version* (-1: any)."""

    path: str
    data: bytes
    version: int = -1


@attrs.frozen
class Delete:
    """Delete *path*, which has no children, if it has *version* (-1: any)."""

    path: str
    version: int = -1


@attrs.frozen
class Check:
    """Fail the multi unless *path* exists with *version* (-1: any)."""

    path: str
    version: int


Write: TypeAlias = Create | SetData | Delete | Check


@attrs.frozen
class Multi:
    """Apply *writes* in order, all or none."""

    writes: tuple[Write, ...]


@attrs.frozen
class GetData:
    """Read a node; with *watch*, tell once when it changes, appears or goes."""

    path: str
    watch: bool = False


@attrs.frozen
class GetChildren:
    """List the names of a node's children, sorted; with *watch*, tell once when the list changes.

    A node that is missing (NO_NODE) is not watched.
    """

    path: str
    watch: bool = False


Operation: TypeAlias = Multi | GetData | GetChildren


@attrs.frozen
class Answer:
    """What became of an operation.

    A multi: *created* has the path of each Create (else None) and *stats* the Stat after each Create and
    SetData (else None); when it failed, *failed_index* is the write that was refused (-1: the whole).
    GetData: *data* and *stat* (also when watched and missing: NO_NODE). GetChildren: *children* and *stat*.
    """

    outcome: Outcome
    created: tuple[str | None, ...] = ()
    stats: tuple[Stat | None, ...] = ()
    failed_index: int = -1
    data: bytes = b""
    stat: Stat | None = None
    children: tuple[str, ...] = ()


class Changed(enum.Enum):
    """What a watch saw."""

    CREATED = "created"
    DELETED = "deleted"
    DATA = "data"
    CHILDREN = "children"


# ---- the client machine's side ------------------------------------------------------------------


@attrs.frozen
class RegistrySubmit:
    """Ask; operations of one machine are applied in order. Answer: RegistryAnswered."""

    token: int
    operation: Operation


@attrs.frozen
class RegistryAnswered:
    """The operation *token* ended, as far as is known."""

    token: int
    answer: Answer


@attrs.frozen
class WatchFired:
    """A watch on *path* fired, once; set it again by reading again."""

    path: str
    changed: Changed


@attrs.frozen
class RegistrySessionOpened:
    """We have a session; ephemeral nodes created from now on belong to *session_id*."""

    session_id: int


@attrs.frozen
class RegistrySessionLost:
    """Our session expired, with its ephemeral nodes and watches; a new one follows by itself."""


# ---- the registry machine's side ----------------------------------------------------------------


@attrs.frozen
class SessionRequested:
    """A client at *link* wants a session, or to go on with *session_id* (0: a new one).

    Going on keeps the ephemeral nodes and the first timeout, and takes the session from any other link,
    whose operations get UNKNOWN from then on. The watches are gone: whoever carries this for a machine
    tells it, once more, of each watch that has not fired, so that it reads again.
    """

    link: int
    session_id: int
    timeout_ms: int


@attrs.frozen
class SessionHeard:
    """The client of *session_id* is alive (a ping, or the process shares ours)."""

    session_id: int


@attrs.frozen
class SessionEnded:
    """The client of *session_id* closes it in order: its ephemeral nodes go at once."""

    session_id: int


@attrs.frozen
class LinkLost:
    """*link* is gone; its session lives on until its timeout, without its watches.

    Effects for a link that is gone may still come, and mean nothing.
    """

    link: int


@attrs.frozen
class OperationReceived:
    """The session at *link* asks for *operation*; *xid* pairs the answer."""

    link: int
    xid: int
    operation: Operation


@attrs.frozen
class AnswerSession:
    """Tell *link* its session: *session_id* is 0 when the one it asked for, or had, has ended.

    The answer to SessionRequested; with 0 also when the session of *link* expired, or SessionEnded is
    done. It is durable, as is the end of its ephemeral nodes.
    """

    link: int
    session_id: int


@attrs.frozen
class AnswerOperation:
    """The answer to OperationReceived; everything that it reports is durable."""

    link: int
    xid: int
    answer: Answer


@attrs.frozen
class FireWatch:
    """Tell *link* that a watch of its session fired."""

    link: int
    path: str
    changed: Changed
