from __future__ import annotations

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from controller.gateway import answers
from tests.controller.messages import header_pick, metadata_pick, read

DESTINATION = "10.0.0.1:8000"


@pytest.mark.parametrize("build", [answers.headers_answer, answers.body_answer])
def test_header_and_metadata_carry_the_same_endpoint_and_the_route_is_chosen_anew(build: object) -> None:
    answer = read(build(DESTINATION))  # type: ignore[operator]

    common = getattr(answer, answer.WhichOneof("response")).response
    assert header_pick(answer) == metadata_pick(answer) == DESTINATION
    assert common.header_mutation.set_headers[0].append_action == 2  # OVERWRITE_IF_EXISTS_OR_ADD
    assert common.clear_route_cache


def test_stored_answers_are_what_the_messages_serialize_to() -> None:
    expected = ext_proc.ProcessingResponse()
    common = expected.request_headers.response
    common.clear_route_cache = True
    option = common.header_mutation.set_headers.add(append_action=2)
    option.header.key, option.header.raw_value = "x-gateway-destination-endpoint", DESTINATION.encode()
    expected.dynamic_metadata.update({"envoy.lb": {"x-gateway-destination-endpoint": DESTINATION}})

    assert answers.headers_answer(DESTINATION) == expected.SerializeToString()
    assert answers.headers_answer(DESTINATION) is answers.headers_answer(DESTINATION)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 62_000])
@pytest.mark.parametrize("ends", [True, False])
def test_chunks_by_hand_are_what_the_messages_serialize_to(size: int, ends: bool) -> None:
    body = bytes(size)
    expected = []
    if size or ends:
        message = ext_proc.ProcessingResponse()
        chunk = message.request_body.response.body_mutation.streamed_response
        chunk.body, chunk.end_of_stream = body, ends
        expected = [message.SerializeToString()]

    assert list(answers.request_chunks(body, ends)) == expected


def test_response_chunks_answer_the_response_body() -> None:
    (chunk,) = answers.response_chunks(b"x", True)

    assert read(chunk).response_body.response.body_mutation.streamed_response.body == b"x"


def test_no_chunk_exceeds_62000_bytes_and_only_the_last_ends_the_stream() -> None:
    parts = [
        read(chunk).request_body.response.body_mutation.streamed_response
        for chunk in answers.request_chunks(bytes(range(256)) * 500, ends=True)
    ]

    assert [len(part.body) for part in parts] == [62_000, 62_000, 4_000]
    assert [part.end_of_stream for part in parts] == [False, False, True]
    assert b"".join(part.body for part in parts) == bytes(range(256)) * 500


def test_control_headers_are_removed_but_not_the_one_that_is_set() -> None:
    answer = read(answers.headers_answer(DESTINATION, answers.CONTROL_HEADERS))

    passed = read(answers.headers_passed(answers.CONTROL_HEADERS))
    removed = answer.request_headers.response.header_mutation.remove_headers
    assert set(removed) == answers.CONTROL_HEADERS - {answers.DESTINATION}
    assert set(passed.request_headers.response.header_mutation.remove_headers) == answers.CONTROL_HEADERS


def test_an_immediate_response_has_status_and_text() -> None:
    answer = read(answers.immediate(503, "nobody there"))

    assert (answer.immediate_response.status.code, answer.immediate_response.body) == (503, b"nobody there")
