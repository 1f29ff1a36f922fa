"""Cluster configs that may be altered while the cluster runs: which there are, and what a change makes.

Upstream's dynamic options (wire protocol, 6.13; storage-lake-ops, 4.1), with upstream's checks. Values
are texts and stay as they were given; all changes of a request are one write, or none. Many of these
options are for parts that flussd does not have yet: they are kept and shown, and do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from flussd.core.catalog.records import ConfigsRecord
from flussd.core.coordinator import changes as ch
from flussd.core.coordinator import layout
from flussd.core.coordinator.state import State
from flussd.core.records.descriptor import ClusterDefaults
from flussd.core.records.json_text import shown
from flussd.core.records.options import parse_bool, parse_duration_ms, parse_enum, parse_int_to
from flussd.core.records.refusal import Refused
from flussd.core.registry.messages import Create, SetData, Write
from flussd.core.wire import messages
from flussd.core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from flussd.core.coordinator.config import CoordinatorConfig
    from flussd.core.coordinator.ddl import Ddl, Made

SET: Final = 0
DELETE: Final = 1
APPEND: Final = 2
SUBTRACT: Final = 3

INT_MAX: Final = 2**31 - 1

LAKES: Final = ("paimon", "iceberg", "hudi", "lance")
LAKE_PREFIX: Final = "datalake."
LAKE_ENABLED: Final = "datalake.enabled"
LAKE_FORMAT: Final = "datalake.format"
REMOTE_DIRS: Final = "remote.data.dirs"
REMOTE_WEIGHTS: Final = "remote.data.dirs.weights"
WRITE_LIMIT: Final = "server.data-disk.write-limit-ratio"
WRITE_RECOVER: Final = "server.data-disk.write-recover-ratio"

_SIZE: Final = re.compile(
    r"\s*[0-9]{1,18}\s*(|b|bytes|[kmgt]b?|(kibi|mebi|gibi|tebi)bytes)\s*", re.IGNORECASE
)


def _check_size(text: str) -> None:
    if _SIZE.fullmatch(text) is None:
        raise ValueError(text)


def _ratio(text: str) -> float:
    if re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*", text, re.ASCII) is None or not 0 < float(text) <= 1:
        raise ValueError(text)
    return float(text)


def _from_one(text: str) -> int:
    number = parse_int_to(INT_MAX)(text)
    if number < 1:
        raise ValueError(text)
    return number


def _weights(text: str) -> list[int]:
    weights = [parse_int_to(INT_MAX)(one) for one in _items(text)]
    if any(weight < 0 for weight in weights):
        raise ValueError(text)
    return weights


def _items(text: str) -> list[str]:
    """Return the items of a list, or the entries of a map."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _check_entries(text: str) -> None:
    if not all(":" in entry for entry in _items(text)):
        raise ValueError(text)


@attrs.frozen
class DynamicOption:
    """How a value is checked (by ValueError), what a right one is called, and of what it is made."""

    check: Callable[[str], object]
    kind: str
    is_list: bool = False
    is_map: bool = False


_SIZES: Final = DynamicOption(_check_size, "a size like 64mb")
_RATIO: Final = DynamicOption(_ratio, "a number above 0 and up to 1")
_DURATION: Final = DynamicOption(parse_duration_ms, "a duration like 10 min")
_BOOL: Final = DynamicOption(parse_bool, "true or false")
_TEXT: Final = DynamicOption(str, "a text")

OPTIONS: Final[dict[str, DynamicOption]] = {
    LAKE_ENABLED: _BOOL,
    LAKE_FORMAT: DynamicOption(parse_enum(*map(str.upper, LAKES)), f"one of {', '.join(LAKES)}"),
    "log.retention.roll-active-segment.enabled": _BOOL,
    "log.replica.min-in-sync-replicas-number": DynamicOption(_from_one, "a number from 1 on"),
    "kv.leader-replica.memory-reserved": _SIZES,
    "kv.rocksdb.shared-rate-limiter.bytes-per-sec": _SIZES,
    "kv.snapshot.interval": _DURATION,
    WRITE_LIMIT: _RATIO,
    WRITE_RECOVER: _RATIO,
    "server.historical-partition.lookup-cache.max-disk-ratio": _RATIO,
    "server.historical-partition.lookuper-cache.expire-after-access": _DURATION,
    REMOTE_DIRS: DynamicOption(str, "a list", is_list=True),
    "remote.data.dirs.strategy": DynamicOption(
        parse_enum("ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN"), "ROUND_ROBIN or WEIGHTED_ROUND_ROBIN"
    ),
    REMOTE_WEIGHTS: DynamicOption(_weights, "a list of numbers from 0 on", is_list=True),
    "security.sasl.plain.credentials": DynamicOption(
        _check_entries, "entries like user:password", is_map=True
    ),
}
"""What may be altered; beside these, every key of a lake."""


def initial_configs(
    defaults: ClusterDefaults, settings: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """Return what a cluster was started with, by upstream's names, sorted."""
    configs = {
        "default.bucket.number": str(defaults.default_bucket_number),
        "default.replication.factor": str(defaults.default_replication_factor),
        "max.bucket.num": str(defaults.max_bucket_count),
        "max.partition.num": str(defaults.max_partitions),
        "allow.create.log.tables": str(defaults.allow_log_tables).lower(),
        "allow.create.kv.tables": str(defaults.allow_kv_tables).lower(),
    }
    return tuple(sorted((configs | dict(settings)).items()))


def altered(record: ConfigsRecord, changes: Iterable[messages.PbAlterConfig]) -> dict[str, str]:
    """Return the dynamic configs after all *changes*, in their order.

    Raises:
        Refused: one of them cannot be made; then none is to be.
    """
    initial = dict(record.initial)
    configs = dict(record.dynamic)
    for change in changes:
        key, option = change.config_key, _option(change.config_key)
        if change.op_type == DELETE:
            configs.pop(key, None)
            continue
        if change.op_type not in (SET, APPEND, SUBTRACT):
            text = f"operation on {key}: expected 0 to 3, got {change.op_type}"
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, text)
        if not change.HasField("config_value"):
            raise _refused(f"cluster config {key}: expected a value")
        value = change.config_value
        if change.op_type != SET:
            value = _combined(key, option, configs.get(key, initial.get(key, "")), change)
        try:
            option.check(value)
        except ValueError:
            raise _refused(f"cluster config {key}: expected {option.kind}, got {shown(value)}") from None
        configs[key] = value
    _check_together(initial | dict(record.dynamic), initial | configs)
    return configs


def _refused(text: str) -> Refused:
    return Refused(ErrorCode.CONFIG_EXCEPTION, text)


def _option(key: str) -> DynamicOption:
    option = OPTIONS.get(key)
    if option is None and key.startswith(LAKE_PREFIX) and len(key) > len(LAKE_PREFIX):
        return _TEXT
    if option is None:
        raise _refused(f"cluster config {shown(key)} cannot be altered while the cluster runs")
    return option


def _combined(key: str, option: DynamicOption, before: str, change: messages.PbAlterConfig) -> str:
    """Return a list, or a map, with more or fewer entries."""
    if not (option.is_list or option.is_map):
        raise _refused(f"cluster config {key}: only a list or a map is appended to, or subtracted from")
    given = _items(change.config_value)
    names = [_name(one, option) for one in given]
    if change.op_type == SUBTRACT:
        return ",".join(one for one in _items(before) if _name(one, option) not in names)
    if option.is_map:  # a new value replaces the old one
        return ",".join([one for one in _items(before) if _name(one, option) not in names] + given)
    return ",".join(_items(before) + given)


def _name(item: str, option: DynamicOption) -> str:
    return item.partition(":")[0].strip() if option.is_map else item


def _check_together(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Refuse what is wrong only in company; *before* and *after* have initial and dynamic configs."""
    lake = after.get(LAKE_FORMAT, "").strip().lower()
    if not lake and parse_bool(after.get(LAKE_ENABLED, "false")):
        raise _refused(f"cluster config {LAKE_ENABLED}: true needs a {LAKE_FORMAT}")
    for key in after:
        of_lake = key.removeprefix(LAKE_PREFIX).partition(".")[0] if key.startswith(LAKE_PREFIX) else ""
        if lake and of_lake in LAKES and of_lake != lake:
            raise _refused(f"cluster config {shown(key)}: the lake is {lake}")
    dirs, weights = _items(after.get(REMOTE_DIRS, "")), _items(after.get(REMOTE_WEIGHTS, ""))
    for directory in _items(before.get(REMOTE_DIRS, "")):
        if directory not in dirs:
            raise _refused(f"cluster config {REMOTE_DIRS}: {shown(directory)} must stay in it")
    if weights and len(weights) != len(dirs):
        text = f"expected as many as there are directories, {len(dirs)}, got {len(weights)}"
        raise _refused(f"cluster config {REMOTE_WEIGHTS}: {text}")
    limit, recover = float(after.get(WRITE_LIMIT, "0.85")), float(after.get(WRITE_RECOVER, "0.80"))
    if (WRITE_LIMIT in after or WRITE_RECOVER in after) and recover > limit:
        raise _refused(f"cluster config {WRITE_RECOVER}: expected at most {limit}, got {recover}")


def alter_cluster_configs(ddl: Ddl, state: State, _: CoordinatorConfig) -> Made | None:
    """Return what a request writes; the first one makes the node."""
    record = state.catalog.configs
    configs = altered(record, ddl.message.alter_configs)
    if configs == dict(record.dynamic):
        return None
    data, version = layout.encode_configs(configs, ddl.change_id), state.configs_mark[0]
    writes: tuple[Write, ...]
    if version < 0:
        parents = [Create(path) for path in layout.CONFIGS_PARENTS]
        writes = (*parents, Create(layout.CONFIGS, data))
    else:
        writes = (SetData(layout.CONFIGS, data, version),)
    return writes, (ch.ConfigsSet(tuple(sorted(configs.items())), version + 1, ddl.change_id),)
