"""A thread that runs calls one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["SerialThread"]

T = TypeVar("T")


class SerialThread:
    """Runs calls one after the other, all in one thread that lives until `close`.

    Unlike a ``ThreadPoolExecutor``, it can be closed within bounds, and a call that never returns
    does not keep the program from exiting.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a thread: something was submitted since the last `close`."""
        return self._thread is not None

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run a call after all earlier ones; its result or exception is the future's.

        Raises:
            RuntimeError: the system has no more threads.
        """
        if self._thread is None:
            calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            thread = threading.Thread(target=_run, args=(calls,), name=self._name, daemon=True)
            thread.start()
            self._calls, self._thread = calls, thread
        future: Future[T] = Future()
        self._calls.put(lambda: _complete(future, call, arguments))
        return future

    def close(self, timeout: float) -> bool:
        """End the thread after all earlier calls.

        Args:
            timeout: how long to wait for that, seconds. Calls still pending then run later.

        Returns:
            Whether the thread has ended.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._calls.put(None)
        thread.join(timeout)
        return not thread.is_alive()


def _run(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # or it would keep its result alive while the thread waits


def _complete(future: Future[T], call: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call(*arguments)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
