"""The machine's time: waiting in a thread and in an event loop."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from chronopype_mp import timing
from chronopype_mp.timing import SYSTEM_TIME
from tests.waiting import run


def test_the_clocks_are_the_machines() -> None:
    assert time.monotonic() <= SYSTEM_TIME.monotonic() <= time.monotonic()
    assert abs(SYSTEM_TIME.wall() - time.time()) < 60


def test_an_item_that_is_there_is_got_even_when_the_deadline_has_come() -> None:
    items = queue.SimpleQueue[str]()
    items.put("a")
    assert SYSTEM_TIME.get(items, time.monotonic() - 1) == "a"
    assert SYSTEM_TIME.get(items, time.monotonic() - 1) is None


@pytest.mark.parametrize("seconds", [None, 30.0])
def test_an_item_ends_the_wait(seconds: float | None) -> None:
    items = queue.SimpleQueue[str]()
    threading.Timer(0.02, items.put, ["a"]).start()
    deadline = None if seconds is None else time.monotonic() + seconds
    assert SYSTEM_TIME.get(items, deadline) == "a"


def test_the_deadline_ends_the_wait_and_not_before_it() -> None:
    deadline = time.monotonic() + 0.02
    assert SYSTEM_TIME.get(queue.SimpleQueue[str](), deadline) is None
    assert time.monotonic() >= deadline


def test_a_wait_without_a_deadline_looks_up_now_and_then_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "LONGEST_WAIT", 0.01)
    items = queue.SimpleQueue[str]()
    threading.Timer(0.05, items.put, ["a"]).start()
    assert SYSTEM_TIME.get(items, None) == "a"


def test_a_sleep_ends_at_its_deadline() -> None:
    async def scenario() -> None:
        deadline = time.monotonic() + 0.02
        await SYSTEM_TIME.sleep_until(deadline)
        # The loop's clock may be a resolution ahead of its own deadline.
        assert time.monotonic() >= deadline - 0.001
        await SYSTEM_TIME.sleep_until(time.monotonic() - 100)

    run(scenario())
