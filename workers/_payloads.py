"""What is emitted of the bytes that a processor receives."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Form", "NotDecodedError", "at_path", "decoded"]

Form = Literal["text", "json", "bytes"]
"""As what received bytes are emitted."""


class NotDecodedError(ConnectionError):
    """What has come is not what it should be. The connection counts as lost."""


def decoded(data: bytes, form: Form, encoding: str = "utf-8") -> Any:
    """Return received bytes as text, as JSON's values, or as they are.

    Raises:
        NotDecodedError: they are neither.
    """
    if form == "bytes":
        return data
    try:
        return msgspec.json.decode(data) if form == "json" else data.decode(encoding)
    except (LookupError, ValueError, msgspec.DecodeError) as error:
        what = "JSON" if form == "json" else encoding
        raise NotDecodedError(f"received {len(data)} bytes that are not {what}: {error}") from None


def at_path(value: Any, path: str) -> Any:
    """Return a part of JSON's values.

    Args:
        value: the whole.
        path: names and, in arrays, numbers from 0, separated by dots, such as ``"data.0.price"``.

    Raises:
        NotDecodedError: there is no such part.
    """
    for part in path.split(".") if path else ():
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            raise NotDecodedError(f"the JSON has no {path!r}: {part!r} is missing") from None
    return value
