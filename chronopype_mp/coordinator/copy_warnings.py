"""Warnings about data of the owner's that a worker gets a copy of, so that neither sees the other.

A list that a tick appends to, and that the program reads in the end, stays empty: the worker has
its own. Only data that evidently is used on both sides is warned of. A cache of the worker's in a
global variable looks alike; hence a warning and no error.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from types import CoroutineType, FrameType, GeneratorType

from chronopype_mp.coordinator.refusals import INSTEAD
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.processors.code_reading import ClassCode, code_of

__all__ = ["copy_warnings"]

CHANNELS = (queue.Queue, asyncio.Queue, asyncio.Event, threading.Event, threading.Condition)
"""Types whose objects two parties share."""

CONTAINERS = (*CHANNELS, list, dict, set, bytearray, deque)
"""Types whose objects are changed in place."""

HINT = f"{INSTEAD}."


def copy_warnings(source: TickProcessor | ProcessorSpec) -> list[str]:
    """Return warnings about what a processor seems to share with the owner's code.

    Args:
        source: the processor, or the spec of one.
    """
    kind = source.target if isinstance(source, ProcessorSpec) else type(source)
    if not isinstance(kind, type):
        return []
    code = code_of(kind)
    found = list(dict.fromkeys(_of_variables(code)))
    values = source.options if isinstance(source, ProcessorSpec) else vars(source)
    for name in tuple(values):
        is_used = isinstance(values[name], CHANNELS) or (
            _is_container(values[name]) and code.changes_own(name)
        )
        if is_used and _is_held_outside(values, name):
            found.append(
                f"{kind.__name__}.{name}, which a variable of yours holds, too, is copied to the "
                "worker process: what either side does to it, the other does not see. " + HINT
            )
    return found


def _is_container(value: object) -> bool:
    return isinstance(value, CONTAINERS)


def _of_variables(code: ClassCode) -> Iterator[str]:
    for use in code.changes_outside():
        if _is_container(use.value) or isinstance(use.value, int | float | str | None):
            yield (
                f"{use.function} changes the variable {use.name!r} in the worker process, which "
                f"has its own; the one in this process stays as it is. {HINT}"
            )


def _is_held_outside(values: dict[str, object], name: str) -> bool:
    """Whether a variable of the main module or of a running coroutine holds a value, too."""
    if _references(values, name) == _references({"": object()}, ""):
        return False  # only the processor has it; saves the search
    main = vars(sys.modules["__main__"])
    return any(
        isinstance(holder, CoroutineType | GeneratorType | FrameType) or holder is main
        for holder in gc.get_referrers(values[name])
    )


def _references(values: dict[str, object], name: str) -> int:
    return sys.getrefcount(values[name])
