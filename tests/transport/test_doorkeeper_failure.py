"""A doorkeeper that fails: its owner learns of it, and the hub can still be closed."""

from __future__ import annotations

import queue

import pytest

from chronopype_mp.transport import doorkeeper
from chronopype_mp.transport.zeromq import ZmqHub

BOUND = 10.0
"""Seconds after which the thread counts as hung."""


def test_the_error_that_ends_the_doorkeeper_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError("no more descriptors to look with")

    def fail() -> int:
        raise error

    monkeypatch.setattr(doorkeeper, "spare_descriptors", fail)
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    hub = ZmqHub()
    try:
        hub.watch_threads(failures.put)
        assert failures.get(timeout=BOUND) is error
        hub.watch_threads(failures.put)
        assert failures.get(timeout=BOUND) is error, "whoever asks later learns of it, too"
    finally:
        hub.close_publisher()
        hub.close()
