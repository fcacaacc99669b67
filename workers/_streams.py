"""Messages in a stream of bytes."""

from __future__ import annotations

import asyncio
from typing import Literal

__all__ = ["Framing", "read_message"]

Framing = Literal["lines", "chunks"]
"""What a message is: a line, or whatever has come."""


async def read_message(reader: asyncio.StreamReader, framing: Framing, limit: int) -> bytes | None:
    """Return the next message, a line without its end; None at the end of the stream.

    Args:
        reader: the stream, made with this limit.
        framing: what a message is.
        limit: the largest size of a message, bytes.

    Raises:
        ConnectionError: a line is longer than the limit.
    """
    if framing == "chunks":
        return await reader.read(limit) or None
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        line = error.partial
        if not line:
            return None
    except asyncio.LimitOverrunError:
        raise ConnectionError(f"a line has more than {limit} bytes") from None
    return line.rstrip(b"\r\n")
