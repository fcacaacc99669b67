"""Options in the words of fleet files, for ``chronopype-mp list-processors``."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import msgspec

__all__ = ["described"]

WORDS: dict[Any, str] = {
    str: "string",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "any",
}


def described(field: msgspec.structs.FieldInfo) -> str:
    """Return an option as a fleet file has it, such as ``"timeout: seconds, default 5.0"``."""
    text = f"{field.name}: {_kind(field.type)}"
    if field.required:
        return f"{text}, required"
    is_plain = type(field.default) in (str, int, float, bool) and field.default != ""
    return f"{text}, default {json.dumps(field.default)}" if is_plain else text


def _kind(kind: Any) -> str:
    """Return what a value may be."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        metas = (each for each in arguments if isinstance(each, msgspec.Meta))
        is_seconds = any((each.extra or {}).get("unit") == "s" for each in metas)
        return "seconds" if is_seconds else _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not types.NoneType)
    if origin is typing.Literal:
        return " or ".join(map(json.dumps, arguments))
    if origin in (list, tuple):
        return f"array of {_kind(arguments[0])}"
    if origin is dict:
        return f"table of {_kind(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"table with {', '.join(kind.__struct_fields__)}"
    if isinstance(kind, type) and issubclass(kind, str):
        return WORDS[str]
    return WORDS[kind] if kind in WORDS else str(getattr(kind, "__name__", kind))
