from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ("subscriber",)
    SUBSCRIBER_FIELD_NUMBER: _ClassVar[int]
    subscriber: str
    def __init__(self, subscriber: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("node", "sequence", "full", "endpoints", "age_us")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    node: str
    sequence: int
    full: bool
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointReport]
    age_us: int
    def __init__(self, node: _Optional[str] = ..., sequence: _Optional[int] = ..., full: _Optional[bool] = ..., endpoints: _Optional[_Iterable[_Union[EndpointReport, _Mapping]]] = ..., age_us: _Optional[int] = ...) -> None: ...

class EndpointReport(_message.Message):
    __slots__ = ("namespace", "pod", "pod_uid", "port", "kernel", "engine", "devices")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    pod_uid: str
    port: int
    kernel: KernelSignal
    engine: EngineSignal
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., pod_uid: _Optional[str] = ..., port: _Optional[int] = ..., kernel: _Optional[_Union[KernelSignal, _Mapping]] = ..., engine: _Optional[_Union[EngineSignal, _Mapping]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("id", "resource", "kind", "share", "fault", "utilization", "memory_used_bytes", "memory_total_bytes", "age_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    id: str
    resource: str
    kind: str
    share: str
    fault: str
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    age_us: int
    def __init__(self, id: _Optional[str] = ..., resource: _Optional[str] = ..., kind: _Optional[str] = ..., share: _Optional[str] = ..., fault: _Optional[str] = ..., utilization: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., age_us: _Optional[int] = ...) -> None: ...

class KernelSignal(_message.Message):
    __slots__ = ("age_us", "in_flight", "waiting", "started", "completed", "client_aborted", "server_aborted", "status_5xx", "chunks", "connections", "resets_out", "retransmits", "progress_age_us", "usual_ttft_us", "usual_gap_us", "srtt_us", "low_gap_us")
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ABORTED_FIELD_NUMBER: _ClassVar[int]
    SERVER_ABORTED_FIELD_NUMBER: _ClassVar[int]
    STATUS_5XX_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RESETS_OUT_FIELD_NUMBER: _ClassVar[int]
    RETRANSMITS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_AGE_US_FIELD_NUMBER: _ClassVar[int]
    USUAL_TTFT_US_FIELD_NUMBER: _ClassVar[int]
    USUAL_GAP_US_FIELD_NUMBER: _ClassVar[int]
    SRTT_US_FIELD_NUMBER: _ClassVar[int]
    LOW_GAP_US_FIELD_NUMBER: _ClassVar[int]
    age_us: int
    in_flight: int
    waiting: int
    started: int
    completed: int
    client_aborted: int
    server_aborted: int
    status_5xx: int
    chunks: int
    connections: int
    resets_out: int
    retransmits: int
    progress_age_us: int
    usual_ttft_us: int
    usual_gap_us: int
    srtt_us: int
    low_gap_us: int
    def __init__(self, age_us: _Optional[int] = ..., in_flight: _Optional[int] = ..., waiting: _Optional[int] = ..., started: _Optional[int] = ..., completed: _Optional[int] = ..., client_aborted: _Optional[int] = ..., server_aborted: _Optional[int] = ..., status_5xx: _Optional[int] = ..., chunks: _Optional[int] = ..., connections: _Optional[int] = ..., resets_out: _Optional[int] = ..., retransmits: _Optional[int] = ..., progress_age_us: _Optional[int] = ..., usual_ttft_us: _Optional[int] = ..., usual_gap_us: _Optional[int] = ..., srtt_us: _Optional[int] = ..., low_gap_us: _Optional[int] = ...) -> None: ...

class EngineSignal(_message.Message):
    __slots__ = ("age_us", "engine", "running", "waiting", "kv_cache_usage", "models", "running_adapters", "waiting_adapters", "max_adapters", "kv_blocks", "kv_block_tokens")
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    WAITING_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    MAX_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    age_us: int
    engine: str
    running: int
    waiting: int
    kv_cache_usage: float
    models: _containers.RepeatedScalarFieldContainer[str]
    running_adapters: _containers.RepeatedScalarFieldContainer[str]
    waiting_adapters: _containers.RepeatedScalarFieldContainer[str]
    max_adapters: int
    kv_blocks: int
    kv_block_tokens: int
    def __init__(self, age_us: _Optional[int] = ..., engine: _Optional[str] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., kv_cache_usage: _Optional[float] = ..., models: _Optional[_Iterable[str]] = ..., running_adapters: _Optional[_Iterable[str]] = ..., waiting_adapters: _Optional[_Iterable[str]] = ..., max_adapters: _Optional[int] = ..., kv_blocks: _Optional[int] = ..., kv_block_tokens: _Optional[int] = ...) -> None: ...
