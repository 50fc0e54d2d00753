from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WeightsRequest(_message.Message):
    __slots__ = ("node", "subscriber")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_FIELD_NUMBER: _ClassVar[int]
    node: str
    subscriber: str
    def __init__(self, node: _Optional[str] = ..., subscriber: _Optional[str] = ...) -> None: ...

class EndpointWeights(_message.Message):
    __slots__ = ("namespace", "pool", "sequence", "age_us", "endpoints")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pool: str
    sequence: int
    age_us: int
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointWeight]
    def __init__(self, namespace: _Optional[str] = ..., pool: _Optional[str] = ..., sequence: _Optional[int] = ..., age_us: _Optional[int] = ..., endpoints: _Optional[_Iterable[_Union[EndpointWeight, _Mapping]]] = ...) -> None: ...

class EndpointWeight(_message.Message):
    __slots__ = ("address", "port", "weight", "price_s", "node", "pod")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PRICE_S_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    weight: float
    price_s: float
    node: str
    pod: str
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., weight: _Optional[float] = ..., price_s: _Optional[float] = ..., node: _Optional[str] = ..., pod: _Optional[str] = ...) -> None: ...
