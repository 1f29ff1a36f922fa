# Written by tests/data/make_wire_tables.py, not by hand.
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message

def build(package: str, table: Mapping[str, Sequence[tuple[int, str, str, str, bool]]]) -> dict[str, type[Message]]: ...
def request_class(api_key: int) -> type[Message]: ...
def response_class(api_key: int) -> type[Message]: ...

class AcquireKvSnapshotLeaseRequest(Message):
    lease_id: str
    lease_duration_ms: int
    @property
    def snapshots_to_lease(self) -> RepeatedCompositeFieldContainer[PbKvSnapshotLeaseForTable]: ...
    def __init__(self, *, lease_id: str | None = ..., lease_duration_ms: int | None = ..., snapshots_to_lease: Iterable[PbKvSnapshotLeaseForTable] | None = ...) -> None: ...

class AcquireKvSnapshotLeaseResponse(Message):
    @property
    def unavailable_snapshots(self) -> RepeatedCompositeFieldContainer[PbKvSnapshotLeaseForTable]: ...
    def __init__(self, *, unavailable_snapshots: Iterable[PbKvSnapshotLeaseForTable] | None = ...) -> None: ...

class AddServerTagByRackRequest(Message):
    @property
    def racks(self) -> RepeatedScalarFieldContainer[str]: ...
    server_tag: int
    def __init__(self, *, racks: Iterable[str] | None = ..., server_tag: int | None = ...) -> None: ...

class AddServerTagByRackResponse(Message):
    def __init__(self, ) -> None: ...

class AddServerTagRequest(Message):
    @property
    def server_ids(self) -> RepeatedScalarFieldContainer[int]: ...
    server_tag: int
    def __init__(self, *, server_ids: Iterable[int] | None = ..., server_tag: int | None = ...) -> None: ...

class AddServerTagResponse(Message):
    def __init__(self, ) -> None: ...

class AdjustIsrRequest(Message):
    serverId: int
    @property
    def tables_req(self) -> RepeatedCompositeFieldContainer[PbAdjustIsrReqForTable]: ...
    def __init__(self, *, serverId: int | None = ..., tables_req: Iterable[PbAdjustIsrReqForTable] | None = ...) -> None: ...

class AdjustIsrResponse(Message):
    @property
    def tables_resp(self) -> RepeatedCompositeFieldContainer[PbAdjustIsrRespForTable]: ...
    def __init__(self, *, tables_resp: Iterable[PbAdjustIsrRespForTable] | None = ...) -> None: ...

class AlterClusterConfigsRequest(Message):
    @property
    def alter_configs(self) -> RepeatedCompositeFieldContainer[PbAlterConfig]: ...
    def __init__(self, *, alter_configs: Iterable[PbAlterConfig] | None = ...) -> None: ...

class AlterClusterConfigsResponse(Message):
    def __init__(self, ) -> None: ...

class AlterDatabaseRequest(Message):
    database_name: str
    ignore_if_not_exists: bool
    @property
    def config_changes(self) -> RepeatedCompositeFieldContainer[PbAlterConfig]: ...
    comment: str
    def __init__(self, *, database_name: str | None = ..., ignore_if_not_exists: bool | None = ..., config_changes: Iterable[PbAlterConfig] | None = ..., comment: str | None = ...) -> None: ...

class AlterDatabaseResponse(Message):
    def __init__(self, ) -> None: ...

class AlterTableRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    ignore_if_not_exists: bool
    @property
    def config_changes(self) -> RepeatedCompositeFieldContainer[PbAlterConfig]: ...
    @property
    def add_columns(self) -> RepeatedCompositeFieldContainer[PbAddColumn]: ...
    @property
    def drop_columns(self) -> RepeatedCompositeFieldContainer[PbDropColumn]: ...
    @property
    def rename_columns(self) -> RepeatedCompositeFieldContainer[PbRenameColumn]: ...
    @property
    def modify_columns(self) -> RepeatedCompositeFieldContainer[PbModifyColumn]: ...
    @property
    def modify_bucket_count(self) -> PbModifyBucketCount: ...
    def __init__(self, *, table_path: PbTablePath | None = ..., ignore_if_not_exists: bool | None = ..., config_changes: Iterable[PbAlterConfig] | None = ..., add_columns: Iterable[PbAddColumn] | None = ..., drop_columns: Iterable[PbDropColumn] | None = ..., rename_columns: Iterable[PbRenameColumn] | None = ..., modify_columns: Iterable[PbModifyColumn] | None = ..., modify_bucket_count: PbModifyBucketCount | None = ...) -> None: ...

class AlterTableResponse(Message):
    def __init__(self, ) -> None: ...

class ApiVersionsRequest(Message):
    client_software_name: str
    client_software_version: str
    def __init__(self, *, client_software_name: str | None = ..., client_software_version: str | None = ...) -> None: ...

class ApiVersionsResponse(Message):
    @property
    def api_versions(self) -> RepeatedCompositeFieldContainer[PbApiVersion]: ...
    server_type: int
    def __init__(self, *, api_versions: Iterable[PbApiVersion] | None = ..., server_type: int | None = ...) -> None: ...

class AuthenticateRequest(Message):
    protocol: str
    token: bytes
    def __init__(self, *, protocol: str | None = ..., token: bytes | None = ...) -> None: ...

class AuthenticateResponse(Message):
    challenge: bytes
    def __init__(self, *, challenge: bytes | None = ...) -> None: ...

class CancelRebalanceRequest(Message):
    rebalance_id: str
    def __init__(self, *, rebalance_id: str | None = ...) -> None: ...

class CancelRebalanceResponse(Message):
    def __init__(self, ) -> None: ...

class CommitKvSnapshotRequest(Message):
    completed_snapshot: bytes
    coordinator_epoch: int
    bucket_leader_epoch: int
    def __init__(self, *, completed_snapshot: bytes | None = ..., coordinator_epoch: int | None = ..., bucket_leader_epoch: int | None = ...) -> None: ...

class CommitKvSnapshotResponse(Message):
    def __init__(self, ) -> None: ...

class CommitLakeTableSnapshotRequest(Message):
    @property
    def tables_req(self) -> RepeatedCompositeFieldContainer[PbLakeTableSnapshotInfo]: ...
    @property
    def lake_table_snapshot_metadata(self) -> RepeatedCompositeFieldContainer[PbLakeTableSnapshotMetadata]: ...
    def __init__(self, *, tables_req: Iterable[PbLakeTableSnapshotInfo] | None = ..., lake_table_snapshot_metadata: Iterable[PbLakeTableSnapshotMetadata] | None = ...) -> None: ...

class CommitLakeTableSnapshotResponse(Message):
    @property
    def table_resp(self) -> RepeatedCompositeFieldContainer[PbCommitLakeTableSnapshotRespForTable]: ...
    def __init__(self, *, table_resp: Iterable[PbCommitLakeTableSnapshotRespForTable] | None = ...) -> None: ...

class CommitRemoteLogManifestRequest(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    remote_log_manifest_path: str
    remote_log_start_offset: int
    remote_log_end_offset: int
    coordinator_epoch: int
    bucket_leader_epoch: int
    highest_copied_end_offset: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., remote_log_manifest_path: str | None = ..., remote_log_start_offset: int | None = ..., remote_log_end_offset: int | None = ..., coordinator_epoch: int | None = ..., bucket_leader_epoch: int | None = ..., highest_copied_end_offset: int | None = ...) -> None: ...

class CommitRemoteLogManifestResponse(Message):
    commitSuccess: bool
    def __init__(self, *, commitSuccess: bool | None = ...) -> None: ...

class ControlledShutdownRequest(Message):
    tablet_server_id: int
    tablet_server_epoch: int
    def __init__(self, *, tablet_server_id: int | None = ..., tablet_server_epoch: int | None = ...) -> None: ...

class ControlledShutdownResponse(Message):
    @property
    def remaining_leader_buckets(self) -> RepeatedCompositeFieldContainer[PbTableBucket]: ...
    def __init__(self, *, remaining_leader_buckets: Iterable[PbTableBucket] | None = ...) -> None: ...

class CreateAclsRequest(Message):
    @property
    def acl(self) -> RepeatedCompositeFieldContainer[PbAclInfo]: ...
    def __init__(self, *, acl: Iterable[PbAclInfo] | None = ...) -> None: ...

class CreateAclsResponse(Message):
    @property
    def aclRes(self) -> RepeatedCompositeFieldContainer[PbCreateAclRespInfo]: ...
    def __init__(self, *, aclRes: Iterable[PbCreateAclRespInfo] | None = ...) -> None: ...

class CreateDatabaseRequest(Message):
    database_name: str
    ignore_if_exists: bool
    database_json: bytes
    def __init__(self, *, database_name: str | None = ..., ignore_if_exists: bool | None = ..., database_json: bytes | None = ...) -> None: ...

class CreateDatabaseResponse(Message):
    def __init__(self, ) -> None: ...

class CreatePartitionRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    @property
    def partition_spec(self) -> PbPartitionSpec: ...
    ignore_if_not_exists: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., partition_spec: PbPartitionSpec | None = ..., ignore_if_not_exists: bool | None = ...) -> None: ...

class CreatePartitionResponse(Message):
    def __init__(self, ) -> None: ...

class CreateTableRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    table_json: bytes
    ignore_if_exists: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., table_json: bytes | None = ..., ignore_if_exists: bool | None = ...) -> None: ...

class CreateTableResponse(Message):
    def __init__(self, ) -> None: ...

class DatabaseExistsRequest(Message):
    database_name: str
    def __init__(self, *, database_name: str | None = ...) -> None: ...

class DatabaseExistsResponse(Message):
    exists: bool
    def __init__(self, *, exists: bool | None = ...) -> None: ...

class DeleteProducerOffsetsRequest(Message):
    producer_id: str
    def __init__(self, *, producer_id: str | None = ...) -> None: ...

class DeleteProducerOffsetsResponse(Message):
    def __init__(self, ) -> None: ...

class DescribeClusterConfigsRequest(Message):
    def __init__(self, ) -> None: ...

class DescribeClusterConfigsResponse(Message):
    @property
    def configs(self) -> RepeatedCompositeFieldContainer[PbDescribeConfig]: ...
    def __init__(self, *, configs: Iterable[PbDescribeConfig] | None = ...) -> None: ...

class DropAclsRequest(Message):
    @property
    def acl_filter(self) -> RepeatedCompositeFieldContainer[PbAclFilter]: ...
    def __init__(self, *, acl_filter: Iterable[PbAclFilter] | None = ...) -> None: ...

class DropAclsResponse(Message):
    @property
    def filter_results(self) -> RepeatedCompositeFieldContainer[PbDropAclsFilterResult]: ...
    def __init__(self, *, filter_results: Iterable[PbDropAclsFilterResult] | None = ...) -> None: ...

class DropDatabaseRequest(Message):
    database_name: str
    ignore_if_not_exists: bool
    cascade: bool
    def __init__(self, *, database_name: str | None = ..., ignore_if_not_exists: bool | None = ..., cascade: bool | None = ...) -> None: ...

class DropDatabaseResponse(Message):
    def __init__(self, ) -> None: ...

class DropKvSnapshotLeaseRequest(Message):
    lease_id: str
    def __init__(self, *, lease_id: str | None = ...) -> None: ...

class DropKvSnapshotLeaseResponse(Message):
    def __init__(self, ) -> None: ...

class DropPartitionRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    @property
    def partition_spec(self) -> PbPartitionSpec: ...
    ignore_if_not_exists: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., partition_spec: PbPartitionSpec | None = ..., ignore_if_not_exists: bool | None = ...) -> None: ...

class DropPartitionResponse(Message):
    def __init__(self, ) -> None: ...

class DropTableRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    ignore_if_not_exists: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., ignore_if_not_exists: bool | None = ...) -> None: ...

class DropTableResponse(Message):
    def __init__(self, ) -> None: ...

class ErrorResponse(Message):
    error_code: int
    error_message: str
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class FetchLogRequest(Message):
    follower_server_id: int
    max_bytes: int
    @property
    def tables_req(self) -> RepeatedCompositeFieldContainer[PbFetchLogReqForTable]: ...
    max_wait_ms: int
    min_bytes: int
    read_preference: int
    def __init__(self, *, follower_server_id: int | None = ..., max_bytes: int | None = ..., tables_req: Iterable[PbFetchLogReqForTable] | None = ..., max_wait_ms: int | None = ..., min_bytes: int | None = ..., read_preference: int | None = ...) -> None: ...

class FetchLogResponse(Message):
    @property
    def tables_resp(self) -> RepeatedCompositeFieldContainer[PbFetchLogRespForTable]: ...
    def __init__(self, *, tables_resp: Iterable[PbFetchLogRespForTable] | None = ...) -> None: ...

class GetClusterHealthRequest(Message):
    def __init__(self, ) -> None: ...

class GetClusterHealthResponse(Message):
    num_replicas: int
    in_sync_replicas: int
    num_leader_replicas: int
    active_leader_replicas: int
    status: int
    def __init__(self, *, num_replicas: int | None = ..., in_sync_replicas: int | None = ..., num_leader_replicas: int | None = ..., active_leader_replicas: int | None = ..., status: int | None = ...) -> None: ...

class GetDatabaseInfoRequest(Message):
    database_name: str
    def __init__(self, *, database_name: str | None = ...) -> None: ...

class GetDatabaseInfoResponse(Message):
    database_json: bytes
    created_time: int
    modified_time: int
    def __init__(self, *, database_json: bytes | None = ..., created_time: int | None = ..., modified_time: int | None = ...) -> None: ...

class GetFileSystemSecurityTokenRequest(Message):
    def __init__(self, ) -> None: ...

class GetFileSystemSecurityTokenResponse(Message):
    schema: str
    token: bytes
    expiration_time: int
    @property
    def addition_info(self) -> RepeatedCompositeFieldContainer[PbKeyValue]: ...
    def __init__(self, *, schema: str | None = ..., token: bytes | None = ..., expiration_time: int | None = ..., addition_info: Iterable[PbKeyValue] | None = ...) -> None: ...

class GetKvSnapshotMetadataRequest(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    snapshot_id: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., snapshot_id: int | None = ...) -> None: ...

class GetKvSnapshotMetadataResponse(Message):
    log_offset: int
    @property
    def snapshot_files(self) -> RepeatedCompositeFieldContainer[PbRemotePathAndLocalFile]: ...
    def __init__(self, *, log_offset: int | None = ..., snapshot_files: Iterable[PbRemotePathAndLocalFile] | None = ...) -> None: ...

class GetLakeSnapshotRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    snapshot_id: int
    readable: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., snapshot_id: int | None = ..., readable: bool | None = ...) -> None: ...

class GetLakeSnapshotResponse(Message):
    table_id: int
    snapshotId: int
    @property
    def bucket_snapshots(self) -> RepeatedCompositeFieldContainer[PbLakeSnapshotForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., snapshotId: int | None = ..., bucket_snapshots: Iterable[PbLakeSnapshotForBucket] | None = ...) -> None: ...

class GetLatestKvSnapshotsRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    partition_name: str
    def __init__(self, *, table_path: PbTablePath | None = ..., partition_name: str | None = ...) -> None: ...

class GetLatestKvSnapshotsResponse(Message):
    table_id: int
    partition_id: int
    @property
    def latest_snapshots(self) -> RepeatedCompositeFieldContainer[PbKvSnapshot]: ...
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., latest_snapshots: Iterable[PbKvSnapshot] | None = ...) -> None: ...

class GetProducerOffsetsRequest(Message):
    producer_id: str
    def __init__(self, *, producer_id: str | None = ...) -> None: ...

class GetProducerOffsetsResponse(Message):
    producer_id: str
    expiration_time: int
    @property
    def table_offsets(self) -> RepeatedCompositeFieldContainer[PbProducerTableOffsets]: ...
    def __init__(self, *, producer_id: str | None = ..., expiration_time: int | None = ..., table_offsets: Iterable[PbProducerTableOffsets] | None = ...) -> None: ...

class GetTableInfoRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    def __init__(self, *, table_path: PbTablePath | None = ...) -> None: ...

class GetTableInfoResponse(Message):
    table_id: int
    schema_id: int
    table_json: bytes
    created_time: int
    modified_time: int
    remote_data_dir: str
    bucket_count_epoch: int
    def __init__(self, *, table_id: int | None = ..., schema_id: int | None = ..., table_json: bytes | None = ..., created_time: int | None = ..., modified_time: int | None = ..., remote_data_dir: str | None = ..., bucket_count_epoch: int | None = ...) -> None: ...

class GetTableSchemaRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    schema_id: int
    def __init__(self, *, table_path: PbTablePath | None = ..., schema_id: int | None = ...) -> None: ...

class GetTableSchemaResponse(Message):
    schema_id: int
    schema_json: bytes
    def __init__(self, *, schema_id: int | None = ..., schema_json: bytes | None = ...) -> None: ...

class GetTableStatsRequest(Message):
    table_id: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbTableStatsReqForBucket]: ...
    @property
    def target_columns(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_req: Iterable[PbTableStatsReqForBucket] | None = ..., target_columns: Iterable[int] | None = ...) -> None: ...

class GetTableStatsResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbTableStatsRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbTableStatsRespForBucket] | None = ...) -> None: ...

class InitWriterRequest(Message):
    @property
    def table_path(self) -> RepeatedCompositeFieldContainer[PbTablePath]: ...
    def __init__(self, *, table_path: Iterable[PbTablePath] | None = ...) -> None: ...

class InitWriterResponse(Message):
    writer_id: int
    def __init__(self, *, writer_id: int | None = ...) -> None: ...

class LakeTieringHeartbeatRequest(Message):
    @property
    def tiering_tables(self) -> RepeatedCompositeFieldContainer[PbHeartbeatReqForTable]: ...
    @property
    def finished_tables(self) -> RepeatedCompositeFieldContainer[PbHeartbeatReqForTable]: ...
    @property
    def failed_tables(self) -> RepeatedCompositeFieldContainer[PbHeartbeatReqForTable]: ...
    request_table: bool
    @property
    def force_finished_tables(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, tiering_tables: Iterable[PbHeartbeatReqForTable] | None = ..., finished_tables: Iterable[PbHeartbeatReqForTable] | None = ..., failed_tables: Iterable[PbHeartbeatReqForTable] | None = ..., request_table: bool | None = ..., force_finished_tables: Iterable[int] | None = ...) -> None: ...

class LakeTieringHeartbeatResponse(Message):
    coordinator_epoch: int
    @property
    def tiering_table(self) -> PbLakeTieringTableInfo: ...
    @property
    def tiering_table_resp(self) -> RepeatedCompositeFieldContainer[PbHeartbeatRespForTable]: ...
    @property
    def finished_table_resp(self) -> RepeatedCompositeFieldContainer[PbHeartbeatRespForTable]: ...
    @property
    def failed_table_resp(self) -> RepeatedCompositeFieldContainer[PbHeartbeatRespForTable]: ...
    def __init__(self, *, coordinator_epoch: int | None = ..., tiering_table: PbLakeTieringTableInfo | None = ..., tiering_table_resp: Iterable[PbHeartbeatRespForTable] | None = ..., finished_table_resp: Iterable[PbHeartbeatRespForTable] | None = ..., failed_table_resp: Iterable[PbHeartbeatRespForTable] | None = ...) -> None: ...

class LimitScanRequest(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    limit: int
    routing_bucket_count: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., limit: int | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class LimitScanResponse(Message):
    error_code: int
    error_message: str
    is_log_table: bool
    records: bytes
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ..., is_log_table: bool | None = ..., records: bytes | None = ...) -> None: ...

class ListAclsRequest(Message):
    @property
    def acl_filter(self) -> PbAclFilter: ...
    def __init__(self, *, acl_filter: PbAclFilter | None = ...) -> None: ...

class ListAclsResponse(Message):
    @property
    def acl(self) -> RepeatedCompositeFieldContainer[PbAclInfo]: ...
    def __init__(self, *, acl: Iterable[PbAclInfo] | None = ...) -> None: ...

class ListDatabasesRequest(Message):
    include_summary: bool
    def __init__(self, *, include_summary: bool | None = ...) -> None: ...

class ListDatabasesResponse(Message):
    @property
    def database_name(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def database_summary(self) -> RepeatedCompositeFieldContainer[PbDatabaseSummary]: ...
    def __init__(self, *, database_name: Iterable[str] | None = ..., database_summary: Iterable[PbDatabaseSummary] | None = ...) -> None: ...

class ListKvSnapshotsRequest(Message):
    table_id: int
    partition_id: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ...) -> None: ...

class ListKvSnapshotsResponse(Message):
    table_id: int
    partition_id: int
    @property
    def active_snapshots(self) -> RepeatedCompositeFieldContainer[PbKvSnapshot]: ...
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., active_snapshots: Iterable[PbKvSnapshot] | None = ...) -> None: ...

class ListOffsetsRequest(Message):
    follower_server_id: int
    offset_type: int
    table_id: int
    partition_id: int
    @property
    def bucket_id(self) -> RepeatedScalarFieldContainer[int]: ...
    startTimestamp: int
    routing_bucket_count: int
    def __init__(self, *, follower_server_id: int | None = ..., offset_type: int | None = ..., table_id: int | None = ..., partition_id: int | None = ..., bucket_id: Iterable[int] | None = ..., startTimestamp: int | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class ListOffsetsResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbListOffsetsRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbListOffsetsRespForBucket] | None = ...) -> None: ...

class ListPartitionInfosRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    @property
    def partial_partition_spec(self) -> PbPartitionSpec: ...
    include_system_partitions: bool
    def __init__(self, *, table_path: PbTablePath | None = ..., partial_partition_spec: PbPartitionSpec | None = ..., include_system_partitions: bool | None = ...) -> None: ...

class ListPartitionInfosResponse(Message):
    @property
    def partitions_info(self) -> RepeatedCompositeFieldContainer[PbPartitionInfo]: ...
    system_partitions_included: bool
    def __init__(self, *, partitions_info: Iterable[PbPartitionInfo] | None = ..., system_partitions_included: bool | None = ...) -> None: ...

class ListRebalanceProgressRequest(Message):
    rebalance_id: str
    def __init__(self, *, rebalance_id: str | None = ...) -> None: ...

class ListRebalanceProgressResponse(Message):
    rebalance_id: str
    rebalance_status: int
    @property
    def table_progress(self) -> RepeatedCompositeFieldContainer[PbRebalanceProgressForTable]: ...
    def __init__(self, *, rebalance_id: str | None = ..., rebalance_status: int | None = ..., table_progress: Iterable[PbRebalanceProgressForTable] | None = ...) -> None: ...

class ListRemoteLogManifestsRequest(Message):
    table_id: int
    partition_id: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ...) -> None: ...

class ListRemoteLogManifestsResponse(Message):
    @property
    def manifests(self) -> RepeatedCompositeFieldContainer[PbRemoteLogManifestEntry]: ...
    def __init__(self, *, manifests: Iterable[PbRemoteLogManifestEntry] | None = ...) -> None: ...

class ListTablesRequest(Message):
    database_name: str
    def __init__(self, *, database_name: str | None = ...) -> None: ...

class ListTablesResponse(Message):
    @property
    def table_name(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, table_name: Iterable[str] | None = ...) -> None: ...

class LookupRequest(Message):
    table_id: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbLookupReqForBucket]: ...
    insert_if_not_exists: bool
    acks: int
    timeout_ms: int
    def __init__(self, *, table_id: int | None = ..., buckets_req: Iterable[PbLookupReqForBucket] | None = ..., insert_if_not_exists: bool | None = ..., acks: int | None = ..., timeout_ms: int | None = ...) -> None: ...

class LookupResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbLookupRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbLookupRespForBucket] | None = ...) -> None: ...

class MetadataRequest(Message):
    @property
    def table_path(self) -> RepeatedCompositeFieldContainer[PbTablePath]: ...
    @property
    def partitions_path(self) -> RepeatedCompositeFieldContainer[PbPhysicalTablePath]: ...
    @property
    def partitions_id(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, table_path: Iterable[PbTablePath] | None = ..., partitions_path: Iterable[PbPhysicalTablePath] | None = ..., partitions_id: Iterable[int] | None = ...) -> None: ...

class MetadataResponse(Message):
    @property
    def coordinator_server(self) -> PbServerNode: ...
    @property
    def tablet_servers(self) -> RepeatedCompositeFieldContainer[PbServerNode]: ...
    @property
    def table_metadata(self) -> RepeatedCompositeFieldContainer[PbTableMetadata]: ...
    @property
    def partition_metadata(self) -> RepeatedCompositeFieldContainer[PbPartitionMetadata]: ...
    def __init__(self, *, coordinator_server: PbServerNode | None = ..., tablet_servers: Iterable[PbServerNode] | None = ..., table_metadata: Iterable[PbTableMetadata] | None = ..., partition_metadata: Iterable[PbPartitionMetadata] | None = ...) -> None: ...

class NotifyKvSnapshotOffsetRequest(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    coordinator_epoch: int
    min_retain_offset: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., coordinator_epoch: int | None = ..., min_retain_offset: int | None = ...) -> None: ...

class NotifyKvSnapshotOffsetResponse(Message):
    def __init__(self, ) -> None: ...

class NotifyLakeTableOffsetRequest(Message):
    coordinator_epoch: int
    @property
    def notify_buckets_req(self) -> RepeatedCompositeFieldContainer[PbNotifyLakeTableOffsetReqForBucket]: ...
    def __init__(self, *, coordinator_epoch: int | None = ..., notify_buckets_req: Iterable[PbNotifyLakeTableOffsetReqForBucket] | None = ...) -> None: ...

class NotifyLakeTableOffsetResponse(Message):
    def __init__(self, ) -> None: ...

class NotifyLeaderAndIsrRequest(Message):
    coordinator_epoch: int
    @property
    def notify_buckets_leader_req(self) -> RepeatedCompositeFieldContainer[PbNotifyLeaderAndIsrReqForBucket]: ...
    def __init__(self, *, coordinator_epoch: int | None = ..., notify_buckets_leader_req: Iterable[PbNotifyLeaderAndIsrReqForBucket] | None = ...) -> None: ...

class NotifyLeaderAndIsrResponse(Message):
    @property
    def notify_buckets_leader_resp(self) -> RepeatedCompositeFieldContainer[PbNotifyLeaderAndIsrRespForBucket]: ...
    def __init__(self, *, notify_buckets_leader_resp: Iterable[PbNotifyLeaderAndIsrRespForBucket] | None = ...) -> None: ...

class NotifyRemoteLogOffsetsRequest(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    coordinator_epoch: int
    remote_start_offset: int
    remote_end_offset: int
    highest_copied_end_offset: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., coordinator_epoch: int | None = ..., remote_start_offset: int | None = ..., remote_end_offset: int | None = ..., highest_copied_end_offset: int | None = ...) -> None: ...

class NotifyRemoteLogOffsetsResponse(Message):
    def __init__(self, ) -> None: ...

class PbAclFilter(Message):
    resource_name: str
    resource_type: int
    principal_name: str
    principal_type: str
    host: str
    operation_type: int
    permission_type: int
    def __init__(self, *, resource_name: str | None = ..., resource_type: int | None = ..., principal_name: str | None = ..., principal_type: str | None = ..., host: str | None = ..., operation_type: int | None = ..., permission_type: int | None = ...) -> None: ...

class PbAclInfo(Message):
    resource_name: str
    resource_type: int
    principal_name: str
    principal_type: str
    host: str
    operation_type: int
    permission_type: int
    def __init__(self, *, resource_name: str | None = ..., resource_type: int | None = ..., principal_name: str | None = ..., principal_type: str | None = ..., host: str | None = ..., operation_type: int | None = ..., permission_type: int | None = ...) -> None: ...

class PbAddColumn(Message):
    column_name: str
    data_type_json: bytes
    comment: str
    column_position_type: int
    agg_function_type: str
    @property
    def agg_function_params(self) -> RepeatedCompositeFieldContainer[PbKeyValue]: ...
    def __init__(self, *, column_name: str | None = ..., data_type_json: bytes | None = ..., comment: str | None = ..., column_position_type: int | None = ..., agg_function_type: str | None = ..., agg_function_params: Iterable[PbKeyValue] | None = ...) -> None: ...

class PbAdjustIsrReqForBucket(Message):
    partition_id: int
    bucket_id: int
    leader_epoch: int
    @property
    def new_isr(self) -> RepeatedScalarFieldContainer[int]: ...
    coordinator_epoch: int
    bucket_epoch: int
    @property
    def standby_replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., leader_epoch: int | None = ..., new_isr: Iterable[int] | None = ..., coordinator_epoch: int | None = ..., bucket_epoch: int | None = ..., standby_replicas: Iterable[int] | None = ...) -> None: ...

class PbAdjustIsrReqForTable(Message):
    table_id: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbAdjustIsrReqForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_req: Iterable[PbAdjustIsrReqForBucket] | None = ...) -> None: ...

class PbAdjustIsrRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    leader_id: int
    leader_epoch: int
    @property
    def isr(self) -> RepeatedScalarFieldContainer[int]: ...
    bucket_epoch: int
    coordinator_epoch: int
    @property
    def standby_replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., leader_id: int | None = ..., leader_epoch: int | None = ..., isr: Iterable[int] | None = ..., bucket_epoch: int | None = ..., coordinator_epoch: int | None = ..., standby_replicas: Iterable[int] | None = ...) -> None: ...

class PbAdjustIsrRespForTable(Message):
    table_id: int
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbAdjustIsrRespForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_resp: Iterable[PbAdjustIsrRespForBucket] | None = ...) -> None: ...

class PbAlterConfig(Message):
    config_key: str
    config_value: str
    op_type: int
    def __init__(self, *, config_key: str | None = ..., config_value: str | None = ..., op_type: int | None = ...) -> None: ...

class PbApiVersion(Message):
    api_key: int
    min_version: int
    max_version: int
    def __init__(self, *, api_key: int | None = ..., min_version: int | None = ..., max_version: int | None = ...) -> None: ...

class PbBucketMetadata(Message):
    bucket_id: int
    leader_id: int
    @property
    def replica_id(self) -> RepeatedScalarFieldContainer[int]: ...
    leader_epoch: int
    bucket_epoch: int
    @property
    def isr(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, bucket_id: int | None = ..., leader_id: int | None = ..., replica_id: Iterable[int] | None = ..., leader_epoch: int | None = ..., bucket_epoch: int | None = ..., isr: Iterable[int] | None = ...) -> None: ...

class PbBucketOffset(Message):
    partition_id: int
    bucket_id: int
    log_end_offset: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., log_end_offset: int | None = ...) -> None: ...

class PbCommitLakeTableSnapshotRespForTable(Message):
    error_code: int
    error_message: str
    table_id: int
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ..., table_id: int | None = ...) -> None: ...

class PbCompoundPredicate(Message):
    function: int
    @property
    def children(self) -> RepeatedCompositeFieldContainer[PbPredicate]: ...
    def __init__(self, *, function: int | None = ..., children: Iterable[PbPredicate] | None = ...) -> None: ...

class PbCreateAclRespInfo(Message):
    @property
    def acl(self) -> PbAclInfo: ...
    error_code: int
    error_message: str
    def __init__(self, *, acl: PbAclInfo | None = ..., error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class PbDatabaseSummary(Message):
    database_name: str
    created_time: int
    table_count: int
    def __init__(self, *, database_name: str | None = ..., created_time: int | None = ..., table_count: int | None = ...) -> None: ...

class PbDescribeConfig(Message):
    config_key: str
    config_value: str
    config_source: str
    def __init__(self, *, config_key: str | None = ..., config_value: str | None = ..., config_source: str | None = ...) -> None: ...

class PbDropAclsFilterResult(Message):
    @property
    def matching_acls(self) -> RepeatedCompositeFieldContainer[PbDropAclsMatchingAcl]: ...
    error_code: int
    error_message: str
    def __init__(self, *, matching_acls: Iterable[PbDropAclsMatchingAcl] | None = ..., error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class PbDropAclsMatchingAcl(Message):
    @property
    def acl(self) -> PbAclInfo: ...
    error_code: int
    error_message: str
    def __init__(self, *, acl: PbAclInfo | None = ..., error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class PbDropColumn(Message):
    column_name: str
    def __init__(self, *, column_name: str | None = ...) -> None: ...

class PbFetchLogReqForBucket(Message):
    partition_id: int
    bucket_id: int
    fetch_offset: int
    max_fetch_bytes: int
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., fetch_offset: int | None = ..., max_fetch_bytes: int | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbFetchLogReqForTable(Message):
    table_id: int
    projection_pushdown_enabled: bool
    @property
    def projected_fields(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbFetchLogReqForBucket]: ...
    @property
    def filter_predicate(self) -> PbPredicate: ...
    filter_schema_id: int
    def __init__(self, *, table_id: int | None = ..., projection_pushdown_enabled: bool | None = ..., projected_fields: Iterable[int] | None = ..., buckets_req: Iterable[PbFetchLogReqForBucket] | None = ..., filter_predicate: PbPredicate | None = ..., filter_schema_id: int | None = ...) -> None: ...

class PbFetchLogRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    high_watermark: int
    log_start_offset: int
    @property
    def remote_log_fetch_info(self) -> PbRemoteLogFetchInfo: ...
    records: bytes
    filtered_end_offset: int
    min_retain_offset: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., high_watermark: int | None = ..., log_start_offset: int | None = ..., remote_log_fetch_info: PbRemoteLogFetchInfo | None = ..., records: bytes | None = ..., filtered_end_offset: int | None = ..., min_retain_offset: int | None = ...) -> None: ...

class PbFetchLogRespForTable(Message):
    table_id: int
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbFetchLogRespForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_resp: Iterable[PbFetchLogRespForBucket] | None = ...) -> None: ...

class PbHeartbeatReqForTable(Message):
    table_id: int
    coordinator_epoch: int
    tiering_epoch: int
    @property
    def lake_tiering_stats(self) -> PbLakeTieringStats: ...
    def __init__(self, *, table_id: int | None = ..., coordinator_epoch: int | None = ..., tiering_epoch: int | None = ..., lake_tiering_stats: PbLakeTieringStats | None = ...) -> None: ...

class PbHeartbeatRespForTable(Message):
    table_id: int
    @property
    def error(self) -> ErrorResponse: ...
    def __init__(self, *, table_id: int | None = ..., error: ErrorResponse | None = ...) -> None: ...

class PbKeyValue(Message):
    key: str
    value: str
    def __init__(self, *, key: str | None = ..., value: str | None = ...) -> None: ...

class PbKvSnapshot(Message):
    bucket_id: int
    snapshot_id: int
    log_offset: int
    def __init__(self, *, bucket_id: int | None = ..., snapshot_id: int | None = ..., log_offset: int | None = ...) -> None: ...

class PbKvSnapshotLeaseForBucket(Message):
    partition_id: int
    bucket_id: int
    snapshot_id: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., snapshot_id: int | None = ...) -> None: ...

class PbKvSnapshotLeaseForTable(Message):
    table_id: int
    @property
    def bucket_snapshots(self) -> RepeatedCompositeFieldContainer[PbKvSnapshotLeaseForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., bucket_snapshots: Iterable[PbKvSnapshotLeaseForBucket] | None = ...) -> None: ...

class PbLakeSnapshotForBucket(Message):
    partition_id: int
    bucket_id: int
    log_offset: int
    partition_name: str
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., log_offset: int | None = ..., partition_name: str | None = ...) -> None: ...

class PbLakeTableOffsetForBucket(Message):
    partition_id: int
    bucket_id: int
    log_end_offset: int
    max_timestamp: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., log_end_offset: int | None = ..., max_timestamp: int | None = ...) -> None: ...

class PbLakeTableSnapshotInfo(Message):
    table_id: int
    snapshot_id: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbLakeTableOffsetForBucket]: ...
    @property
    def table_path(self) -> PbTablePath: ...
    def __init__(self, *, table_id: int | None = ..., snapshot_id: int | None = ..., buckets_req: Iterable[PbLakeTableOffsetForBucket] | None = ..., table_path: PbTablePath | None = ...) -> None: ...

class PbLakeTableSnapshotMetadata(Message):
    table_id: int
    snapshot_id: int
    tiered_bucket_offsets_file_path: str
    readable_bucket_offsets_file_path: str
    earliest_snapshot_id_to_keep: int
    def __init__(self, *, table_id: int | None = ..., snapshot_id: int | None = ..., tiered_bucket_offsets_file_path: str | None = ..., readable_bucket_offsets_file_path: str | None = ..., earliest_snapshot_id_to_keep: int | None = ...) -> None: ...

class PbLakeTieringStats(Message):
    file_size: int
    record_count: int
    def __init__(self, *, file_size: int | None = ..., record_count: int | None = ...) -> None: ...

class PbLakeTieringTableInfo(Message):
    table_id: int
    @property
    def table_path(self) -> PbTablePath: ...
    tiering_epoch: int
    def __init__(self, *, table_id: int | None = ..., table_path: PbTablePath | None = ..., tiering_epoch: int | None = ...) -> None: ...

class PbLeafPredicate(Message):
    function: int
    field_id: int
    @property
    def literals(self) -> RepeatedCompositeFieldContainer[PbLiteralValue]: ...
    def __init__(self, *, function: int | None = ..., field_id: int | None = ..., literals: Iterable[PbLiteralValue] | None = ...) -> None: ...

class PbListOffsetsRespForBucket(Message):
    bucket_id: int
    error_code: int
    error_message: str
    offset: int
    def __init__(self, *, bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., offset: int | None = ...) -> None: ...

class PbLiteralValue(Message):
    literal_type: int
    is_null: bool
    boolean_value: bool
    int_value: int
    bigint_value: int
    float_value: float
    double_value: float
    string_value: str
    binary_value: bytes
    decimal_value: int
    timestamp_millis_value: int
    timestamp_nano_of_millis_value: int
    decimal_bytes: bytes
    def __init__(self, *, literal_type: int | None = ..., is_null: bool | None = ..., boolean_value: bool | None = ..., int_value: int | None = ..., bigint_value: int | None = ..., float_value: float | None = ..., double_value: float | None = ..., string_value: str | None = ..., binary_value: bytes | None = ..., decimal_value: int | None = ..., timestamp_millis_value: int | None = ..., timestamp_nano_of_millis_value: int | None = ..., decimal_bytes: bytes | None = ...) -> None: ...

class PbLookupReqForBucket(Message):
    partition_id: int
    bucket_id: int
    @property
    def keys(self) -> RepeatedScalarFieldContainer[bytes]: ...
    original_partition_name: str
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., keys: Iterable[bytes] | None = ..., original_partition_name: str | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbLookupRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    @property
    def values(self) -> RepeatedCompositeFieldContainer[PbValue]: ...
    original_partition_name: str
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., values: Iterable[PbValue] | None = ..., original_partition_name: str | None = ...) -> None: ...

class PbModifyBucketCount(Message):
    new_bucket_count: int
    def __init__(self, *, new_bucket_count: int | None = ...) -> None: ...

class PbModifyColumn(Message):
    column_name: str
    data_type_json: bytes
    comment: str
    column_position_type: int
    def __init__(self, *, column_name: str | None = ..., data_type_json: bytes | None = ..., comment: str | None = ..., column_position_type: int | None = ...) -> None: ...

class PbNotifyLakeTableOffsetReqForBucket(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    snapshot_id: int
    log_start_offset: int
    log_end_offset: int
    max_timestamp: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., snapshot_id: int | None = ..., log_start_offset: int | None = ..., log_end_offset: int | None = ..., max_timestamp: int | None = ...) -> None: ...

class PbNotifyLeaderAndIsrReqForBucket(Message):
    @property
    def physical_table_path(self) -> PbPhysicalTablePath: ...
    @property
    def table_bucket(self) -> PbTableBucket: ...
    leader: int
    leader_epoch: int
    @property
    def replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def isr(self) -> RepeatedScalarFieldContainer[int]: ...
    bucket_epoch: int
    @property
    def standby_replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    bucket_count: int
    bucket_count_epoch: int
    def __init__(self, *, physical_table_path: PbPhysicalTablePath | None = ..., table_bucket: PbTableBucket | None = ..., leader: int | None = ..., leader_epoch: int | None = ..., replicas: Iterable[int] | None = ..., isr: Iterable[int] | None = ..., bucket_epoch: int | None = ..., standby_replicas: Iterable[int] | None = ..., bucket_count: int | None = ..., bucket_count_epoch: int | None = ...) -> None: ...

class PbNotifyLeaderAndIsrRespForBucket(Message):
    @property
    def table_bucket(self) -> PbTableBucket: ...
    error_code: int
    error_message: str
    def __init__(self, *, table_bucket: PbTableBucket | None = ..., error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class PbPartitionInfo(Message):
    partition_id: int
    @property
    def partition_spec(self) -> PbPartitionSpec: ...
    remote_data_dir: str
    bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., partition_spec: PbPartitionSpec | None = ..., remote_data_dir: str | None = ..., bucket_count: int | None = ...) -> None: ...

class PbPartitionMetadata(Message):
    table_id: int
    partition_name: str
    partition_id: int
    @property
    def bucket_metadata(self) -> RepeatedCompositeFieldContainer[PbBucketMetadata]: ...
    bucket_count: int
    def __init__(self, *, table_id: int | None = ..., partition_name: str | None = ..., partition_id: int | None = ..., bucket_metadata: Iterable[PbBucketMetadata] | None = ..., bucket_count: int | None = ...) -> None: ...

class PbPartitionSpec(Message):
    @property
    def partition_key_values(self) -> RepeatedCompositeFieldContainer[PbKeyValue]: ...
    def __init__(self, *, partition_key_values: Iterable[PbKeyValue] | None = ...) -> None: ...

class PbPhysicalTablePath(Message):
    database_name: str
    table_name: str
    partition_name: str
    def __init__(self, *, database_name: str | None = ..., table_name: str | None = ..., partition_name: str | None = ...) -> None: ...

class PbPredicate(Message):
    type: int
    @property
    def leaf(self) -> PbLeafPredicate: ...
    @property
    def compound(self) -> PbCompoundPredicate: ...
    def __init__(self, *, type: int | None = ..., leaf: PbLeafPredicate | None = ..., compound: PbCompoundPredicate | None = ...) -> None: ...

class PbPrefixLookupReqForBucket(Message):
    partition_id: int
    bucket_id: int
    @property
    def keys(self) -> RepeatedScalarFieldContainer[bytes]: ...
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., keys: Iterable[bytes] | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbPrefixLookupRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    @property
    def value_lists(self) -> RepeatedCompositeFieldContainer[PbValueList]: ...
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., value_lists: Iterable[PbValueList] | None = ...) -> None: ...

class PbPrepareLakeTableRespForTable(Message):
    error_code: int
    error_message: str
    table_id: int
    lake_table_offsets_path: str
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ..., table_id: int | None = ..., lake_table_offsets_path: str | None = ...) -> None: ...

class PbProduceLogReqForBucket(Message):
    partition_id: int
    bucket_id: int
    records: bytes
    original_partition_name: str
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., records: bytes | None = ..., original_partition_name: str | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbProduceLogRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    base_offset: int
    original_partition_name: str
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., base_offset: int | None = ..., original_partition_name: str | None = ...) -> None: ...

class PbProducerTableOffsets(Message):
    table_id: int
    @property
    def bucket_offsets(self) -> RepeatedCompositeFieldContainer[PbBucketOffset]: ...
    def __init__(self, *, table_id: int | None = ..., bucket_offsets: Iterable[PbBucketOffset] | None = ...) -> None: ...

class PbPutKvReqForBucket(Message):
    partition_id: int
    bucket_id: int
    records: bytes
    original_partition_name: str
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., records: bytes | None = ..., original_partition_name: str | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbPutKvRespForBucket(Message):
    partition_id: int
    bucket_id: int
    error_code: int
    error_message: str
    log_end_offset: int
    pressure: float
    original_partition_name: str
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., error_code: int | None = ..., error_message: str | None = ..., log_end_offset: int | None = ..., pressure: float | None = ..., original_partition_name: str | None = ...) -> None: ...

class PbRebalancePlanForBucket(Message):
    partition_id: int
    bucket_id: int
    original_leader: int
    new_leader: int
    @property
    def original_replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def new_replicas(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., original_leader: int | None = ..., new_leader: int | None = ..., original_replicas: Iterable[int] | None = ..., new_replicas: Iterable[int] | None = ...) -> None: ...

class PbRebalancePlanForTable(Message):
    table_id: int
    @property
    def buckets_plan(self) -> RepeatedCompositeFieldContainer[PbRebalancePlanForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_plan: Iterable[PbRebalancePlanForBucket] | None = ...) -> None: ...

class PbRebalanceProgressForBucket(Message):
    @property
    def rebalance_plan(self) -> PbRebalancePlanForBucket: ...
    rebalance_status: int
    def __init__(self, *, rebalance_plan: PbRebalancePlanForBucket | None = ..., rebalance_status: int | None = ...) -> None: ...

class PbRebalanceProgressForTable(Message):
    table_id: int
    @property
    def buckets_progress(self) -> RepeatedCompositeFieldContainer[PbRebalanceProgressForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_progress: Iterable[PbRebalanceProgressForBucket] | None = ...) -> None: ...

class PbRemoteLogFetchInfo(Message):
    remote_log_tablet_dir: str
    partition_name: str
    @property
    def remote_log_segments(self) -> RepeatedCompositeFieldContainer[PbRemoteLogSegment]: ...
    first_start_pos: int
    def __init__(self, *, remote_log_tablet_dir: str | None = ..., partition_name: str | None = ..., remote_log_segments: Iterable[PbRemoteLogSegment] | None = ..., first_start_pos: int | None = ...) -> None: ...

class PbRemoteLogManifestEntry(Message):
    @property
    def table_bucket(self) -> PbTableBucket: ...
    remote_log_manifest_path: str
    remote_log_end_offset: int
    def __init__(self, *, table_bucket: PbTableBucket | None = ..., remote_log_manifest_path: str | None = ..., remote_log_end_offset: int | None = ...) -> None: ...

class PbRemoteLogSegment(Message):
    remote_log_segment_id: str
    remote_log_start_offset: int
    remote_log_end_offset: int
    segment_size_in_bytes: int
    max_timestamp: int
    def __init__(self, *, remote_log_segment_id: str | None = ..., remote_log_start_offset: int | None = ..., remote_log_end_offset: int | None = ..., segment_size_in_bytes: int | None = ..., max_timestamp: int | None = ...) -> None: ...

class PbRemotePathAndLocalFile(Message):
    remote_path: str
    local_file_name: str
    def __init__(self, *, remote_path: str | None = ..., local_file_name: str | None = ...) -> None: ...

class PbRenameColumn(Message):
    old_column_name: str
    new_column_name: str
    def __init__(self, *, old_column_name: str | None = ..., new_column_name: str | None = ...) -> None: ...

class PbScanReqForBucket(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    limit: int
    routing_bucket_count: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., limit: int | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbServerNode(Message):
    node_id: int
    host: str
    port: int
    listeners: str
    rack: str
    def __init__(self, *, node_id: int | None = ..., host: str | None = ..., port: int | None = ..., listeners: str | None = ..., rack: str | None = ...) -> None: ...

class PbStopReplicaReqForBucket(Message):
    @property
    def table_bucket(self) -> PbTableBucket: ...
    leader_epoch: int
    delete: bool
    deleteRemote: bool
    def __init__(self, *, table_bucket: PbTableBucket | None = ..., leader_epoch: int | None = ..., delete: bool | None = ..., deleteRemote: bool | None = ...) -> None: ...

class PbStopReplicaRespForBucket(Message):
    @property
    def table_bucket(self) -> PbTableBucket: ...
    error_code: int
    error_message: str
    def __init__(self, *, table_bucket: PbTableBucket | None = ..., error_code: int | None = ..., error_message: str | None = ...) -> None: ...

class PbTableBucket(Message):
    table_id: int
    partition_id: int
    bucket_id: int
    def __init__(self, *, table_id: int | None = ..., partition_id: int | None = ..., bucket_id: int | None = ...) -> None: ...

class PbTableMetadata(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    table_id: int
    schema_id: int
    table_json: bytes
    @property
    def bucket_metadata(self) -> RepeatedCompositeFieldContainer[PbBucketMetadata]: ...
    created_time: int
    modified_time: int
    remote_data_dir: str
    bucket_count_epoch: int
    def __init__(self, *, table_path: PbTablePath | None = ..., table_id: int | None = ..., schema_id: int | None = ..., table_json: bytes | None = ..., bucket_metadata: Iterable[PbBucketMetadata] | None = ..., created_time: int | None = ..., modified_time: int | None = ..., remote_data_dir: str | None = ..., bucket_count_epoch: int | None = ...) -> None: ...

class PbTableOffsets(Message):
    table_id: int
    @property
    def table_path(self) -> PbTablePath: ...
    @property
    def bucket_offsets(self) -> RepeatedCompositeFieldContainer[PbBucketOffset]: ...
    def __init__(self, *, table_id: int | None = ..., table_path: PbTablePath | None = ..., bucket_offsets: Iterable[PbBucketOffset] | None = ...) -> None: ...

class PbTablePath(Message):
    database_name: str
    table_name: str
    def __init__(self, *, database_name: str | None = ..., table_name: str | None = ...) -> None: ...

class PbTableStatsReqForBucket(Message):
    partition_id: int
    bucket_id: int
    routing_bucket_count: int
    def __init__(self, *, partition_id: int | None = ..., bucket_id: int | None = ..., routing_bucket_count: int | None = ...) -> None: ...

class PbTableStatsRespForBucket(Message):
    error_code: int
    error_message: str
    partition_id: int
    bucket_id: int
    row_count: int
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ..., partition_id: int | None = ..., bucket_id: int | None = ..., row_count: int | None = ...) -> None: ...

class PbValue(Message):
    values: bytes
    def __init__(self, *, values: bytes | None = ...) -> None: ...

class PbValueList(Message):
    @property
    def values(self) -> RepeatedScalarFieldContainer[bytes]: ...
    def __init__(self, *, values: Iterable[bytes] | None = ...) -> None: ...

class PrefixLookupRequest(Message):
    table_id: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbPrefixLookupReqForBucket]: ...
    def __init__(self, *, table_id: int | None = ..., buckets_req: Iterable[PbPrefixLookupReqForBucket] | None = ...) -> None: ...

class PrefixLookupResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbPrefixLookupRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbPrefixLookupRespForBucket] | None = ...) -> None: ...

class PrepareLakeTableSnapshotRequest(Message):
    @property
    def bucket_offsets(self) -> RepeatedCompositeFieldContainer[PbTableOffsets]: ...
    ignore_previous_table_offsets: bool
    def __init__(self, *, bucket_offsets: Iterable[PbTableOffsets] | None = ..., ignore_previous_table_offsets: bool | None = ...) -> None: ...

class PrepareLakeTableSnapshotResponse(Message):
    @property
    def prepare_lake_table_resp(self) -> RepeatedCompositeFieldContainer[PbPrepareLakeTableRespForTable]: ...
    def __init__(self, *, prepare_lake_table_resp: Iterable[PbPrepareLakeTableRespForTable] | None = ...) -> None: ...

class ProduceLogRequest(Message):
    acks: int
    table_id: int
    timeout_ms: int
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbProduceLogReqForBucket]: ...
    def __init__(self, *, acks: int | None = ..., table_id: int | None = ..., timeout_ms: int | None = ..., buckets_req: Iterable[PbProduceLogReqForBucket] | None = ...) -> None: ...

class ProduceLogResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbProduceLogRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbProduceLogRespForBucket] | None = ...) -> None: ...

class PutKvRequest(Message):
    acks: int
    table_id: int
    timeout_ms: int
    @property
    def target_columns(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def buckets_req(self) -> RepeatedCompositeFieldContainer[PbPutKvReqForBucket]: ...
    agg_mode: int
    def __init__(self, *, acks: int | None = ..., table_id: int | None = ..., timeout_ms: int | None = ..., target_columns: Iterable[int] | None = ..., buckets_req: Iterable[PbPutKvReqForBucket] | None = ..., agg_mode: int | None = ...) -> None: ...

class PutKvResponse(Message):
    @property
    def buckets_resp(self) -> RepeatedCompositeFieldContainer[PbPutKvRespForBucket]: ...
    def __init__(self, *, buckets_resp: Iterable[PbPutKvRespForBucket] | None = ...) -> None: ...

class RebalanceRequest(Message):
    @property
    def goals(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, goals: Iterable[int] | None = ...) -> None: ...

class RebalanceResponse(Message):
    rebalance_id: str
    def __init__(self, *, rebalance_id: str | None = ...) -> None: ...

class RegisterProducerOffsetsRequest(Message):
    producer_id: str
    @property
    def table_offsets(self) -> RepeatedCompositeFieldContainer[PbProducerTableOffsets]: ...
    ttl_ms: int
    def __init__(self, *, producer_id: str | None = ..., table_offsets: Iterable[PbProducerTableOffsets] | None = ..., ttl_ms: int | None = ...) -> None: ...

class RegisterProducerOffsetsResponse(Message):
    result: int
    def __init__(self, *, result: int | None = ...) -> None: ...

class ReleaseKvSnapshotLeaseRequest(Message):
    lease_id: str
    @property
    def buckets_to_release(self) -> RepeatedCompositeFieldContainer[PbTableBucket]: ...
    def __init__(self, *, lease_id: str | None = ..., buckets_to_release: Iterable[PbTableBucket] | None = ...) -> None: ...

class ReleaseKvSnapshotLeaseResponse(Message):
    def __init__(self, ) -> None: ...

class RemoveServerTagByRackRequest(Message):
    @property
    def racks(self) -> RepeatedScalarFieldContainer[str]: ...
    server_tag: int
    def __init__(self, *, racks: Iterable[str] | None = ..., server_tag: int | None = ...) -> None: ...

class RemoveServerTagByRackResponse(Message):
    def __init__(self, ) -> None: ...

class RemoveServerTagRequest(Message):
    @property
    def server_ids(self) -> RepeatedScalarFieldContainer[int]: ...
    server_tag: int
    def __init__(self, *, server_ids: Iterable[int] | None = ..., server_tag: int | None = ...) -> None: ...

class RemoveServerTagResponse(Message):
    def __init__(self, ) -> None: ...

class ScanKvRequest(Message):
    scanner_id: bytes
    @property
    def bucket_scan_req(self) -> PbScanReqForBucket: ...
    call_seq_id: int
    batch_size_bytes: int
    close_scanner: bool
    def __init__(self, *, scanner_id: bytes | None = ..., bucket_scan_req: PbScanReqForBucket | None = ..., call_seq_id: int | None = ..., batch_size_bytes: int | None = ..., close_scanner: bool | None = ...) -> None: ...

class ScanKvResponse(Message):
    error_code: int
    error_message: str
    scanner_id: bytes
    has_more_results: bool
    records: bytes
    log_offset: int
    def __init__(self, *, error_code: int | None = ..., error_message: str | None = ..., scanner_id: bytes | None = ..., has_more_results: bool | None = ..., records: bytes | None = ..., log_offset: int | None = ...) -> None: ...

class StopReplicaRequest(Message):
    coordinator_epoch: int
    @property
    def stop_replicas_req(self) -> RepeatedCompositeFieldContainer[PbStopReplicaReqForBucket]: ...
    def __init__(self, *, coordinator_epoch: int | None = ..., stop_replicas_req: Iterable[PbStopReplicaReqForBucket] | None = ...) -> None: ...

class StopReplicaResponse(Message):
    @property
    def stop_replicas_resp(self) -> RepeatedCompositeFieldContainer[PbStopReplicaRespForBucket]: ...
    def __init__(self, *, stop_replicas_resp: Iterable[PbStopReplicaRespForBucket] | None = ...) -> None: ...

class TableExistsRequest(Message):
    @property
    def table_path(self) -> PbTablePath: ...
    def __init__(self, *, table_path: PbTablePath | None = ...) -> None: ...

class TableExistsResponse(Message):
    exists: bool
    def __init__(self, *, exists: bool | None = ...) -> None: ...

class UpdateMetadataRequest(Message):
    @property
    def coordinator_server(self) -> PbServerNode: ...
    @property
    def tablet_servers(self) -> RepeatedCompositeFieldContainer[PbServerNode]: ...
    @property
    def table_metadata(self) -> RepeatedCompositeFieldContainer[PbTableMetadata]: ...
    @property
    def partition_metadata(self) -> RepeatedCompositeFieldContainer[PbPartitionMetadata]: ...
    coordinator_epoch: int
    def __init__(self, *, coordinator_server: PbServerNode | None = ..., tablet_servers: Iterable[PbServerNode] | None = ..., table_metadata: Iterable[PbTableMetadata] | None = ..., partition_metadata: Iterable[PbPartitionMetadata] | None = ..., coordinator_epoch: int | None = ...) -> None: ...

class UpdateMetadataResponse(Message):
    def __init__(self, ) -> None: ...
