"""Sinks of the owner that raise: every other sink is called, and supervision goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronopype_mp import BackoffPolicy, Supervision, TickProcessor
from chronopype_mp.events import DeathReason, ProcessorFailed, WorkerDied, WorkerReady
from tests.system.clocks import Watched, closes, run
from tests.waiting import running

QUICK = Supervision(backoff=BackoffPolicy(minimum=0.01, maximum=0.05))


class Broken(Exception):
    """Raised by every sink."""


class Bizarre(BaseException):
    """No `Exception`: ends its worker."""


class BrokenHandler(logging.Handler):
    """Posts to a log server that is down."""

    calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        raise Broken


@pytest.fixture
def broken_handler() -> Iterator[BrokenHandler]:
    handler = BrokenHandler()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


class Troubled(TickProcessor):
    """Logs ``lines`` per tick, fails in its third tick, and ends its process in the fifth."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines = lines
        self.count = 0

    def tick(self, timestamp: float) -> None:
        self.count += 1
        for number in range(self.lines):
            logging.getLogger("tests.chat").warning("line %d", number)
        if self.count == 3:
            raise LookupError("the third")
        if self.count == 5:
            raise Bizarre("the fifth")


@pytest.mark.parametrize("launcher", ["forkserver", "spawn", "inline"])
def test_sinks_that_raise_hide_nothing_from_the_others_and_stop_no_supervision(
    launcher: str, tmp_path: Path, broken_handler: BrokenHandler
) -> None:
    called: list[str] = []

    def fail(*arguments: object) -> None:
        called.append("callback")
        raise Broken

    def fail_too(processor: object, error: BaseException) -> None:
        called.append(repr(error))
        raise Broken

    async def scenario() -> None:
        watched = Watched(
            launcher=launcher,
            max_retries=0,
            supervision=QUICK,
            error_callback=fail_too,
            state_dir=tmp_path / "state",
        )
        clock, events = watched.clock, watched.events
        clock.events.subscribe(fail)
        after: list[object] = []
        clock.events.subscribe(after.append)
        for publication in (
            clock.start_publication,
            clock.tick_publication,
            clock.stop_publication,
        ):
            clock.add_subscriber_with_callback(publication, fail)
        async with clock:
            # What an inline worker logs is logged in this process, and fails the tick that logs.
            lines = 0 if launcher == "inline" else 20
            handle = clock.add_processor(Troubled(lines), name="a")
            await handle.wait_ready()
            async with running(clock) as run_of_clock:
                await events.wait_for(ProcessorFailed, worker="a")
                for number in (1, 2):
                    death = await events.wait_for(WorkerDied, worker="a", count=number)
                    assert (death.reason, death.exitcode) == (DeathReason.EXITED, 1)
                    assert handle.last_failure == death
                    await events.wait_for(WorkerReady, worker="a", incarnation=number + 1)
                await watched.ticks(2)
                assert not run_of_clock.done()
        assert len(after) == len(events.events)
        assert any("the third" in text for text in called)
        assert any("the fifth" in text for text in called)
        assert broken_handler.calls > 2 * 4 * lines
        assert len(list((tmp_path / "state" / "a").iterdir())) == len(events.of(WorkerDied))
        assert closes(handle)

    run(scenario())
