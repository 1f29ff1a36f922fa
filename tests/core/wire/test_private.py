"""Our own messages: they travel, and their keys are apart from upstream's."""

import pytest

from flussd.core.wire import apis, private
from flussd.core.wire.private_table import MESSAGES


def test_keys_are_apart():
    """No key of ours is one of upstream's, now or soon: they count from 1000."""
    assert all(key >= 30000 for key in (private.UPDATE_CATALOG, private.AWAIT_REPORTS))
    assert max(apis.APIS) < 30000


@pytest.mark.parametrize("key", [private.UPDATE_CATALOG, private.AWAIT_REPORTS])
def test_requests_and_responses_have_classes(key):
    """Each key has both; their names belong together."""
    request, response = private.request_class(key), private.response_class(key)

    assert request.DESCRIPTOR.name.removesuffix("Request") == response.DESCRIPTOR.name.removesuffix(
        "Response"
    )
    assert {request.DESCRIPTOR.name, response.DESCRIPTOR.name} <= MESSAGES.keys()


def test_an_update_travels():
    """Absent and default values stay apart: partition 0 is not no partition."""
    update = private.UpdateCatalogRequest(coordinator_epoch=1, tablet_incarnation=2**40, sequence=3)
    update.buckets.add(table_id=7, bucket=1, leader_id=-1, isr=[1, 2])
    update.buckets.add(table_id=7, bucket=1, partition_id=0, dropped=True)
    read = private.UpdateCatalogRequest.FromString(update.SerializeToString())

    assert update == read
    assert [False, True] == [entry.HasField("partition_id") for entry in read.buckets]
    assert not read.nodes_changed
