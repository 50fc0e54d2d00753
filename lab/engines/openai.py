"""The OpenAI wire format as vLLM speaks it: what a request asks for, and the bytes of answers. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
DEFAULT_OUTPUT_TOKENS = 16


class Refused(Exception):
    """A request that vLLM answers with an error: status and message of it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def body(self) -> bytes:
        error = {"message": str(self), "type": self.kind, "param": None, "code": self.status}
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for tokens. Lengths are counted in words, or in the ids of a list of token ids."""

    chat: bool
    prompt_tokens: int
    output_tokens: int
    stream: bool
    include_usage: bool
    words: tuple[str, ...] = ()  # of a prompt that is one text


def read(body: bytes, chat: bool, model: str, max_tokens: int) -> Asked:
    """What a body asks of a model that holds so many tokens. Raises Refused as vLLM would answer."""
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refused(
            400, "Bad Request", f"[{{'type': 'json_invalid', 'msg': 'JSON decode error: {error}'}}]"
        ) from None
    if not isinstance(asked, dict):
        raise Refused(400, "Bad Request", "[{'type': 'model_attributes_type', 'loc': ('body',)}]")
    if asked.get("model", model) != model:
        raise Refused(404, "NotFoundError", f"The model `{asked['model']}` does not exist.")
    prompt_tokens = _chat_tokens(asked) if chat else _prompt_tokens(asked)
    output_tokens = asked.get("max_completion_tokens", asked.get("max_tokens", DEFAULT_OUTPUT_TOKENS))
    if not isinstance(output_tokens, int) or isinstance(output_tokens, bool) or output_tokens < 1:
        raise Refused(400, "BadRequestError", f"max_tokens must be at least 1, got {output_tokens!r}.")
    if prompt_tokens + output_tokens > max_tokens:
        raise Refused(
            400,
            "BadRequestError",
            f"This model's maximum context length is {max_tokens} tokens. However, your request has "
            f"{prompt_tokens} input tokens and asks for {output_tokens} output tokens.",
        )
    options = asked.get("stream_options") or {}
    usage = isinstance(options, dict) and options.get("include_usage") is True
    prompt = asked.get("prompt")
    words = tuple(prompt.split()) if not chat and isinstance(prompt, str) else ()
    return Asked(chat, prompt_tokens, output_tokens, asked.get("stream") is True, usage, words)


def _prompt_tokens(asked: Json) -> int:
    prompt = asked.get("prompt")
    if isinstance(prompt, str):
        return max(1, len(prompt.split()))
    if isinstance(prompt, list) and prompt:
        return len(prompt)
    raise Refused(400, "Bad Request", "[{'type': 'missing', 'loc': ('body', 'prompt'), 'msg': 'Field required'}]")


def _chat_tokens(asked: Json) -> int:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "Bad Request", "[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
    return max(1, sum(len(str(message.get("content", "")).split()) for message in messages))


@dataclass(frozen=True, slots=True)
class Answer:
    """The bodies and events of one answer."""

    id: str
    model: str
    created: int
    asked: Asked

    def role_event(self) -> bytes:
        """Chat only: the event vLLM sends just before the first token's."""
        return self._event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})

    def token_event(self, index: int, last: bool) -> bytes:
        text = f" t{index}"
        reason = "length" if last else None
        if self.asked.chat:
            return self._event({"delta": {"content": text}, "finish_reason": reason})
        return self._event({"text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None})

    def usage_event(self) -> bytes:
        return _sse(self._envelope(".chunk") | {"choices": [], "usage": self._usage()})

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        text = "".join(f" t{index}" for index in range(self.asked.output_tokens))
        content: Json = {"message": {"role": "assistant", "content": text}} if self.asked.chat else {"text": text}
        choice = {"index": 0, "finish_reason": "length", "stop_reason": None} | content
        return json.dumps(self._envelope("") | {"choices": [choice], "usage": self._usage()}).encode()

    def _event(self, choice: Json) -> bytes:
        return _sse(self._envelope(".chunk") | {"choices": [{"index": 0} | choice]})

    def _envelope(self, chunk: str) -> Json:
        kind = f"chat.completion{chunk}" if self.asked.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self) -> Json:
        prompt, output = self.asked.prompt_tokens, self.asked.output_tokens
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _sse(event: Json) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
