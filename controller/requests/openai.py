"""The model that a JSON body names. Pure.

Bodies are read only as far as a pick needs them, once: the model's name and where the prompt is, with everything else
skipped but checked.
"""

from __future__ import annotations

import msgspec

from controller.requests.prompts import Fields

NO_MODEL = "model not found in request body"


class BadRequest(Exception):
    """The request cannot be served whatever the endpoint; the text is for the client."""


class Body(Fields):
    model: str = ""


_decoder = msgspec.json.Decoder(Body)


def model_of(body: bytes | bytearray) -> str:
    """The value of the top-level "model". Raises BadRequest saying at which byte or field the body is wrong."""
    return read(body).model


def read(body: bytes | bytearray) -> Body:
    """A body that names its model. Raises BadRequest saying at which byte or field it is wrong."""
    try:
        found = _decoder.decode(body)
    except msgspec.ValidationError as error:  # no object, or the model's name is no text
        what = NO_MODEL if "$.model" in str(error) else "error unmarshaling request body"
        raise BadRequest(f"{what}: {error}") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"error unmarshaling request body: {_where(error, body)}") from None
    except UnicodeDecodeError:  # older msgspec; 0.23 raises a DecodeError
        raise BadRequest(f"error unmarshaling request body: {_no_utf8(body)}") from None
    except RecursionError:
        raise BadRequest("error unmarshaling request body: JSON is nested too deeply") from None
    if not found.model:
        raise BadRequest(NO_MODEL)
    return found


def _no_utf8(body: bytes | bytearray) -> str:
    """Where the body stops being UTF-8; msgspec tells the place inside the text it was reading, if any."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"invalid UTF-8 (byte {error.start})"
    return f"invalid UTF-8 (byte {len(body)})"


def _where(error: Exception, body: bytes | bytearray) -> str:
    """msgspec tells the byte of malformed JSON; of JSON that ends too early we tell where it ends."""
    text = str(error)
    if "UTF-8" in text:
        return _no_utf8(body)
    return text if "(byte " in text else f"{text} (byte {len(body)})"
