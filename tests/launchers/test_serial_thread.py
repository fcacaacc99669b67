"""The thread in which a launcher starts processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from chronopype_mp.launchers.serial_thread import SerialThread

SOON = 10.0
"""Seconds, more than anything here takes."""


@pytest.fixture
def thread() -> Iterator[SerialThread]:
    thread = SerialThread("tests")
    yield thread
    assert thread.close(SOON)


def test_calls_run_one_after_the_other_in_one_thread(thread: SerialThread) -> None:
    order: list[int] = []
    futures = [thread.submit(order.append, n) for n in range(100)]
    threads = {thread.submit(threading.get_ident).result(SOON) for _ in range(10)}
    assert [future.result(SOON) for future in futures] == [None] * 100
    assert order == list(range(100))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_call_raises_reaches_its_future_and_the_thread_goes_on(
    thread: SerialThread, error: BaseException
) -> None:
    first = thread.submit(threading.get_ident).result(SOON)
    assert thread.submit(fail, error).exception(SOON) is error
    assert thread.submit(threading.get_ident).result(SOON) == first


def test_a_call_that_was_cancelled_in_the_queue_never_runs(thread: SerialThread) -> None:
    let_go, ran = threading.Event(), threading.Event()
    busy = thread.submit(let_go.wait)
    waiting = thread.submit(ran.set)
    assert waiting.cancel()
    let_go.set()
    assert busy.result(SOON)
    assert thread.submit(ran.is_set).result(SOON) is False


def test_closing_waits_for_earlier_calls_and_no_longer_than_asked() -> None:
    thread, let_go, ran = SerialThread("tests"), threading.Event(), threading.Event()
    thread.submit(let_go.wait)
    last = thread.submit(ran.set)
    assert thread.is_open
    assert not thread.close(0.05)
    assert not thread.is_open
    let_go.set()
    last.result(SOON)
    assert ran.is_set()


def test_after_closing_a_new_thread_serves() -> None:
    thread = SerialThread("tests")
    assert thread.close(SOON)  # it has none yet
    assert thread.submit(int, "1").result(SOON) == 1
    assert thread.close(SOON)
    assert thread.submit(int, "2").result(SOON) == 2
    assert thread.close(SOON)
