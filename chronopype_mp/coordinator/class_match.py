"""Whether a class statement is the one that made a class which has no code of its own."""

from __future__ import annotations

import ast
import contextlib
import enum
from collections.abc import Mapping
from typing import Any

from chronopype_mp.coordinator.definition import bound_by, literal_of

__all__ = ["is_same", "made_by"]

UNSET = object()


def made_by(node: ast.ClassDef, kind: type, names: Mapping[str, Any]) -> bool:
    """Whether a statement may have made a class: by its line, its bases and its constants.

    Args:
        node: the statement.
        kind: the class.
        names: the globals of its module.
    """
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    if "__firstlineno__" in vars(kind):  # since Python 3.13
        return bool(vars(kind)["__firstlineno__"] == first)
    for base in node.bases:
        found = names.get(base.id) if isinstance(base, ast.Name) else None
        if isinstance(found, type) and found not in kind.__mro__:
            return False
    if not node.bases and not node.keywords and kind.__bases__ != (object,):
        return bool(getattr(node, "type_params", ()))
    values = _values(kind)
    for statement in node.body:
        for name in bound_by(statement):
            with contextlib.suppress(ValueError):
                if not is_same(values.get(name, UNSET), literal_of(statement)):
                    return False
    return True


def _values(kind: type) -> dict[str, Any]:
    """Return the values of the names in the body of a class, whatever was made of them."""
    values = dict(vars(kind))
    if isinstance(kind, enum.EnumMeta):
        return values | {name: kind[name].value for name in kind.__members__}
    defaults = getattr(kind, "__struct_defaults__", ())
    fields = getattr(kind, "__struct_fields__", ())
    values |= dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
    values |= getattr(kind, "_field_defaults", {})
    for holder in ("__dataclass_fields__", "__pydantic_fields__"):
        held = getattr(kind, holder, None) or {}
        values |= {name: field.default for name, field in held.items()}
    return values


def is_same(value: object, constant: object) -> bool:
    """Whether a value equals a constant, in the types of all its parts, too."""
    if type(value) is not type(constant):
        return False
    if isinstance(value, dict) and isinstance(constant, dict):
        return is_same([*value.items()], [*constant.items()])
    if isinstance(value, list | tuple) and isinstance(constant, list | tuple):
        return len(value) == len(constant) and all(map(is_same, value, constant))
    return value == constant or value is constant
