"""Walks through what an object holds: to name what cannot be sent, and what is held twice."""

from __future__ import annotations

import collections
import functools
import logging
import types
from collections.abc import Iterable, Iterator

__all__ = ["ATOMS", "children", "mutable_objects"]

ATOMS = frozenset(
    {type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes}
)
"""Types of values that hold nothing and that nobody changes."""

NOT_CARRIED = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    logging.Logger,
    logging.LoggerAdapter,
)
"""What travels by name or is code."""

TRANSPARENT = (tuple, functools.partial, types.MethodType, types.MappingProxyType)
"""What nobody changes, though it may hold what can be changed."""


def children(value: object) -> Iterator[tuple[str, object]]:
    """Yield what an object holds, each with the step that leads to it, such as ``.client``."""
    if isinstance(value, dict | types.MappingProxyType):
        for key, held in list(value.items()):
            yield f"[{key!r}]", held
    elif isinstance(value, list | tuple | collections.deque):
        for i, held in enumerate(list(value)):
            yield f"[{i}]", held
    elif isinstance(value, set | frozenset):
        for held in list(value):
            yield "{…}", held
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f".<{name}>", cell.cell_contents
            except ValueError:
                continue  # an empty cell
    if isinstance(value, type):
        for name, held in list(vars(value).items()) if _has_no_module(value) else ():
            yield f".{name}", held
        return
    for name, held in list(getattr(value, "__dict__", {}).items()):
        yield f".{name}", held
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                try:
                    yield f".{name}", object.__getattribute__(value, name)
                except AttributeError:
                    continue  # not set
    if _has_no_module(type(value)):
        yield "", type(value)


def _has_no_module(kind: type) -> bool:
    """Whether a class may travel by value, with all that it holds."""
    return kind.__module__ == "__main__" or "<locals>" in kind.__qualname__


def mutable_objects(roots: Iterable[tuple[str, object]]) -> dict[int, tuple[object, str]]:
    """Return the objects that can be changed, with the path to each, by `id`; outer ones first.

    Args:
        roots: where to begin, with their labels.
    """
    found: dict[int, tuple[object, str]] = {}
    seen: set[int] = set()
    queue = collections.deque((label, root) for label, root in roots)
    while queue:
        path, value = queue.popleft()
        hashing = type(value).__hash__
        if type(value) in ATOMS or type(value) is object or isinstance(value, NOT_CARRIED):
            continue
        if id(value) in seen:
            continue
        if (
            hashing is not None
            and hashing is not object.__hash__
            and not isinstance(value, TRANSPARENT)
        ):
            continue  # equal by value: a number, a date, a path
        seen.add(id(value))
        if not isinstance(value, TRANSPARENT):
            found[id(value)] = value, path
        queue.extend((path + step, held) for step, held in children(value))
    return found
