"""The epoch history: which epoch covers which offsets."""

from __future__ import annotations

import pytest

from flussd.core.log.epochs import EpochHistory


def test_entries_ascend_and_an_empty_epoch_is_replaced():
    """An epoch that wrote nothing covers nothing, and leaves no entry."""
    history = EpochHistory()

    assert history.begin(1, 0)
    assert history.begin(2, 0)
    assert history.begin(5, 7)
    assert not history.begin(5, 9)
    assert [(2, 0), (5, 7)] == history.entries
    assert [-1, 2, 2, 5, 5] == [history.epoch_of(offset) for offset in (-1, 0, 6, 7, 100)]


def test_an_older_epoch_is_our_own_bug():
    """Whoever lets an epoch go back must not go on."""
    history = EpochHistory([(3, 0)])

    with pytest.raises(AssertionError, match="expected an epoch after 3, got 2"):
        history.begin(2, 5)


def test_truncation_trims():
    """Epochs that cover nothing below the new end are gone; the first stays."""
    history = EpochHistory([(1, 0), (2, 5), (4, 9)])

    history.truncate(9)
    assert [(1, 0), (2, 5)] == history.entries
    history.truncate(0)
    assert [(1, 0)] == history.entries
