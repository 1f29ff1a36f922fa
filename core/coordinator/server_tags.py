"""Server tags: what an admin says of tablet servers; a server carries one at most.

A server that is permanently offline gets no new replicas. A tag stays when its server leaves, and may be
removed then. All tags are one node, written anew by each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flussd.core.coordinator import changes as ch
from flussd.core.coordinator.admin_records import SERVER_TAGS, ServerTag, TagsRecord, encode_tags
from flussd.core.coordinator.config import CoordinatorConfig
from flussd.core.coordinator.state import State
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Create, SetData, Write
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.ddl import Ddl, Made


def add(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on ADD_SERVER_TAG: all servers get it, or none."""
    tag, tags = _tag_of(ddl.message), dict(state.tags.tags)
    for server_id in ddl.message.server_ids:
        if server_id not in state.servers:
            text = f"tablet server {server_id} is not registered"
            raise Refused(ErrorCode.SERVER_NOT_EXIST_EXCEPTION, text)
    for server_id in ddl.message.server_ids:
        if tags.get(server_id, tag) is not tag:
            text = f"tablet server {server_id} has the tag {tags[server_id].name} already"
            raise Refused(ErrorCode.SEVER_TAG_ALREADY_EXIST_EXCEPTION, text)
        tags[server_id] = tag
    return _replaced(ddl, state, tags)


def remove(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Decide on REMOVE_SERVER_TAG: from all servers, or from none; one without a tag is done already."""
    tag, tags = _tag_of(ddl.message), dict(state.tags.tags)
    for server_id in ddl.message.server_ids:
        if tags.pop(server_id, tag) is not tag:
            text = f"tablet server {server_id} has another tag than {tag.name}"
            raise Refused(ErrorCode.SEVER_TAG_NOT_EXIST_EXCEPTION, text)
    return _replaced(ddl, state, tags)


def _tag_of(asked: Any) -> ServerTag:
    try:
        return ServerTag(asked.server_tag)
    except ValueError:
        text = f"server tag: expected 0 or 1, got {asked.server_tag}"
        raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text) from None


def _replaced(ddl: Ddl, state: State, tags: dict[int, ServerTag]) -> Made | None:
    before = state.tags
    after = TagsRecord(tuple(sorted(tags.items())), before.version + 1, ddl.change_id)
    if after.tags == before.tags:
        return None
    data = encode_tags(after)
    write: Write = SetData(SERVER_TAGS, data, before.version)
    if before.version < 0:
        write = Create(SERVER_TAGS, data)
    return (write,), (ch.TagsSet(after),)
