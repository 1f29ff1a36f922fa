"""The coordinator's life: becoming active, standing by, coming back, stopping."""

from flussd.core.coordinator import layout
from flussd.core.coordinator.coordinator import Coordinator, Role
from flussd.core.machine import Announce, Fatal, Stopped
from flussd.core.registry import messages as r
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode


def test_the_table_is_total():
    """Every event has a handler for every role."""
    assert {len(Role)} == {len(row) for row in Coordinator.TABLE.values()}


def test_a_first_start(world):
    """1. The registry is empty. 2. Base nodes and the default database are there, and we are active."""
    assert ["active", "ready"] == world.states
    assert "0" == world.registry.tree.nodes[layout.EPOCH].data.decode()
    assert ["fluss"] == world.registry.children(layout.DATABASES)
    assert list(world.ask(ApiKey.LIST_DATABASES).database_name) == ["fluss"]
    world.settled()
