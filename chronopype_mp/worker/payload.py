"""Makes a processor from its payload; builds the worker's main module if the payload has one.

The other end is `chronopype_mp.coordinator.payload`.
"""

from __future__ import annotations

import builtins
import collections
import importlib
import io
import linecache
import pickle
import sys
import types
from typing import Any

import dill

from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.processors.transfer import (
    CHILDS_MAIN,
    MAIN,
    Ending,
    Prelude,
    Statement,
    Values,
    lines_of,
    namespace,
    namespaces,
)

__all__ = ["PayloadError", "load"]


class PayloadError(Exception):
    """A payload cannot be loaded. No other attempt will succeed; ``__cause__`` says why."""


def load(payload: bytes, *, in_owner: bool = False) -> TickProcessor:
    """Return the processor in a payload, made here if the payload is its spec.

    Args:
        payload: by `chronopype_mp.coordinator.payload.pack`.
        in_owner: this process has packed it, so that its main module is there already.

    Raises:
        PayloadError: it cannot be loaded.
        Exception: the spec's target failed, or the system has no more memory or files.
    """
    try:
        loaded = _read(payload, in_owner)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise PayloadError from error
    if isinstance(loaded, ProcessorSpec):
        return loaded.build()
    assert isinstance(loaded, TickProcessor)
    return loaded


def _read(payload: bytes, in_owner: bool) -> object:
    stream = dill.Unpickler(io.BytesIO(payload))
    part: object = stream.load()
    if not isinstance(part, Prelude):
        return part
    _begin(part, in_owner)
    watched: dict[str, tuple[object, bytes]] = {}
    while not isinstance(part := stream.load(), Ending):
        if isinstance(part, Values):
            if part.namespace != MAIN or not in_owner:
                namespace(part.namespace).update(part.values)
                for name in part.watched:
                    watched[name] = part.values[name], pickle.dumps(part.values[name])
        elif not in_owner:
            assert isinstance(part, Statement)
            _execute(part)
    if not in_owner:
        _end(part, watched)
    return part.processor


def _begin(prelude: Prelude, in_owner: bool) -> None:
    for key, names in prelude.namespaces.items():
        if key != MAIN:
            namespaces[key] = {"__builtins__": builtins, **names}
        elif not in_owner:
            module = types.ModuleType(MAIN)
            module.__dict__.update(names, __builtins__=builtins)
            sys.modules[MAIN] = sys.modules[CHILDS_MAIN] = dill._dill._main_module = module
            sys.argv[:] = prelude.arguments
            for filename, text in prelude.sources.items():
                linecache.cache[filename] = (len(text), None, lines_of(text), filename)
    for name in prelude.modules:
        importlib.import_module(name)


def _execute(statement: Statement) -> None:
    """Execute a definition. Its lines have the numbers that they have in the source."""
    text = statement.text
    above = statement.lineno - 1
    if text[0] in " \t":  # it stands in another statement, such as `if`
        text = "if True:\n" + text
        above -= 1
    code = compile(
        "\n" * above + text, statement.filename, "exec", statement.flags, dont_inherit=True
    )
    exec(code, namespace(MAIN))


def _end(ending: Ending, watched: dict[str, tuple[object, bytes]]) -> None:
    for name, (value, state) in watched.items():
        if pickle.dumps(value) != state:
            raise RuntimeError(
                f"the definitions of the main module change its global {name!r} when they are "
                "executed again in the worker; put them into a module"
            )
    for name, contents in ending.contents.items():
        container: Any = namespace(MAIN)[name]
        if not isinstance(container, list | dict | set | collections.deque):
            container = vars(container)
        container.clear()
        if isinstance(container, list | collections.deque):
            container.extend(contents)
        else:
            container.update(contents)
    for owner, path in ending.removed:
        holder, name = _holder(owner, path)
        if name in vars(holder):
            delattr(holder, name)
    for owner, path, value in ending.attributes:
        _set(*_holder(owner, path), value)
    for owner, path in ending.expected:
        holder, name = _holder(owner, path)
        if not hasattr(holder, name):
            raise RuntimeError(
                f"{owner.__qualname__}.{path} was set after the definition of "
                f"{owner.__qualname__}, and cannot be sent to a worker process; set it in start()"
            )
    for owner, path, kind, function in ending.registered:
        registry = vars(owner)[path] if path else owner
        registry.register(*filter(None, (kind, function)))


def _holder(owner: Any, path: str) -> tuple[Any, str]:
    """Return the object that has the attribute at a path, and the attribute's name."""
    *steps, name = path.split(".")
    for step in steps:
        owner = getattr(owner, step)
    return owner, name


def _set(holder: Any, name: str, value: object) -> None:
    try:
        setattr(holder, name, value)
    except (AttributeError, TypeError):
        if getattr(holder, name, None) != value:  # some can be set only once
            raise
