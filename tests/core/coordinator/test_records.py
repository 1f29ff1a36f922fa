"""Bucket records as the registry keeps them, and their numbers."""

from __future__ import annotations

import attrs
import pytest

from flussd.core.catalog.records import BucketRecord
from flussd.core.coordinator import layout

RECORD = BucketRecord((7, -1, 3), (1, 2, 3), 2, 99, 5, (2, 3), 8, 4, 2, (1,), (3,))
CHANGED = {
    "key": (7, 0, 3),
    "replicas": (1, 2),
    "leader_id": 3,
    "leader_incarnation": 98,
    "leader_epoch": 6,
    "isr": (2,),
    "bucket_epoch": 9,
    "coordinator_epoch": 5,
    "min_isr": 1,
    "elr": (),
    "suspects": (),
}


@pytest.mark.parametrize("record", [RECORD, BucketRecord((7, -1, 3), (), -1, -1, 0, (), 0, 0)])
def test_a_record_is_written_by_hand_as_by_the_encoder(record):
    """Byte for byte, and read back whole."""
    data = layout.encode_record(record)

    assert layout.encode(layout.json.loads(data)) == data
    assert record == layout.decode_record(record.key, data)


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(BucketRecord) if field.init])
def test_a_number_covers_every_field(field):
    """Another value, another number; the same in every process."""
    other = attrs.evolve(RECORD, **{field: CHANGED[field]})

    assert other.number != RECORD.number
    assert attrs.evolve(RECORD).number == RECORD.number == 135357977174011466437596281277227604151
