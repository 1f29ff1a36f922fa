"""How descriptors are shared out: files first, connections get the rest."""

import pytest

from flussd.runtime_real.descriptors import FILES_MIN, OTHERS, shares
from flussd.runtime_real.disk import OPEN_FILES_MAX


@pytest.mark.parametrize("limit", [64, 256, 1024, 20_000, 65_536])
@pytest.mark.parametrize("node_count", [3, 5])
def test_shares_fit_the_limit(limit, node_count):
    """No two shares together are more than there is, and nobody is left without."""
    shared = shares(limit, node_count)

    assert OTHERS + shared.files * node_count + shared.sockets <= max(limit, OTHERS + 6 * node_count)
    assert FILES_MIN <= shared.files <= OPEN_FILES_MAX
    assert 2 * node_count <= shared.sockets


def test_with_many_descriptors_connections_have_nearly_all():
    """1. 20 000 are allowed. 2. Files have their 256 a node, connections the rest."""
    shared = shares(20_000, 3)

    assert (OPEN_FILES_MAX, 20_000 - OTHERS - 3 * OPEN_FILES_MAX) == (shared.files, shared.sockets)
