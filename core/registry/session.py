"""Who is alive: the deadline of each session, and the link it is reached by.

The volatile half of sessions; which ones exist is in the tree. After a restart each gets its whole timeout
again, since nobody could reach us while we were away. A session must never expire before its timeout has
passed in silence. The caller owes it one call for each sign of life.
"""

from __future__ import annotations

import heapq

import attrs


@attrs.define(eq=False)
class Session:
    """One living session; *link* is None while nobody is connected, *closing* once its end is decided."""

    session_id: int
    timeout_ms: int
    deadline_ms: int
    link: int | None = None
    closing: bool = False


@attrs.define(eq=False)
class Sessions:
    """The living sessions, and the order in which they may expire."""

    by_id: dict[int, Session] = attrs.Factory(dict)
    links: dict[int, int] = attrs.Factory(dict)  # link -> the session it asked for last
    heap: list[tuple[int, int]] = attrs.Factory(list)  # (no later than the deadline, session)

    def open(self, session_id: int, timeout_ms: int, now_ms: int) -> None:
        """A session begins, or is found again after a restart."""
        assert session_id not in self.by_id
        self.by_id[session_id] = Session(session_id, timeout_ms, now_ms + timeout_ms)
        heapq.heappush(self.heap, (now_ms + timeout_ms, session_id))

    def close(self, session_id: int) -> int | None:
        """A session is gone; return the link to tell, if there is one."""
        return self.by_id.pop(session_id).link  # its place in the heap goes when it comes up

    def attach(self, session_id: int, link: int) -> None:
        """*link*, which speaks for nobody, speaks for the session from now on."""
        session = self.by_id[session_id]
        session.link = link
        self.links[link] = session_id

    def detach(self, link: int) -> int:
        """*link* speaks for nobody any more; return the session that lost it, or 0."""
        session = self.by_id.get(self.links.pop(link, 0))
        if session is None or session.link != link:
            return 0  # it ended before, or another link took it over
        session.link = None
        return session.session_id

    def at(self, link: int) -> Session | None:
        """Return the session that *link* asked for last, if it lives; it may have moved on since."""
        return self.by_id.get(self.links.get(link, 0))

    def heard(self, session: Session | None, now_ms: int) -> None:
        """The client of *session* gave a sign of life; too late once the end is decided."""
        if session is not None and not session.closing:
            session.deadline_ms = now_ms + session.timeout_ms

    def expire(self, now_ms: int) -> list[int]:
        """Decide the end of each session whose deadline has come, earliest first."""
        expired = []
        while self.heap and self.heap[0][0] <= now_ms:  # each turn removes or postpones one
            _, session_id = heapq.heappop(self.heap)
            session = self.by_id.get(session_id)
            if session is None or session.closing:
                continue
            if session.deadline_ms > now_ms:
                heapq.heappush(self.heap, (session.deadline_ms, session_id))
            else:
                session.closing = True
                expired.append(session_id)
        return expired

    def next_ms(self) -> int | None:
        """Return when to look again; None when there is nobody to look after."""
        while self.heap and self.heap[0][1] not in self.by_id:
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else None

    def clone(self) -> Sessions:
        """Return a copy that shares nothing that changes."""
        by_id = {
            s.session_id: Session(s.session_id, s.timeout_ms, s.deadline_ms, s.link, s.closing)
            for s in self.by_id.values()
        }
        return Sessions(by_id, dict(self.links), list(self.heap))

    def state(self) -> tuple[object, ...]:
        """Return what a digest must cover."""
        sessions = sorted(
            ((s.session_id, s.timeout_ms, s.deadline_ms, s.link, s.closing) for s in self.by_id.values()),
            key=lambda state: state[0],
        )
        # Lazy entries of ended sessions may stand in the heap or not: they mean nothing.
        heap = sorted(entry for entry in self.heap if entry[1] in self.by_id)
        return sessions, sorted(self.links.items()), heap

    def check_all(self) -> None:
        """Assert that each living session will be looked at, no later than its deadline."""
        ahead = {session_id: at_ms for at_ms, session_id in self.heap}
        for session in self.by_id.values():
            assert session.closing or ahead[session.session_id] <= session.deadline_ms
            assert session.link is None or self.links[session.link] == session.session_id
