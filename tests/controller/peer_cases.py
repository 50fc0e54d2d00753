"""What the field's own pickers are tested for, as facts: what a gateway sends, what the engines' pages say, what has to
come of it.

Taken from the integration tests of the Gateway API Inference Extension (releases 0.3 to 1.5) and of llm-d's router up
to 2026-08: inputs and outcomes, no code. Their gateways send neither `:path` nor `protocol_config`. Where this picker
differs on purpose the case says what it does instead; docs/migrate-from-gie.md says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

POOL = "vllm-llama3-8b-instruct-pool"
LORA, LORA_3 = "sql-lora-1fdg2", "sql-lora-1fdg3"


@dataclass(frozen=True, slots=True)
class Engine:
    """The page of pod number `at`, 192.168.1.(at + 1):8000."""

    at: int
    waiting: int
    kv: float
    adapters: tuple[str, ...] = ()
    most: int | None = None


def pages(*told: tuple[int, float, str], most: int | None = None) -> tuple[Engine, ...]:
    return tuple(Engine(at, waiting, kv, tuple(names.split()), most) for at, (waiting, kv, names) in enumerate(told))


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    policy: str
    engines: Sequence[Engine]
    body: Sequence[bytes] = ()  # chunks; () is a request without one
    headers: Mapping[str, str] = field(default_factory=dict)
    subset: Sequence[str] | None = None
    goes_to: str = ""
    asks_for: str = ""  # the model in the body that goes back
    counted: tuple[str, str, str] | None = None  # model, target, priority
    status: int = 0
    says: str = ""
    bare: bool = False  # the whole body in the first message, without headers: a gateway that buffers


def completion(prompt: str, model: str) -> bytes:
    return b'{"max_tokens":100,"model":"%b","prompt":"%b","temperature":0}' % (model.encode(), prompt.encode())


def split(prompt: str, model: str) -> tuple[bytes, bytes]:
    whole = completion(prompt, model)
    return whole[:32], whole[32:]


def to(pod: int) -> str:
    return f"192.168.1.{pod + 1}:8000"


QUEUES = pages((3, 0.2, ""), (0, 0.1, ""), (10, 0.2, ""))
ACTIVE = pages((0, 0.2, "foo bar"), (0, 0.1, f"foo {LORA}"), (10, 0.2, "foo bar"), most=2)
FULL = pages((6, 0.2, f"foo bar {LORA_3}"), (0, 0.85, f"foo {LORA_3}"), (10, 0.9, f"foo {LORA_3}"))
ONE_FITS = pages((4, 0.2, f"foo bar {LORA_3}"), (0, 0.85, f"foo {LORA_3}"), (10, 0.9, f"foo {LORA_3}"))
LONG_QUEUES = pages((10, 0.2, "foo bar"), (200, 0.1, f"foo {LORA}"), (6, 0.2, "foo"))

# release 0.3: InferenceModels decide target and criticality
TREE = [
    Case(
        "select lower queue and kv cache, no active lora", "gie-v0.3", QUEUES, [completion("test1", "my-model")],
        goes_to=to(1), asks_for="my-model-12345", counted=("my-model", "my-model-12345", "1"),
    ),
    Case(
        "select active lora, low queue", "gie-v0.3", ACTIVE, [completion("test2", "sql-lora")],
        goes_to=to(1), asks_for=LORA, counted=("sql-lora", LORA, "1"),
    ),
    Case(
        "select no lora despite active model, avoid excessive queue size", "gie-v0.3", LONG_QUEUES,
        [completion("test3", "sql-lora")], goes_to=to(2), asks_for=LORA,
    ),
    Case(
        "noncritical and all models past threshold, shed request", "gie-v0.3", FULL,
        [completion("test4", "sql-lora-sheddable")], status=429,
    ),
    Case(
        "noncritical, but one server has capacity, do not shed", "gie-v0.3", ONE_FITS,
        [completion("test5", "sql-lora-sheddable")], goes_to=to(0), asks_for=LORA_3,
    ),
    Case(
        "body sent over multiple requests, noncritical, but one server has capacity", "gie-v0.3", ONE_FITS,
        split("test6", "sql-lora-sheddable"), goes_to=to(0), asks_for=LORA_3,
        counted=("sql-lora-sheddable", LORA_3, "-1"),
    ),
    Case(
        "the model's name is not translated, passthrough", "gie-v0.3", ONE_FITS, split("test6", "direct-model"),
        goes_to=to(1), asks_for="direct-model", counted=("direct-model", "direct-model", "1"),
    ),
    Case("a model without InferenceModel", "gie-v0.3", QUEUES, [completion("x", "nobody")], status=404),
    Case("every schedule error, no pods", "gie-v0.3", (), [completion("x", "my-model")], status=429),
    Case("every schedule error, no pods, shed", "gie-v0.3", (), [completion("x", "sql-lora-sheddable")], status=429),
    Case(
        "buffered: select lower queue and kv cache", "gie-v0.3", QUEUES, [completion("test1", "my-model")],
        goes_to=to(1), asks_for="my-model-12345", bare=True,
    ),
    Case(
        "buffered: shed request", "gie-v0.3", FULL, [completion("test4", "sql-lora-sheddable")], status=429, bare=True
    ),
    Case(
        "buffered: one server has capacity", "gie-v0.3", ONE_FITS, [completion("test5", "sql-lora-sheddable")],
        goes_to=to(0), asks_for=LORA_3, bare=True,
    ),
]  # fmt: skip

OBJECTIVE, TARGET = "x-gateway-inference-objective", "x-gateway-model-name-rewrite"
LLM_D_OBJECTIVE, LLM_D_TARGET = "x-llm-d-inference-objective", "x-llm-d-model-name-rewrite"
MY_MODEL = {LLM_D_OBJECTIVE: "my-model", LLM_D_TARGET: "my-model-12345"}
SQL_LORA = {OBJECTIVE: "sql-lora", TARGET: LORA}
PAIR = pages((0, 0.2, "foo"), (0, 0.1, f"foo {LORA}"), (10, 0.2, "foo"), most=2)
NO_CANDIDATES = "ServiceUnavailable - failed to find endpoint candidates for serving the request"

# since 1.0: headers name objective and target
SCORERS = [
    Case(
        "select lower queue and kv cache", "gie-v1", QUEUES, [completion("test1", "my-model")], MY_MODEL,
        goes_to=to(1), asks_for="my-model-12345", counted=("my-model", "my-model-12345", "2"),
    ),
    Case(
        "select active lora, low queue", "gie-v1", ACTIVE, [completion("test2", "sql-lora")], SQL_LORA,
        goes_to=to(1), asks_for=LORA, counted=("sql-lora", LORA, "2"),
    ),
    Case(
        "do not shed requests by default", "gie-v1",
        pages((6, 0.2, f"foo bar {LORA}"), (0, 0.85, "foo"), (10, 0.9, "foo"), most=2),
        [completion("test4", "sql-lora")], SQL_LORA, goes_to=to(0), asks_for=LORA,
    ),
    Case(
        "a sheddable request at a saturated pool", "gie-v1", pages((6, 0.2, ""), (0, 0.85, ""), (10, 0.9, "")),
        [completion("test4", "m")], {OBJECTIVE: "sheddable"}, status=429,
        says="ResourceExhausted - system saturated, sheddable request dropped",
    ),
    Case(
        "invalid json body", "gie-v1", pages((0, 0.2, "foo bar")), [b"no healthy upstream"], status=400,
        says="BadRequest - error unmarshaling request body",
    ),
    Case(
        "split body across chunks", "gie-v1", pages((4, 0.2, f"foo bar {LORA_3}"), (4, 0.85, f"foo {LORA_3}")),
        split("test6", "sql-lora-sheddable"), {OBJECTIVE: "sql-lora-sheddable", TARGET: LORA_3},
        goes_to=to(0), asks_for=LORA_3, counted=("sql-lora-sheddable", LORA_3, "0"),
    ),
    Case(
        "no backend pods available", "gie-v1", (), (), {"content-type": "application/json"}, status=500,
        says="Internal - no pods available in datastore",
    ),
    Case("no backend pods, with a body", "gie-v1", (), [completion("x", "m")], status=503, says=NO_CANDIDATES),
    Case(
        "request missing model field", "gie-v1", (), [b'{"prompt":"hello world"}'],
        {"content-type": "application/json"}, status=400, says="BadRequest - model not found in request body",
    ),
    Case(
        "subsetting: select best from subset", "gie-v1", PAIR, [completion("test2", "sql-lora")], SQL_LORA,
        [to(0), to(1), to(2)], goes_to=to(1), asks_for=LORA,
    ),
    Case(
        "subsetting: partial match", "gie-v1", PAIR, [completion("test2", "sql-lora")], SQL_LORA, [to(2)],
        goes_to=to(2), asks_for=LORA,
    ),
    Case(
        "subsetting: no pods match", "gie-v1", PAIR, [completion("test2", "sql-lora")], SQL_LORA,
        ["192.168.1.99:8000"], status=503, says=NO_CANDIDATES,
    ),
    Case(
        "passthrough: model not in objectives", "gie-v1", pages((4, 0.2, f"foo bar {LORA_3}")),
        split("test6", "direct-model"), {LLM_D_OBJECTIVE: "direct-model", LLM_D_TARGET: "direct-model"},
        goes_to=to(0), asks_for="direct-model", counted=("direct-model", "direct-model", "2"),
    ),
    Case("protocol: simple GET (header only)", "gie-v1", pages((0, 0.0, "foo")), goes_to=to(0)),
    Case(
        "new control headers count for more than old aliases", "gie-v1", pages((0, 0.0, "")),
        [completion("x", "my-model")],
        {LLM_D_OBJECTIVE: "my-model", OBJECTIVE: "sheddable", LLM_D_TARGET: "new", TARGET: "old"},
        goes_to=to(0), asks_for="new", counted=("my-model", "new", "2"),
    ),
    Case(
        "grpc: select lower queue and kv cache", "gie-v1", QUEUES, [b"\x00\x00\x00\x00\x07\n\x05test1"],
        {":path": "/vllm.grpc.engine.VllmEngine/Generate", OBJECTIVE: "my-model"}, goes_to=to(1),
        counted=("", "", "2"),
    ),
    Case(
        "grpc: split body across chunks", "gie-v1", pages((4, 0.2, ""), (4, 0.85, "")),
        [b"\x00\x00\x00\x00\x07\n", b"\x05test3"], {":path": "/vllm.grpc.engine.VllmEngine/Embed"}, goes_to=to(0),
    ),
    Case(  # the peers' gRPC parser refuses it; ours does not look into gRPC
        "grpc: invalid payload passes", "gie-v1", pages((0, 0.2, "")), [b"plain text not grpc payload style"],
        {":path": "/vllm.grpc.engine.VllmEngine/Generate"}, goes_to=to(0),
    ),
    Case("default: no endpoint is 503 for every request", "sonde", (), status=503, says=NO_CANDIDATES),
    Case(
        "default: no endpoint is 503 with a body too", "sonde", (), [completion("x", "m")], status=503,
        says=NO_CANDIDATES,
    ),
]  # fmt: skip
