"""REBALANCE, and what became of it: one replica of each bucket cannot be moved, so nothing ever is.

A rebalance that finds nothing to move is complete at once, and stays known as the last one. One that would
have to move a replica is refused (61): moving comes with replication.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from flussd.core.coordinator import changes as ch
from flussd.core.coordinator.admin_records import (
    REBALANCE,
    REBALANCE_PARENT,
    RebalanceRecord,
    RebalanceStatus,
    encode_rebalance,
)
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.state import State
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Create, SetData, Write
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.ddl import Ddl, Made

MARGIN_PERCENT: Final = 9
"""How far from the mean a server may be: upstream's threshold of 1.10, of which it takes nine tenths."""


class Goal(enum.IntEnum):
    """What a rebalance is for; the number is what travels."""

    REPLICA_DISTRIBUTION = 0
    LEADER_DISTRIBUTION = 1
    RACK_AWARE = 2  # one replica is in as many racks as it can be


def start(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on REBALANCE."""
    goals = _goals_of(ddl.message)
    why = _unreachable(state, goals) if goals else ""
    if why:
        raise Refused(ErrorCode.REBALANCE_FAILURE_EXCEPTION, why)
    before = state.rebalance
    version = 0 if before is None else before.version + 1
    record = RebalanceRecord(
        f"rebalance-{ddl.change_id}", RebalanceStatus.COMPLETED, version, ddl.change_id
    )
    ddl.answer = messages.RebalanceResponse(rebalance_id=record.rebalance_id)
    data = encode_rebalance(record)
    writes: tuple[Write, ...] = (Create(REBALANCE_PARENT), Create(REBALANCE, data))
    if before is not None:
        writes = (SetData(REBALANCE, data, before.version),)
    return writes, (ch.RebalanceSet(record),)


def _goals_of(asked: messages.RebalanceRequest) -> list[Goal]:
    try:
        return [Goal(number) for number in asked.goals]
    except ValueError:
        text = f"rebalance goals: expected numbers from 0 to 2, got {list(asked.goals)[:10]}"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text) from None


def _unreachable(state: State, goals: list[Goal]) -> str:
    """Return why some goal needs what cannot be done; empty if nothing has to move."""
    counts = {server_id: len(state.hosted.get(server_id, ())) for server_id in sorted(state.servers)}
    kept = [server_id for server_id in counts if state.tags.of(server_id) is None]
    if not kept:
        return "every live tablet server has an offline tag: nowhere can a replica be moved to"
    for server_id, count in counts.items():
        if count and server_id not in kept:
            return _no_moves(f"tablet server {server_id} has an offline tag, and {count} replicas")
    if all(goal is Goal.RACK_AWARE for goal in goals):
        return ""
    total = sum(counts.values())
    # Whole numbers: the mean is total/len, and the bounds are rounded away from it.
    least = total * (100 - MARGIN_PERCENT) // (100 * len(kept))
    most = -(-total * (100 + MARGIN_PERCENT) // (100 * len(kept)))
    for server_id in kept:
        count = counts[server_id]
        if not least <= count <= most:
            return _no_moves(f"tablet server {server_id} has {count} replicas, expected {least} to {most}")
    return ""


def _no_moves(text: str) -> str:
    return f"{text}; flussd cannot move replicas yet"


def progress(
    state: State, asked: messages.ListRebalanceProgressRequest, _: int
) -> messages.ListRebalanceProgressResponse:
    """Answer LIST_REBALANCE_PROGRESS: the last rebalance, or an empty message if there was none."""
    _check_id(state, asked)
    response = messages.ListRebalanceProgressResponse()
    if state.rebalance is not None:
        response.rebalance_id = state.rebalance.rebalance_id
        response.rebalance_status = int(state.rebalance.status)
    return response


def cancel(
    state: State, asked: messages.CancelRebalanceRequest, _: int
) -> messages.CancelRebalanceResponse:
    """Answer CANCEL_REBALANCE: what is complete stays so, and nothing else ever is."""
    _check_id(state, asked)
    return messages.CancelRebalanceResponse()


def _check_id(
    state: State, asked: messages.ListRebalanceProgressRequest | messages.CancelRebalanceRequest
) -> None:
    known = "" if state.rebalance is None else state.rebalance.rebalance_id
    if asked.HasField("rebalance_id") and asked.rebalance_id != known:
        got = f"got {asked.rebalance_id[:100]}"
        text = f"rebalance: expected {known}, {got}" if known else f"there was no rebalance, {got}"
        raise Refused(ErrorCode.NO_REBALANCE_IN_PROGRESS_EXCEPTION, text)
