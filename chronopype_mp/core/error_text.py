"""The text of an exception, for reports. It is bounded, because every beat has the last message."""

from __future__ import annotations

import traceback

__all__ = ["message_of", "shortened", "traceback_of"]

LONGEST_MESSAGE = 8192
LONGEST_TRACEBACK = 65536


def message_of(error: BaseException) -> str:
    """Return the message of an exception; its ``__str__`` may be a user's, and raise."""
    try:
        return shortened(str(error), LONGEST_MESSAGE)
    except BaseException as second:
        return f"{type(error).__name__}, which cannot be printed ({type(second).__name__})"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception as text; its attributes may be a user's, and raise."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as second:
        return f"{type(error).__name__}, which cannot be printed ({type(second).__name__})\n"


def shortened(text: str, longest: int) -> str:
    """Return a text, with its middle left out if it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}… ({len(text) - 2 * half} more characters) …{text[-half:]}"
