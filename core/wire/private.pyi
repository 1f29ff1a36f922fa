# Written by tests/data/make_wire_tables.py from private.py, not by hand.
from typing import Final

UPDATE_CATALOG: Final = 30001
AWAIT_REPORTS: Final = 30002
LEADING: Final = 1
DELETED: Final = 2
FAILED: Final = 3

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message

def request_class(api_key: int) -> type[Message]: ...
def response_class(api_key: int) -> type[Message]: ...

class UpdateCatalogRequest(Message):
    coordinator_epoch: int
    tablet_incarnation: int
    sequence: int
    snapshot_begin: bool
    snapshot_end: bool
    @property
    def coordinator(self) -> NodeEntry: ...
    nodes_changed: bool
    @property
    def nodes(self) -> RepeatedCompositeFieldContainer[NodeEntry]: ...
    @property
    def databases(self) -> RepeatedCompositeFieldContainer[DatabaseEntry]: ...
    @property
    def tables(self) -> RepeatedCompositeFieldContainer[TableEntry]: ...
    @property
    def buckets(self) -> RepeatedCompositeFieldContainer[BucketEntry]: ...
    @property
    def partitions(self) -> RepeatedCompositeFieldContainer[PartitionEntry]: ...
    configs_changed: bool
    @property
    def configs(self) -> RepeatedCompositeFieldContainer[ConfigEntry]: ...
    def __init__(self, *, coordinator_epoch: int | None = ..., tablet_incarnation: int | None = ..., sequence: int | None = ..., snapshot_begin: bool | None = ..., snapshot_end: bool | None = ..., coordinator: NodeEntry | None = ..., nodes_changed: bool | None = ..., nodes: Iterable[NodeEntry] | None = ..., databases: Iterable[DatabaseEntry] | None = ..., tables: Iterable[TableEntry] | None = ..., buckets: Iterable[BucketEntry] | None = ..., partitions: Iterable[PartitionEntry] | None = ..., configs_changed: bool | None = ..., configs: Iterable[ConfigEntry] | None = ...) -> None: ...

class UpdateCatalogResponse(Message):
    sequence: int
    def __init__(self, *, sequence: int | None = ...) -> None: ...

class NodeEntry(Message):
    server_id: int
    host: str
    port: int
    incarnation: int
    def __init__(self, *, server_id: int | None = ..., host: str | None = ..., port: int | None = ..., incarnation: int | None = ...) -> None: ...

class ConfigEntry(Message):
    key: str
    value: str
    dynamic: bool
    def __init__(self, *, key: str | None = ..., value: str | None = ..., dynamic: bool | None = ...) -> None: ...

class DatabaseEntry(Message):
    name: str
    dropped: bool
    json: bytes
    created_ms: int
    modified_ms: int
    def __init__(self, *, name: str | None = ..., dropped: bool | None = ..., json: bytes | None = ..., created_ms: int | None = ..., modified_ms: int | None = ...) -> None: ...

class TableEntry(Message):
    database: str
    name: str
    table_id: int
    dropped: bool
    json: bytes
    schema_id: int
    @property
    def schemas(self) -> RepeatedCompositeFieldContainer[SchemaEntry]: ...
    created_ms: int
    modified_ms: int
    def __init__(self, *, database: str | None = ..., name: str | None = ..., table_id: int | None = ..., dropped: bool | None = ..., json: bytes | None = ..., schema_id: int | None = ..., schemas: Iterable[SchemaEntry] | None = ..., created_ms: int | None = ..., modified_ms: int | None = ...) -> None: ...

class SchemaEntry(Message):
    schema_id: int
    json: bytes
    def __init__(self, *, schema_id: int | None = ..., json: bytes | None = ...) -> None: ...

class PartitionEntry(Message):
    table_id: int
    partition_id: int
    dropped: bool
    name: str
    bucket_count: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., dropped: bool | None = ..., name: str | None = ..., bucket_count: int | None = ...) -> None: ...

class BucketEntry(Message):
    table_id: int
    partition_id: int
    bucket: int
    dropped: bool
    leader_id: int
    leader_incarnation: int
    leader_epoch: int
    @property
    def isr(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def elr(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def suspects(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    min_isr: int
    bucket_epoch: int
    coordinator_epoch: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket: int | None = ..., dropped: bool | None = ..., leader_id: int | None = ..., leader_incarnation: int | None = ..., leader_epoch: int | None = ..., isr: Iterable[int] | None = ..., elr: Iterable[int] | None = ..., suspects: Iterable[int] | None = ..., replicas: Iterable[int] | None = ..., min_isr: int | None = ..., bucket_epoch: int | None = ..., coordinator_epoch: int | None = ...) -> None: ...

class AwaitReportsRequest(Message):
    coordinator_epoch: int
    tablet_incarnation: int
    after_sequence: int
    wait_ms: int
    wall_ms: int
    def __init__(self, *, coordinator_epoch: int | None = ..., tablet_incarnation: int | None = ..., after_sequence: int | None = ..., wait_ms: int | None = ..., wall_ms: int | None = ...) -> None: ...

class AwaitReportsResponse(Message):
    wall_ms: int
    @property
    def reports(self) -> RepeatedCompositeFieldContainer[BucketReport]: ...
    def __init__(self, *, wall_ms: int | None = ..., reports: Iterable[BucketReport] | None = ...) -> None: ...

class BucketReport(Message):
    sequence: int
    kind: int
    table_id: int
    partition_id: int
    bucket: int
    leader_epoch: int
    text: str
    def __init__(self, *, sequence: int | None = ..., kind: int | None = ..., table_id: int | None = ..., partition_id: int | None = ..., bucket: int | None = ..., leader_epoch: int | None = ..., text: str | None = ...) -> None: ...
