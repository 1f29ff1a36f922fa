"""Cluster configs: what may be set, what a change makes of lists and maps, and that all or none counts."""

from __future__ import annotations

import pytest

from flussd.core.catalog.records import ConfigsRecord
from flussd.core.coordinator import layout
from flussd.core.coordinator.cluster_configs import altered
from flussd.core.records.refusal import Refused
from flussd.core.wire import messages
from flussd.core.wire.apis import ApiKey
from flussd.core.wire.errors import ErrorCode as E

SET, DELETE, APPEND, SUBTRACT = range(4)
DIRS = "remote.data.dirs"
CREDENTIALS = "security.sasl.plain.credentials"


def change(key, value=None, op_type=SET):
    return messages.PbAlterConfig(config_key=key, config_value=value, op_type=op_type)


def make(*changes, **before):
    """The dynamic configs after *changes*."""
    dynamic = tuple(sorted((key.replace("_", "."), value) for key, value in before.items()))
    return altered(ConfigsRecord((), dynamic), [change(*one) for one in changes])


RIGHT = [
    ("kv.snapshot.interval", "11min"),
    ("datalake.format", "Paimon"),
    ("log.retention.roll-active-segment.enabled", "TRUE"),
    ("log.replica.min-in-sync-replicas-number", "2"),
    ("kv.leader-replica.memory-reserved", "64 mb"),
    ("kv.rocksdb.shared-rate-limiter.bytes-per-sec", "1048576"),
    ("server.data-disk.write-limit-ratio", "0.9"),
    ("server.data-disk.write-recover-ratio", ".5"),
    ("server.historical-partition.lookup-cache.max-disk-ratio", "1"),
    ("server.historical-partition.lookuper-cache.expire-after-access", "3 hours"),
    (DIRS, "s3://a/b, file:///c"),
    ("remote.data.dirs.strategy", "weighted_round_robin"),
    ("remote.data.dirs.weights", ""),
    (CREDENTIALS, "u:p,v:q"),
    ("datalake.paimon.warehouse", "/x"),
]


@pytest.mark.parametrize(("key", "value"), RIGHT, ids=[key for key, _ in RIGHT])
def test_what_may_be_set(key, value):
    """Each dynamic option takes a right value, and keeps its text."""
    assert {key: value} == make((key, value))
    assert {} == make((key, value), (key, None, DELETE))


WRONG = [
    ("no.such.option", "1"),
    ("bind.listeners", "FLUSS://x:1"),
    ("default.bucket.number", "3"),
    ("datalake.", "x"),
    ("datalake.format", "delta"),
    ("datalake.enabled", "true"),  # without a format
    ("log.retention.roll-active-segment.enabled", "yes"),
    ("log.replica.min-in-sync-replicas-number", "0"),
    ("kv.leader-replica.memory-reserved", "-1"),
    ("kv.leader-replica.memory-reserved", "1 parsec"),
    ("kv.snapshot.interval", "soon"),
    ("server.data-disk.write-limit-ratio", "1.1"),
    ("server.data-disk.write-limit-ratio", "nan"),
    ("server.data-disk.write-limit-ratio", "0.5"),  # below the limit of recovery
    ("remote.data.dirs.weights", "1,2"),  # of no directories
    ("remote.data.dirs.weights", "-1"),
    ("remote.data.dirs.strategy", "RANDOM"),
    (CREDENTIALS, "alice"),
    ("kv.snapshot.interval", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={value}" for key, value in WRONG])
def test_what_may_not(key, value):
    """Unknown and fixed options, and values that are none: 64."""
    with pytest.raises(Refused) as refused:
        make((key, value))

    assert E.CONFIG_EXCEPTION == refused.value.code


def test_lists():
    """More and fewer items; a directory that is in use must stay."""
    assert {DIRS: "a,b,c"} == make((DIRS, "b,c", APPEND), remote_data_dirs="a")
    assert {DIRS: "a,c"} == make((DIRS, "a,b,c"), (DIRS, " b ", SUBTRACT))
    for taken in ((DIRS, "a", SUBTRACT), (DIRS, "b"), (DIRS, None, DELETE)):
        with pytest.raises(Refused, match="must stay"):
            make(taken, remote_data_dirs="a")


def test_maps():
    """An entry replaces that of its key; entries are taken out by key."""
    assert {CREDENTIALS: "u:1,v:3"} == make((CREDENTIALS, "u:1,v:2"), (CREDENTIALS, "v:3", APPEND))
    assert {CREDENTIALS: "v:2"} == make((CREDENTIALS, "u:1,v:2"), (CREDENTIALS, "u", SUBTRACT))


@pytest.mark.parametrize("op_type", [APPEND, SUBTRACT])
def test_only_lists_and_maps_are_appended_to(op_type):
    """Of anything else: 64."""
    with pytest.raises(Refused, match="only a list or a map"):
        make(("kv.snapshot.interval", "1min", op_type))


def test_unknown_operations():
    """-1, as the Java server says."""
    with pytest.raises(Refused) as refused:
        make(("kv.snapshot.interval", "1min", 9))

    assert E.UNKNOWN_SERVER_ERROR == refused.value.code


def test_lakes():
    """Options of another lake than the cluster's are refused, in whatever order they come."""
    lake = ("datalake.format", "iceberg")
    right, wrong = ("datalake.iceberg.type", "rest"), ("datalake.paimon.warehouse", "/x")

    assert 3 == len(make(right, lake, ("datalake.enabled", "true")))
    with pytest.raises(Refused, match="the lake is iceberg"):
        make(wrong, lake)


# ---- through the machine -------------------------------------------------------------------------


def alter(world, *changes):
    message = messages.AlterClusterConfigsRequest(alter_configs=[change(*one) for one in changes])
    return world.ask(ApiKey.ALTER_CLUSTER_CONFIGS, message)


def dynamic(world):
    configs = world.ask(ApiKey.DESCRIBE_CLUSTER_CONFIGS).configs
    return {c.config_key: c.config_value for c in configs if c.config_source.startswith("DYNAMIC")}


def test_servers_know_when_the_answer_comes(world):
    """A tablet server was told before the client is; a restart, and a second start, keep it."""
    answer = alter(world, ("kv.snapshot.interval", "5min"))
    known = world.tablets[0].catalog.configs

    assert messages.AlterClusterConfigsResponse() == answer
    assert (("kv.snapshot.interval", "5min"),) == known.dynamic
    assert "1" == dict(known.initial)["default.bucket.number"]
    world.crash()
    world.start()
    world.run(500)
    assert {"kv.snapshot.interval": "5min"} == dynamic(world)
    alter(world, ("kv.snapshot.interval", None, DELETE), ("datalake.format", "lance"))
    assert {"datalake.format": "lance"} == dynamic(world)
    world.run(300)
    world.settled()


def test_all_or_none(world):
    """One bad change of two: nothing is written."""
    before = world.registry.multis

    assert E.CONFIG_EXCEPTION == alter(world, ("kv.snapshot.interval", "1min"), ("x", "y"))
    assert {} == dynamic(world)
    assert before == world.registry.multis


def test_a_change_of_nothing_writes_nothing(world):
    """An empty one, the deletion of what is not set, the value that is set."""
    alter(world, ("kv.snapshot.interval", "1min"))
    before = world.registry.multis

    for changes in ([], [("datalake.format", None, DELETE)], [("kv.snapshot.interval", "1min")]):
        assert messages.AlterClusterConfigsResponse() == alter(world, *changes)
    assert before == world.registry.multis


@pytest.mark.parametrize("mode", ["lose_before", "lose_after", "lose_late"])
@pytest.mark.parametrize("first", [True, False])
def test_a_write_may_be_lost(make_world, mode, first):
    """The node is made, or replaced; whatever is lost, the answer is the truth."""
    world = make_world()
    if not first:
        alter(world, ("kv.snapshot.interval", "1min"))
    setattr(world.registry, mode, world.registry.multis + 1)

    assert messages.AlterClusterConfigsResponse() == alter(world, ("kv.snapshot.interval", "2min"))
    stored, _ = layout.decode_configs(world.registry.tree.nodes[layout.CONFIGS].data)
    assert {"kv.snapshot.interval": "2min"} == stored == dynamic(world)
    world.registry.apply_late()
    world.run(500)
    world.settled()
    assert world.machine.epoch >= 1


@pytest.mark.parametrize("mode", ["lose_before", "lose_after"])
def test_nothing_is_appended_twice(world, mode):
    """An append whose outcome was unknown is made once, whether it was lost or only its answer."""
    alter(world, (DIRS, "a"))
    setattr(world.registry, mode, world.registry.multis + 1)

    assert messages.AlterClusterConfigsResponse() == alter(world, (DIRS, "b", APPEND))
    assert {DIRS: "a,b"} == dynamic(world)
