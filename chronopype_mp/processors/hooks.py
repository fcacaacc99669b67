"""Awaits a user's coroutine with a timeout that it cannot evade."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

__all__ = [
    "CANCEL_GRACE",
    "HookCancelled",
    "HookInterrupted",
    "HookStuck",
    "HookTimeout",
    "bounded",
]

T = TypeVar("T")

CANCEL_GRACE = 1.0
"""Seconds that a cancelled hook has to end; then it counts as stuck."""


class HookTimeout(Exception):
    """A hook did not end within its timeout and was cancelled. Its cause is what it raised."""


class HookCancelled(Exception):
    """A hook ended as cancelled, but was not cancelled by `bounded`."""


class HookInterrupted(Exception):
    """A hook was cancelled because its result is no longer needed. Its cause is what it raised."""


class HookStuck(Exception):
    """A hook was cancelled and did not end within `CANCEL_GRACE`."""


async def bounded(
    hook: Awaitable[T], timeout: float | None, interrupt: asyncio.Future[None] | None = None
) -> T:
    """Await a hook in a task of its own, and return in time whatever it does.

    Cancelling this cancels the hook, and leaves it behind if it does not end within
    `CANCEL_GRACE`.

    Args:
        hook: what to await.
        timeout: seconds, or None for no limit.
        interrupt: cancels the hook once it is done.

    Returns:
        What the hook returned.

    Raises:
        HookTimeout: it took too long and was cancelled.
        HookInterrupted: it was cancelled because of ``interrupt``.
        HookCancelled: it ended as cancelled, but was not cancelled here.
        HookStuck: it was cancelled here and swallowed that; it goes on in the background.
        BaseException: what the hook raised, a TimeoutError of its own included.
    """
    task = asyncio.ensure_future(hook)
    waited: set[asyncio.Future[Any]] = {task} if interrupt is None else {task, interrupt}
    try:
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task.cancelled():
            raise HookCancelled("the hook was cancelled from within")
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE)
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE)
        task.add_done_callback(_retrieve)
        raise
    if not task.done():
        task.add_done_callback(_retrieve)
        raise HookStuck(f"did not end {CANCEL_GRACE:g} s after it was cancelled")
    raised = None if task.cancelled() else task.exception()
    if interrupt is not None and interrupt.done():
        raise HookInterrupted from raised
    raise HookTimeout(f"timed out after {timeout:g}s") from raised


def _retrieve(task: asyncio.Future[T]) -> None:
    """Mark an exception raised during cancellation as retrieved; nobody needs it."""
    if task.done() and not task.cancelled():
        task.exception()
