"""Asks a Triton by its own gRPC client, many calls over one connection. Runs in the engine's environment.

    python triton_grpc.py HOST:PORT MODEL COUNT LANES

Prints of each call: nanoseconds when it was sent, when the first answer came, when the last one did; and how many came.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, aio

STREAMING = "stream"
TOKENS = 8


def inputs(model: str) -> list[Any]:
    text = InferInput("text_input", [1] if model == STREAMING else [1, 1], "BYTES")
    text.set_data_from_numpy(np.full(text.shape(), b"x" * 50, dtype=object))
    if model != STREAMING:
        return [text]
    wanted = InferInput("max_tokens", [1], "INT32")
    wanted.set_data_from_numpy(np.array([TOKENS], dtype=np.int32))
    return [text, wanted]


async def questions(model: str) -> AsyncIterator[dict[str, Any]]:
    yield {"model_name": model, "inputs": inputs(model), "enable_empty_final_response": True}


async def call(client: Any, model: str) -> str:
    sent_ns, first_ns, pieces = time.monotonic_ns(), 0, 0
    if model == STREAMING:
        async for answer, error in client.stream_infer(questions(model)):
            if error is not None:
                raise SystemExit(f"triton_grpc: {error}")
            final = answer.get_response().parameters.get("triton_final_response")
            if answer.as_numpy("text_output") is not None:
                first_ns, pieces = first_ns or time.monotonic_ns(), pieces + 1
            if final is not None and final.bool_param:
                break
    else:
        await client.infer(model, inputs(model))
        first_ns, pieces = time.monotonic_ns(), 1
    return f"{sent_ns} {first_ns} {time.monotonic_ns()} {pieces}"


async def lane(client: Any, model: str, waiting: Iterator[int]) -> None:
    for _ in waiting:
        print(await call(client, model), flush=True)


async def main() -> None:
    where, model, count, lanes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    async with aio.InferenceServerClient(where) as client:
        waiting = iter(range(count))
        await asyncio.gather(*(lane(client, model, waiting) for _ in range(lanes)))


if __name__ == "__main__":
    asyncio.run(main())
