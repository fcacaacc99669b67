"""The text of an exception, for reports. It is bounded, because every beat has the last message."""

from __future__ import annotations

import traceback

__all__ = [
    "LONGEST_NAME",
    "LONGEST_REASON",
    "LONGEST_TRACEBACK",
    "line_of",
    "message_of",
    "name_of",
    "path_of",
    "repr_of",
    "shortened",
    "traceback_of",
]

LONGEST_NAME = 200
"""Bytes of the name of a type, function, file or thread. All bounds are those of the text as it
travels, see `shortened`."""

MOST_SHOWN = 3
"""Exceptions of a group whose messages are part of the group's."""

LONGEST_PATH = 1000
LONGEST_MESSAGE = 8192
LONGEST_REASON = 1000
LONGEST_TRACEBACK = 32_768


def name_of(kind: type) -> str:
    """Return the name of a type; a program may make types of any name."""
    return shortened(kind.__name__, LONGEST_NAME)


def path_of(kind: type) -> str:
    """Return where a type is defined, ``"package.module:Class"``; "" if it has no such place."""
    path = f"{kind.__module__}:{kind.__qualname__}"
    return "" if "<locals>" in path or len(_travelling(path)) > LONGEST_PATH else path


def message_of(error: BaseException) -> str:
    """Return the message of an exception, and of what is in a group.

    Its ``__str__`` may be a user's, and raise.
    """
    try:
        text = str(error)
        if isinstance(error, BaseExceptionGroup):
            text = ": ".join((text, "; ".join(map(line_of, error.exceptions[:MOST_SHOWN]))))
        return shortened(text, LONGEST_MESSAGE)
    except BaseException as second:
        return f"{name_of(type(error))}, which cannot be printed ({name_of(type(second))})"


def line_of(error: BaseException) -> str:
    """Return the name and the message of an exception; the name alone if it has no message."""
    return f"{name_of(type(error))}: {message_of(error)}".removesuffix(": ")


def repr_of(value: object) -> str:
    """Return the ``repr()`` of a value; its ``__repr__`` may be a user's, and raise."""
    try:
        return repr(value)
    except BaseException as error:
        return f"a {name_of(type(value))}, which cannot be printed ({name_of(type(error))})"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception as text; its attributes may be a user's, and raise."""
    try:
        return shortened("".join(traceback.format_exception(error)), LONGEST_TRACEBACK)
    except BaseException as second:
        return f"{name_of(type(error))}, which cannot be printed ({name_of(type(second))})\n"


def shortened(text: str, longest: int) -> str:
    """Return a text, with its middle left out if it travels as more than ``longest`` bytes.

    It travels as UTF-8. What UTF-8 cannot carry is escaped.
    """
    encoded = _travelling(text)
    if len(encoded) <= longest:
        return text
    half = longest // 2
    # A character that was cut in two is left out as well.
    kept = (
        part.decode(errors="ignore") for part in (encoded[:half], encoded[len(encoded) - half :])
    )
    return f"… ({len(encoded) - 2 * half} more bytes) …".join(kept)


def _travelling(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
