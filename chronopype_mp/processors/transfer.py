"""What the two ends of a payload share. The coordinator writes payloads, workers read them.

A payload is one pickle. If the processor reaches code of the main module, it is a stream of pickles
with a common memo, so that an object which appears in several of them stays one object::

    Prelude ─▶ Values ─▶ (Statement | Values) … ─▶ Values … ─▶ Ending

`chronopype_mp.coordinator.payload` writes the stream, `chronopype_mp.worker.payload` follows it.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "CHILDS_MAIN",
    "MAIN",
    "Ending",
    "Prelude",
    "Statement",
    "Values",
    "cached",
    "imported_name",
    "item",
    "lines_of",
    "make_enum",
    "namespace",
    "namespaces",
    "set_attributes",
    "type_variable",
]

MAIN = "__main__"
"""The key of the main module's namespace."""

CHILDS_MAIN = "__mp_main__"
"""The other name of the main module, in which children of a worker look for its classes."""

namespaces: dict[str, dict[str, Any]] = {}
"""In a worker: the namespaces of code that belongs to no module, by key."""


def lines_of(text: str) -> list[str]:
    """Return the lines of source, as Python counts them.

    `str.splitlines` also ends lines at form feeds and at other characters.
    """
    return list(io.StringIO(text, newline=None))


class Prelude(NamedTuple):
    """How the namespaces begin.

    Attributes:
        namespaces: their first names, such as ``__name__`` and ``__file__``, by key.
        arguments: ``sys.argv``.
        sources: texts for `linecache` that are not in a file, by file name.
        modules: submodules that the code uses by the names of their packages.
    """

    namespaces: dict[str, dict[str, Any]]
    arguments: list[str]
    sources: dict[str, str]
    modules: tuple[str, ...]


class Statement(NamedTuple):
    """A definition of the main module, to be executed there.

    Attributes:
        filename: of the source.
        lineno: where ``text`` begins in it, from 1.
        text: the source of the statement.
        flags: of the compiler.
    """

    filename: str
    lineno: int
    text: str
    flags: int


class Values(NamedTuple):
    """Values to be put under their names.

    Attributes:
        watched: names of objects that the following definitions use, and must not change.
    """

    namespace: str
    values: dict[str, Any]
    watched: tuple[str, ...] = ()


class Ending(NamedTuple):
    """What is restored after all definitions, and the processor.

    Attributes:
        contents: what lists, dicts and sets of the main module hold that definitions may have
            changed, and what imported objects hold.
        removed: a class, and the path to an attribute that it does not have any more.
        attributes: an object, the path to an attribute, and its value.
        expected: an object, and the path to an attribute that it must have.
        registered: a class or a function, the path to what registers in it, the type that is
            registered, and the function for it; None with an abstract base class.
        processor: the processor, or the spec of one.
    """

    contents: dict[str, Any]
    removed: list[tuple[Any, str]]
    attributes: list[tuple[Any, str, Any]]
    expected: list[tuple[Any, str]]
    registered: list[tuple[Any, str, type, Any]]
    processor: Any


# What pickles call by name


def namespace(key: str) -> dict[str, Any]:
    """Return the namespace with a key."""
    return sys.modules[MAIN].__dict__ if key == MAIN else namespaces[key]


def item(key: str, name: str) -> Any:
    """Return what has a name in a namespace."""
    return namespace(key)[name]


def imported_name(module: str, name: str) -> Any:
    """Return what ``from module import name`` binds."""
    found = __import__(module, fromlist=[name])
    return getattr(found, name)


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return a function with an empty `functools.lru_cache`."""
    return functools.lru_cache(maxsize, typed)(function)


def type_variable(
    kind: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Return a type variable."""
    return kind(*arguments, **options)


def make_enum(
    name: str, bases: tuple[type, ...], module: str, qualname: str, members: dict[str, Any]
) -> type:
    """Return an enum that has no name by which it could be found, without its methods."""
    kind: Any = type(bases[-1])
    space = kind.__prepare__(name, bases)
    for member, value in members.items():
        space[member] = value
    space["__module__"] = module
    space["__qualname__"] = qualname
    made: type = kind(name, bases, space)
    return made


def set_attributes(kind: type, attributes: dict[str, Any]) -> None:
    """Set an enum's methods. They may refer to the enum, so it must exist first."""
    for name, value in attributes.items():
        setattr(kind, name, value)
