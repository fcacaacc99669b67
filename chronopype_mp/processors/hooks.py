"""Running a user's coroutine within a bound that it cannot escape."""

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
"""Seconds that a cancelled hook has to end before it counts as stuck."""


class HookTimeout(Exception):
    """A hook did not end within its timeout and was cancelled."""


class HookCancelled(Exception):
    """A hook awaited something that was cancelled, and let that pass."""


class HookInterrupted(Exception):
    """A hook was cancelled because its result is no longer needed."""


class HookStuck(Exception):
    """A hook did not end within its timeout, and swallowed its cancellation too."""


async def bounded(
    hook: Awaitable[T], timeout: float | None, interrupt: asyncio.Future[None] | None = None
) -> T:
    """Await a hook in a task of its own; whatever it does, return in time.

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
        HookInterrupted: it was cancelled because of ``interrupt``. It is left behind if it does not
            end within `CANCEL_GRACE`.
        HookCancelled: it ended as cancelled, but was not cancelled here.
        HookStuck: it took too long and swallowed its cancellation; it goes on in the background.
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
    task.add_done_callback(_retrieve)
    if interrupt is not None and interrupt.done():
        raise HookInterrupted
    if not task.done():
        raise HookStuck(f"did not end {CANCEL_GRACE:g} s after it was cancelled")
    raise HookTimeout(f"timed out after {timeout:g}s")


def _retrieve(task: asyncio.Future[T]) -> None:
    """Mark the exception as retrieved: what a hook raised while it was cancelled is of no use."""
    if task.done() and not task.cancelled():
        task.exception()
