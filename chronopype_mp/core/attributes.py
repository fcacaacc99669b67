"""The values of a processor's attributes as they travel: both ends, pure.

A value travels in msgpack. It arrives as what it was, or not at all: what is no plain data (None,
bool, int, float, str, bytes, and lists and dicts of these) must survive the way to msgpack and back
as an object of its type. The receiver takes that type from the annotation in its own class, or from
the value that it has. No type is looked up by a name that came from a worker.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

import msgspec

from chronopype_mp.core.error_text import path_of
from chronopype_mp.core.messages import AttributeValue

__all__ = ["LONGEST", "AttributeProblem", "annotations_of", "decoded", "encoded"]

LONGEST = 64_000
"""Bytes of a value."""

PLAIN = (type(None), bool, int, float)
TEXTS = (str, bytes)
SEQUENCES = (list, tuple, set, frozenset)


class AttributeProblem(Exception):
    """A value cannot travel, or cannot be put together again. The message says why."""


def annotations_of(kind: type) -> Mapping[str, object]:
    """Return the types that a class declares for its attributes; none if they cannot be found."""
    try:
        return typing.get_type_hints(kind)
    except Exception:  # a name that only type checkers import
        return {}


def encoded(value: object, declared: object = None) -> AttributeValue:
    """Return a value as it travels.

    Args:
        value: the value.
        declared: the type that its class declares; None if it declares none.

    Raises:
        AttributeProblem: it cannot travel.
    """
    is_plain = _check_size(value)
    try:
        data = msgspec.msgpack.encode(value)
    except Exception as error:
        raise AttributeProblem(f"{type(value).__name__}: {error}") from error
    if len(data) > LONGEST:
        raise AttributeProblem(f"it has {len(data)} bytes; {LONGEST} may travel")
    if is_plain:
        return AttributeValue("", msgspec.Raw(data))
    for kind in (declared, type(value)):
        try:
            back = msgspec.msgpack.decode(data, type=kind)
            is_same = kind is not None and type(back) is type(value) and bool(back == value)
        except Exception:  # msgspec does not know the type, or its methods fail
            continue
        if is_same:
            return AttributeValue(path_of(type(value)), msgspec.Raw(data))
    raise AttributeProblem(
        f"a {type(value).__name__} would arrive as something else; annotate the attribute in the "
        "class with its type"
    )


def decoded(value: AttributeValue, declared: object = None, present: type | None = None) -> object:
    """Return a value that has travelled.

    Args:
        value: as it came in.
        declared: the type that the class declares here; None if it declares none.
        present: the type of the value that is here.

    Raises:
        AttributeProblem: no type is known here that it fits.
    """
    if not value.kind:
        return msgspec.msgpack.decode(value.data)
    for kind in (declared, present):
        if kind is None:
            continue
        try:
            back = msgspec.msgpack.decode(value.data, type=kind)
        except Exception:  # msgspec does not know the type, or the value does not fit
            continue
        if path_of(type(back)) == value.kind:
            return back
    raise AttributeProblem(f"{value.kind} is not the type that is declared here")


def _check_size(value: object) -> bool:
    """Return whether a value is plain data.

    Raises:
        AttributeProblem: it is evidently too large to be worth encoding.
    """
    left, is_plain, rest = LONGEST, True, [value]
    while rest:
        each = rest.pop()
        left -= 1
        kind = type(each)
        if isinstance(each, TEXTS):
            left -= len(each)
        elif isinstance(each, SEQUENCES):
            left -= len(each)
            rest.extend(each if left >= 0 else ())
        elif isinstance(each, dict):
            left -= len(each)
            rest.extend((*each, *each.values()) if left >= 0 else ())
        if left < 0:
            raise AttributeProblem(f"it has more than {LONGEST} bytes")
        is_plain = is_plain and kind in (*PLAIN, *TEXTS, list, dict)
    return is_plain
