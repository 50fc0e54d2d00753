"""An ext_proc server that decides nothing: the least that any picker over grpc.aio costs.

    python -m bench.nothing --port P --destination IP:PORT

It answers each message with stored bytes as soon as the protocol allows, and echoes what must be echoed.
"""

from __future__ import annotations

import controller.polling  # isort: skip # noqa: F401 - before gRPC, as the controller does

import argparse
import asyncio

import grpc
import grpc.aio
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from controller.gateway import answers, extproc
from controller.gateway.modes import FULL_DUPLEX


class Nothing:
    def __init__(self, destination: str) -> None:
        self._headers = answers.headers_answer(destination)
        self._body = answers.body_answer(destination)

    async def process(self, _requests: object, context: grpc.aio.ServicerContext) -> None:
        first = ProcessingRequest.FromString(await context.read())
        if first.protocol_config.request_body_mode != FULL_DUPLEX:
            await context.write(answers.headers_passed())
            await context.read()
            await context.write(self._body)
            return
        await context.write(self._headers)
        while True:
            body = ProcessingRequest.FromString(await context.read()).request_body
            for chunk in answers.request_chunks(body.body, body.end_of_stream):
                await context.write(chunk)
            if body.end_of_stream:
                return


async def serve(port: int, destination: str) -> None:
    server = grpc.aio.server(options=extproc.OPTIONS)
    method = grpc.stream_stream_rpc_method_handler(Nothing(destination).process)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(extproc.SERVICE, {"Process": method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--destination", required=True)
    given = options.parse_args()
    uvloop.run(serve(given.port, given.destination))
