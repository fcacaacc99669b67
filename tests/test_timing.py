"""The machine's time: waiting in a thread and in an event loop."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
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
    items = queue.Queue[str]()
    items.put("a")
    assert SYSTEM_TIME.get(items, time.monotonic() - 1) == "a"
    assert SYSTEM_TIME.get(items, time.monotonic() - 1) is None


@pytest.mark.parametrize("seconds", [None, 30.0])
def test_an_item_ends_the_wait(seconds: float | None) -> None:
    items = queue.Queue[str]()
    threading.Timer(0.02, items.put, ["a"]).start()
    deadline = None if seconds is None else time.monotonic() + seconds
    assert SYSTEM_TIME.get(items, deadline) == "a"


def test_the_deadline_ends_the_wait_and_not_before_it() -> None:
    deadline = time.monotonic() + 0.02
    assert SYSTEM_TIME.get(queue.Queue[str](), deadline) is None
    assert time.monotonic() >= deadline


def test_a_wait_without_a_deadline_looks_up_now_and_then_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "LONGEST_WAIT", 0.01)
    items = queue.Queue[str]()
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


INTERRUPTED = """
import queue, signal, sys, threading, time
from chronopype_mp.timing import SYSTEM_TIME

signal.signal(signal.SIGUSR1, lambda *_: None)
ended = threading.Event()

def wait():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    print("waiting", flush=True)
    SYSTEM_TIME.get(queue.Queue(), time.monotonic() + 0.2)
    ended.set()

# So that the signal goes to the thread that waits.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
threading.Thread(target=wait, daemon=True).start()
sys.exit(0 if ended.wait(10.0) else "it waits for ever")
"""


def test_a_wait_that_a_signal_interrupts_when_it_is_over_already_ends() -> None:
    """What becomes of the ticker when its process is stopped and continued, and gets a signal."""
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # longer than the wait
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        assert process.wait(20.0) == 0, process.stderr.read()
