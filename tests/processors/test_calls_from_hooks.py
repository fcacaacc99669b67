"""Every hook runs once for one cause, whatever a hook itself calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chronopype_mp.processors import NetworkStatus
from tests.processors.line import Line
from tests.waiting import run, turns

MAKE = ["start", "on_connected"]
TAKE_DOWN = ["on_disconnected", "stop"]
HOOKS = ["check", *MAKE, *TAKE_DOWN]


def stop(line: Line) -> None:
    line.stop()


def start(line: Line) -> None:
    line.start(2.0)


def pause(line: Line) -> None:
    """Pause it until the loop has turned a few times."""
    line.pause()
    asyncio.get_running_loop().call_later(0.01, line.resume)


def resume(line: Line) -> None:
    line.resume()


def start_again(line: Line) -> None:
    line.stop()
    line.start(2.0)


class Calling(Line):
    """Calls something in the ``nth`` call of a hook; async hooks await something after that."""

    def __init__(self, hook: str, call: Callable[[Line], None], nth: int = 1) -> None:
        super().__init__()
        self._hook_that_calls, self._call, self._nth = hook, call, nth
        self.ended_well: list[str] = []

    def note(self, call: str) -> None:
        super().note(call)
        if call == self._hook_that_calls and self.calls.count(call) == self._nth:
            self._call(self)

    async def check_network(self) -> NetworkStatus:
        status = await super().check_network()
        await turns()
        return status

    async def start_network(self) -> None:
        await super().start_network()
        await turns()

    async def stop_network(self) -> None:
        await super().stop_network()
        await turns()
        self.ended_well.append("stop")

    @property
    def hooks(self) -> list[str]:
        """What was called, without the checks: how many there are is a matter of time."""
        return [call for call in self.calls if call != "check"]

    def lose(self) -> None:
        """Lose the connection, and have that noticed at once."""
        self.client = None
        self.check_now()

    async def until_connected(self, times: int = 1) -> None:
        await self.until(lambda: self.hooks.count("on_connected") >= times)
        await turns()

    async def until_stopped(self) -> None:
        await self.until(lambda: self.network_status is NetworkStatus.STOPPED)
        await turns()


@pytest.mark.parametrize(
    ("hook", "hooks"),
    [
        ("check", ["stop"]),
        ("start", ["start", "stop"]),
        ("on_connected", [*MAKE, *TAKE_DOWN]),
        ("on_disconnected", [*MAKE, *TAKE_DOWN]),
        ("stop", [*MAKE, *TAKE_DOWN]),
    ],
)
def test_a_stop_called_by_a_hook_runs_what_is_left_once(hook: str, hooks: list[str]) -> None:
    async def scenario() -> None:
        line = Calling(hook, stop)
        line.start(1.0)
        if hook in TAKE_DOWN:
            await line.until_connected()
            line.lose()
        await line.until_stopped()
        assert line.hooks == hooks
        assert line.ended_well == ["stop"], "stop_network was cancelled"
        await line.end()
        assert line.hooks == hooks
        assert not line.failures
        assert not line.ended

    run(scenario())


def test_a_stop_called_by_stop_network_after_a_failed_start_runs_it_once() -> None:
    class Refused(Calling):
        async def start_network(self) -> None:
            await super().start_network()
            raise ConnectionRefusedError

    async def scenario() -> None:
        line = Refused("stop", stop)
        line.start(1.0)
        await line.until_stopped()
        assert line.calls == ["check", "start", "stop"]
        assert line.ended_well == ["stop"]

    run(scenario())


@pytest.mark.parametrize("call", [stop, pause, resume])
@pytest.mark.parametrize("hook", TAKE_DOWN)
def test_a_hook_of_the_end_may_call_anything(hook: str, call: Callable[[Line], None]) -> None:
    async def scenario() -> None:
        line = Calling(hook, call)
        line.start(1.0)
        await line.until_connected()
        await line.end()
        assert line.network_status is NetworkStatus.STOPPED
        assert line.hooks == [*MAKE, *TAKE_DOWN]
        assert line.ended_well == ["stop"]

    run(scenario())


@pytest.mark.parametrize("call", [start, pause, resume])
@pytest.mark.parametrize("hook", HOOKS)
def test_no_other_call_from_a_hook_makes_a_hook_run_twice(
    hook: str, call: Callable[[Line], None]
) -> None:
    async def scenario() -> None:
        line = Calling(hook, call)
        line.start(1.0)
        await line.until_connected()
        line.lose()
        await line.until_connected(times=2)
        await line.end()
        assert line.hooks == [*MAKE, *TAKE_DOWN, *MAKE, *TAKE_DOWN]
        assert line.ended_well == ["stop", "stop"]
        assert not line.failures

    run(scenario())


@pytest.mark.parametrize(
    ("hook", "before"),
    [
        ("check", ["stop"]),
        ("start", ["start", "stop"]),
        ("on_connected", [*MAKE, *TAKE_DOWN]),
        ("on_disconnected", [*MAKE, *TAKE_DOWN]),
        ("stop", [*MAKE, *TAKE_DOWN]),
    ],
)
def test_a_stop_and_a_start_called_by_a_hook_make_the_connection_anew(
    hook: str, before: list[str]
) -> None:
    """The new connection is made after the old one has been taken down, never beside it."""

    async def scenario() -> None:
        line = Calling(hook, start_again)
        line.start(1.0)
        times = 2 if before == [*MAKE, *TAKE_DOWN] else 1
        if hook in TAKE_DOWN:
            await line.until_connected()
            line.lose()
        await line.until_connected(times)
        assert line.hooks == [*before, *MAKE]
        await line.end()
        assert line.hooks == [*before, *MAKE, *TAKE_DOWN]
        assert NetworkStatus.STOPPED not in line.statuses[:-1]

    run(scenario())


def test_a_start_called_by_a_hook_of_the_end_makes_the_connection_anew() -> None:
    async def scenario() -> None:
        line = Calling("stop", start)
        line.start(1.0)
        await line.until_connected()
        await line.end()
        await line.until_connected(times=2)
        await line.end()
        assert line.hooks == [*MAKE, *TAKE_DOWN, *MAKE, *TAKE_DOWN]

    run(scenario())


def test_a_stop_from_outside_leaves_a_stop_network_under_way_to_end() -> None:
    class Slow(Calling):
        def __init__(self) -> None:
            super().__init__("", stop)
            self.let_go = asyncio.Event()

        async def stop_network(self) -> None:
            self.note("stop")
            await self.let_go.wait()
            self.ended_well.append("stop")

    async def scenario() -> None:
        line = Slow()
        line.start(1.0)
        await line.until_connected()
        line.lose()
        await line.until(lambda: "stop" in line.calls)
        line.stop()
        await turns()
        line.let_go.set()
        await line.await_cleanup()
        assert line.network_status is NetworkStatus.STOPPED
        assert line.hooks == [*MAKE, *TAKE_DOWN]
        assert line.ended_well == ["stop"]

    run(scenario())


def test_a_pause_after_a_stop_does_not_hold_it_up() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        line.stop()
        line.pause()
        await line.await_cleanup()
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


def test_a_pause_after_a_stop_and_a_start_holds_the_first_check() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        start_again(line)
        line.pause()
        await line.await_cleanup()
        await turns()
        assert line.calls[-2:] == TAKE_DOWN
        line.resume()
        await line.until_ready()
        await line.end()

    run(scenario())


def test_a_stopping_processor_wants_no_more_ticks() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        line.stop()
        assert not line.wants_ticks
        await line.await_cleanup()

    run(scenario())
