"""The calls of one process: a few are sent, the others wait, and every one ends."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.switchboard import CallQueue
from chronopype_mp.core.call_outcome import IN_FLIGHT, answered, raised
from chronopype_mp.core.messages import Call, CallDone, Downlink, Outcome
from tests.boots import boot_of_a
from tests.waiting import run, turns

BOOT = boot_of_a()


class Worker:
    """What has been sent to a worker; it answers when told to. Made in an event loop."""

    def __init__(self) -> None:
        self.sent: list[Call] = []
        self.queue = CallQueue("a", self._take, Guard())

    def _take(self, command: Downlink) -> None:
        self.sent.append(cast(Call, command))

    def call(self, number: int, timeout: float = 10.0) -> asyncio.Task[Outcome]:
        return asyncio.create_task(self.queue.call(f"m{number}", b"", timeout))

    def answer(self, place: int, outcome: Outcome | None = None) -> None:
        done = answered("a", "m", place) if outcome is None else outcome
        self.queue.take(BOOT.report(CallDone, call=self.sent[place].call, outcome=done))

    @property
    def methods(self) -> list[str]:
        return [call.method for call in self.sent]


def test_a_few_calls_are_sent_and_each_answer_sends_the_next() -> None:
    async def scenario() -> None:
        worker = Worker()
        calls = [worker.call(number) for number in range(IN_FLIGHT + 2)]
        await turns()
        assert worker.methods == [f"m{number}" for number in range(IN_FLIGHT)]
        worker.answer(3)
        worker.answer(3)  # a second time
        assert worker.methods[IN_FLIGHT:] == [f"m{IN_FLIGHT}"]
        assert await calls[3] == answered("a", "m", 3)
        worker.queue.end()
        ends = [await call for call in calls]
        assert [end.error for end in ends].count("CallLostError") == IN_FLIGHT
        assert ends[-1].error == "WorkerUnavailableError"

    run(scenario())


def test_a_call_that_never_was_sent_says_that_it_did_not_run() -> None:
    async def scenario() -> None:
        worker = Worker()
        calls = [worker.call(number, 0.02) for number in range(IN_FLIGHT + 1)]
        ends = [await call for call in calls]
        assert {end.error for end in ends} == {"CallTimeoutError"}
        assert "no answer within 0.02 s; the method may have run" in ends[0].message
        assert "16 earlier calls were not answered within 0.02 s" in ends[-1].message

    run(scenario())


def test_a_call_that_is_given_up_keeps_its_place_until_it_is_answered_or_overdue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        worker = Worker()
        calls = [worker.call(number) for number in range(IN_FLIGHT + 2)]
        await turns()
        for call in (*calls[:3], calls[IN_FLIGHT]):
            call.cancel()
        await asyncio.wait(calls[:3])
        assert len(worker.sent) == IN_FLIGHT
        worker.answer(0)
        assert worker.methods[IN_FLIGHT:] == [f"m{IN_FLIGHT + 1}"]  # not the one given up
        monkeypatch.setattr("chronopype_mp.coordinator.switchboard.OVERDUE", -100.0)
        later = worker.call(99)
        await turns()
        assert worker.methods[-1] == "m99"
        worker.queue.end()
        assert (await later).error == "CallLostError"

    run(scenario())


def test_what_a_method_raises_after_its_caller_has_given_up_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        worker = Worker()
        call = worker.call(1)
        await turns()
        call.cancel()
        await asyncio.wait({call})
        with caplog.at_level(logging.WARNING):
            worker.answer(0, raised(KeyError("lost")))

    run(scenario())
    (message,) = caplog.messages
    assert message.startswith("worker 'a': call of 'm1' raised KeyError after its caller had given")
