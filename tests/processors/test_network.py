"""NetworkProcessor, run in a real event loop without a host."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Awaitable, Callable

import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.connection_counters import ConnectionRecorder
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors import NetworkProcessor, NetworkStatus, StartWhen, hooks
from chronopype_mp.processors.base import HOSTED_BY
from chronopype_mp.processors.models import ProcessorState
from tests.processors.line import Line, hang
from tests.waiting import run, turns

CONNECTED = NetworkStatus.CONNECTED
NOT_CONNECTED = NetworkStatus.NOT_CONNECTED
SETTINGS = ["check_network_interval", "check_network_timeout", "network_error_wait_time"]


def test_a_check_that_looks_at_what_start_network_makes_connects() -> None:
    """Both examples of chronopype's page wait for each other for ever."""

    async def scenario() -> None:
        line = Line()
        assert line.network_status is NetworkStatus.STOPPED
        line.start(1.0)
        assert line.network_status is NOT_CONNECTED
        await line.until_ready()
        assert line.network_status is CONNECTED
        assert line.calls == ["check", "start", "check", "on_connected"]
        await line.end()
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


def test_with_start_when_connected_the_check_has_to_succeed_first() -> None:
    class Late(Line):
        start_network_when = StartWhen.CONNECTED

        async def check_network(self) -> NetworkStatus:
            self.note("check")
            return CONNECTED if self.calls.count("check") > 2 else NOT_CONNECTED

    async def scenario() -> None:
        line = Late()
        line.start(1.0)
        await line.until_ready()
        assert line.calls == ["check", "check", "check", "start", "on_connected"]
        await line.end()

    run(scenario())


def test_every_status_on_the_way_is_shown_in_order() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        await line.end()
        assert line.statuses[-4:] == [
            NetworkStatus.CONNECTING,
            CONNECTED,
            NetworkStatus.DISCONNECTING,
            NetworkStatus.STOPPED,
        ]
        assert line.errors == []

    run(scenario())


def test_ticks_are_wanted_only_once_the_network_is_connected_and_started() -> None:
    class Slow(Line):
        start_network_when = StartWhen.CONNECTED

        def __init__(self) -> None:
            super().__init__()
            self.let_go = asyncio.Event()

        async def check_network(self) -> NetworkStatus:
            return CONNECTED

        async def start_network(self) -> None:
            self.note("start")
            await self.let_go.wait()

    async def scenario() -> None:
        line = Slow()
        assert not line.wants_ticks
        line.start(1.0)
        await line.until(lambda: "start" in line.calls)
        assert line.network_status is CONNECTED
        assert not line.wants_ticks
        line.let_go.set()
        await turns()
        assert line.wants_ticks
        await line.end()
        assert not line.wants_ticks

    run(scenario())


def test_no_tick_comes_before_on_connected_has_run() -> None:
    class Asking(Line):
        wanted: bool | None = None

        def on_connected(self) -> None:
            super().on_connected()
            self.wanted = self.wants_ticks

    async def scenario() -> None:
        line = Asking()
        line.start(1.0)
        await line.until_ready()
        assert line.wanted is False
        assert line.wants_ticks
        await line.end()

    run(scenario())


def test_a_processor_may_ask_for_ticks_while_disconnected() -> None:
    class Always(Line):
        ticks_while_disconnected = True

    assert Always().wants_ticks
    assert not Line().wants_ticks


def test_a_start_network_that_raises_is_cleared_away_shown_and_tried_again() -> None:
    class Flaky(Line):
        async def start_network(self) -> None:
            await super().start_network()
            if self.calls.count("start") == 1:
                raise ConnectionRefusedError("nobody there")

    async def scenario() -> None:
        line = Flaky()
        line.start(1.0)
        await line.until_ready()
        assert line.calls == [
            *("check", "start", "stop"),
            *("check", "start", "check", "on_connected"),
        ]
        assert NetworkStatus.ERROR not in line.statuses
        assert "start_network: ConnectionRefusedError: nobody there" in line.reasons
        ((hook, error),) = line.failures
        assert hook == "start_network"
        assert isinstance(error, ConnectionRefusedError)
        await line.end()

    run(scenario())


def test_a_start_network_that_hangs_is_cancelled_at_its_timeout_and_tried_again() -> None:
    class Hanging(Line):
        start_network_timeout = 0.02

        async def start_network(self) -> None:
            await super().start_network()
            if self.calls.count("start") == 1:
                await hang()

    async def scenario() -> None:
        line = Hanging()
        line.start(1.0)
        await line.until_ready()
        assert line.calls[:4] == ["check", "start", "stop", "check"]
        assert line.errors == ["start_network: HookTimeout: timed out after 0.02s"]
        await line.end()

    run(scenario())


def test_an_on_connected_that_raises_never_leaves_the_status_at_connected() -> None:
    class Rude(Line):
        def on_connected(self) -> None:
            self.note("on_connected")
            if self.calls.count("on_connected") == 1:
                raise ValueError("no")

    async def scenario() -> None:
        line = Rude()
        line.start(1.0)
        await line.until(lambda: NetworkStatus.ERROR in line.statuses)
        assert line.calls[3:6] == ["on_connected", "on_disconnected", "stop"]
        assert line.errors == ["on_connected: ValueError: no"]
        await line.until_ready()
        await line.end()

    run(scenario())


def test_a_processor_without_its_logger_says_so_instead_of_dying_silently() -> None:
    class Loggerless(Line):
        @classmethod
        def logger(cls) -> logging.Logger:
            return NetworkProcessor.logger()

    async def scenario() -> None:
        line = Loggerless()
        line.start(1.0)
        await line.until(lambda: bool(line.errors))
        assert "must override the classmethod logger()" in line.errors[0]
        await line.end()

    run(scenario())


def test_a_processor_without_its_check_says_so() -> None:
    class Checkless(Line):
        async def check_network(self) -> NetworkStatus:
            return await NetworkProcessor.check_network(self)

    async def scenario() -> None:
        line = Checkless()
        line.start(1.0)
        await line.until(lambda: bool(line.errors))
        assert line.network_status is NetworkStatus.ERROR
        assert "Checkless must override check_network()" in line.errors[0]
        await line.end()

    run(scenario())


def test_a_check_that_returns_no_status_is_an_error_that_says_what_it_returned() -> None:
    class Wrong(Line):
        async def check_network(self) -> NetworkStatus:
            return True  # type: ignore[return-value]

    async def scenario() -> None:
        line = Wrong()
        line.start(1.0)
        await line.until(lambda: bool(line.errors))
        assert "Wrong.check_network() returned True" in line.errors[0]
        await line.end()

    run(scenario())


def test_a_check_that_returns_error_shows_error() -> None:
    class Broken(Line):
        async def check_network(self) -> NetworkStatus:
            return NetworkStatus.ERROR

    async def scenario() -> None:
        line = Broken()
        line.start(1.0)
        await line.until(lambda: bool(line.errors))
        assert line.network_status is NetworkStatus.ERROR
        assert line.errors[0] == "check_network() returned ERROR"
        await line.end()

    run(scenario())


def test_a_check_that_raises_waits_the_error_wait_and_then_goes_on() -> None:
    class Broken(Line):
        network_backoff = BackoffPolicy(minimum=100.0)

        async def check_network(self) -> NetworkStatus:
            if self.calls.count("check") < 2:
                self.note("check")
                raise LookupError("network down")
            return await super().check_network()

    async def scenario() -> None:
        line = Broken()
        line.network_error_wait_time = 0.1
        began = time.monotonic()
        line.start(1.0)
        await line.until_ready()
        assert time.monotonic() - began >= 0.1
        assert NetworkStatus.ERROR in line.statuses
        assert line.errors == ["check_network: LookupError: network down"]
        await line.end()

    run(scenario())


def test_a_check_that_hangs_counts_as_not_connected() -> None:
    class Hanging(Line):
        async def check_network(self) -> NetworkStatus:
            if self.calls.count("check") < 2:
                self.note("check")
                await hang()
            return await super().check_network()

    async def scenario() -> None:
        line = Hanging()
        line.check_network_timeout = 0.1
        line.start(1.0)
        await line.until_ready()
        assert line.errors == []
        assert [hook for hook, _ in line.failures] == ["check_network", "check_network"]
        await line.end()

    run(scenario())


def test_a_lost_connection_is_taken_down_in_order_and_made_again() -> None:
    async def scenario() -> None:
        line = Line()
        line.check_network_interval = 0.1
        line.start(1.0)
        await line.until_ready()
        line.calls.clear()
        line.client = None
        await line.until(lambda: "on_connected" in line.calls)
        assert line.calls == [
            *("check", "on_disconnected", "stop"),
            *("check", "start", "check", "on_connected"),
        ]
        await line.end()

    run(scenario())


def test_an_on_disconnected_that_raises_does_not_keep_stop_network_from_running() -> None:
    class Rude(Line):
        def on_disconnected(self) -> None:
            self.note("on_disconnected")
            raise ValueError("no")

    async def scenario() -> None:
        line = Rude()
        line.start(1.0)
        await line.until_ready()
        await line.end()
        assert line.calls[-2:] == ["on_disconnected", "stop"]
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


def test_a_stop_calls_on_disconnected_and_stop_network_exactly_once() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        line.calls.clear()
        line.stop()
        line.stop()
        await line.await_cleanup()
        line.stop()
        await line.await_cleanup()
        assert line.calls == ["on_disconnected", "stop"]
        assert line.network_status is NetworkStatus.STOPPED
        assert not line.state.is_active
        assert loops() == 0

    run(scenario())


def test_a_stop_during_a_hanging_start_network_cancels_it_and_clears_it_away() -> None:
    class Hanging(Line):
        async def start_network(self) -> None:
            self.note("start")
            try:
                await hang()
            finally:
                self.note("start cancelled")

    async def scenario() -> None:
        line = Hanging()
        line.start(1.0)
        await line.until(lambda: "start" in line.calls)
        await line.end()
        assert line.calls == ["check", "start", "start cancelled", "stop"]
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


def test_a_start_network_that_outlives_the_stop_does_not_bring_the_status_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Line):
        def __init__(self) -> None:
            super().__init__()
            self.let_go = asyncio.Event()

        async def start_network(self) -> None:
            self.note("start")
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    self.note("swallowed")
            self.client = object()
            self.note("start returned")

    async def scenario() -> None:
        line = Stubborn()
        line.start(1.0)
        await line.until(lambda: "start" in line.calls)
        await line.end()
        assert line.network_status is NetworkStatus.STOPPED
        line.let_go.set()
        await line.until(lambda: "start returned" in line.calls)
        await turns()
        assert line.network_status is NetworkStatus.STOPPED
        assert line.calls.count("check") == 1

    run(scenario())


@pytest.mark.parametrize("hook", ["check_network", "start_network"])
def test_a_hook_that_swallows_its_cancellation_is_reported_as_stuck(
    hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Line):
        start_network_timeout = 0.02

    async def scenario() -> None:
        line = Stubborn()
        line.check_network_timeout = 0.1
        let_go = asyncio.Event()

        async def stubborn() -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        setattr(line, hook, stubborn)
        line.start(1.0)
        await line.until(lambda: bool(line.stuck))
        assert line.stuck == [hook]
        let_go.set()
        await line.end()

    run(scenario())


def test_a_stop_network_that_hangs_is_cancelled_at_its_timeout() -> None:
    class Hanging(Line):
        stop_network_timeout = 0.02

        async def stop_network(self) -> None:
            self.note("stop")
            await hang()

    async def scenario() -> None:
        line = Hanging()
        line.start(1.0)
        await line.until_ready()
        await line.end()
        assert line.calls[-1] == "stop"
        assert line.failures[-1][0] == "stop_network"
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


def test_a_clean_up_can_be_given_up_and_is_no_wait_when_there_is_none() -> None:
    class Hanging(Line):
        stop_network_timeout = 3600.0

        async def stop_network(self) -> None:
            try:
                await hang()
            finally:
                self.note("given up")

    async def scenario() -> None:
        line = Hanging()
        await line.await_cleanup()
        line.start(1.0)
        await line.until_ready()
        line.stop()
        await line.await_cleanup(timeout=0.02)
        await line.until(lambda: "given up" in line.calls)
        await line.await_cleanup()

    run(scenario())


def loops() -> int:
    """Return how many network loops are running."""
    return sum(task.get_name().startswith("network loop") for task in asyncio.all_tasks())


def test_a_second_start_leaks_no_loop() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        line.start(2.0)
        assert loops() == 1
        await line.until_ready()
        line.start(3.0)
        assert loops() == 1
        assert line.calls.count("on_connected") == 1
        await line.end()
        assert loops() == 0

    run(scenario())


def test_it_can_be_started_again_after_a_stop() -> None:
    async def scenario() -> None:
        line = Line()
        for _ in range(2):
            line.calls.clear()
            line.start(1.0)
            await line.until_ready()
            await line.end()
            assert line.calls == [
                *("check", "start", "check", "on_connected"),
                *("on_disconnected", "stop"),
            ]

    run(scenario())


def test_a_stop_without_a_start_does_nothing() -> None:
    async def scenario() -> None:
        line = Line()
        await line.end()
        assert line.calls == []

    run(scenario())


def test_starting_outside_an_event_loop_is_refused() -> None:
    line = Line()
    with pytest.raises(RuntimeError, match="no running event loop"):
        line.start(1.0)


def test_a_changed_interval_shortens_the_wait_for_a_check_but_not_while_paused() -> None:
    async def scenario() -> None:
        line = Line()
        line.check_network_interval = 3600.0
        line.start(1.0)
        await line.until_ready()
        before = len(line.calls)
        line.check_network_interval = 1800.0
        line.check_network_interval = 1800.0
        await turns()
        assert len(line.calls) == before, "a check before it is due"
        line.check_network_interval = 0.1
        await line.until(lambda: len(line.calls) > before)
        line.check_network_interval = 1800.0
        await turns()
        line.pause()
        before = len(line.calls)
        line.check_network_interval = 0.1
        await turns()
        assert len(line.calls) == before, "a check while paused"
        assert line.network_status is CONNECTED
        line.resume()
        await line.until(lambda: len(line.calls) > before)
        assert line.calls[-1] == "check"
        await line.end()

    run(scenario())


def test_a_pause_right_after_the_start_holds_the_first_check() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        line.pause()
        await turns()
        line.check_network_interval = 5.0
        await turns()
        assert line.calls == []
        line.resume()
        await line.until_ready()
        await line.end()

    run(scenario())


def test_a_resume_ends_the_wait() -> None:
    async def scenario() -> None:
        line = Line()
        line.check_network_interval = 3600.0
        line.start(1.0)
        await line.until_ready()
        line.resume()
        await turns()
        assert line.calls[-1] == "on_connected", "what was not paused is not resumed"
        line.pause()
        line.resume()
        await line.until(lambda: line.calls[-1] == "check")
        await line.end()

    run(scenario())


def test_a_stop_while_paused_stops() -> None:
    async def scenario() -> None:
        line = Line()
        line.start(1.0)
        await line.until_ready()
        line.pause()
        await line.end()
        assert line.calls[-2:] == ["on_disconnected", "stop"]

    run(scenario())


def test_the_settings_have_chronopypes_defaults() -> None:
    line = Line()
    assert [getattr(line, name) for name in SETTINGS] == [10.0, 5.0, 60.0]
    assert math.isnan(line.last_connected_timestamp)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_never_below_a_tenth_of_a_second(name: str) -> None:
    line = Line()
    for value in (0.05, 0, -3):
        setattr(line, name, value)
        assert getattr(line, name) == 0.1
    setattr(line, name, 0.25)
    assert getattr(line, name) == 0.25


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True])
def test_a_setting_that_is_no_number_is_refused_by_name(name: str, value: float) -> None:
    line = Line()
    before = getattr(line, name)
    with pytest.raises(ConfigError, match=rf"Line\.{name}"):
        setattr(line, name, value)
    assert getattr(line, name) == before


def test_the_time_of_the_connection_is_kept_whatever_on_connected_does() -> None:
    class Silent(Line):
        def on_connected(self) -> None:
            """Does not call the method it overrides."""

    async def scenario() -> None:
        line = Silent()
        before = time.time()
        line.start(1.0)
        await line.until_ready()
        assert before <= line.last_connected_timestamp <= time.time()
        await line.end()

    run(scenario())


class Mirror:
    """The owner's side of a processor that runs elsewhere."""

    state = ProcessorState()
    network_status = NetworkStatus.DISCONNECTING
    last_connected_timestamp = 77.0

    def __init__(self) -> None:
        self.changed: list[tuple[str, float]] = []

    def network_setting_changed(self, name: str, value: float) -> None:
        self.changed.append((name, value))


def test_in_the_owners_process_the_worker_is_shown_and_settings_are_passed_on() -> None:
    line = Line()
    mirror = Mirror()
    line._mirror = mirror
    assert line.network_status is NetworkStatus.DISCONNECTING
    assert line.last_connected_timestamp == 77.0
    line.check_network_interval = 0.01
    assert mirror.changed == [("check_network_interval", 0.1)]
    line._mirror = None
    assert line.network_status is NetworkStatus.STOPPED


class Host:
    """The worker's side of a hosted processor."""

    state = ProcessorState()

    def __init__(self) -> None:
        self.network_settings: dict[str, float] = {}
        self.connections = ConnectionRecorder()


@pytest.mark.parametrize("name", SETTINGS)
def test_in_a_worker_a_setting_is_kept_by_the_host(name: str) -> None:
    line, host = Line(), Host()
    own = getattr(line, name)
    line._host = host
    setattr(line, name, 0.25)
    assert getattr(line, name) == 0.25
    assert host.network_settings == {name: 0.25}
    line._host = None
    assert getattr(line, name) == own


def test_a_processor_hosted_in_place_has_other_settings_inside_than_outside() -> None:
    line, mirror, host = Line(), Mirror(), Host()
    line._mirror, line._host, line._is_hosted_in_place = mirror, host, True

    def inside() -> None:
        HOSTED_BY.set(host)
        line.check_network_interval = 2.0
        assert line.check_network_interval == 2.0

    contextvars.copy_context().run(inside)
    assert line.check_network_interval == 10.0
    assert mirror.changed == []
    line.check_network_interval = 3.0
    assert mirror.changed == [("check_network_interval", 3.0)]
    assert host.network_settings == {"check_network_interval": 2.0}


def test_the_network_loop_follows_the_settings_of_its_host() -> None:
    """They reach an object that is hosted in place from inside only."""

    async def scenario() -> None:
        line, host = Line(), Host()
        line._host, line._is_hosted_in_place = host, True
        token = HOSTED_BY.set(host)
        line.check_network_interval = 3600.0
        line.start(1.0)
        await line.until_ready()
        HOSTED_BY.reset(token)
        before = len(line.calls)
        line.check_network_interval = 0.1
        await turns()
        assert len(line.calls) == before
        HOSTED_BY.set(host)
        line.check_network_interval = 0.1
        await line.until(lambda: len(line.calls) > before + 1)
        await line.end()

    run(scenario())


def test_a_hook_assigned_to_the_instance_is_the_one_that_is_called() -> None:
    async def scenario() -> None:
        line = Line()

        def replaced(name: str) -> Callable[[], Awaitable[None]]:
            async def hook() -> None:
                line.note(name)
                line.client = object()

            return hook

        line.start_network = replaced("my start")  # type: ignore[method-assign, assignment]
        line.start(1.0)
        await line.until_ready()
        assert "my start" in line.calls
        assert "start" not in line.calls
        await line.end()

    run(scenario())


class Interruption(BaseException):
    """An exception that is no `Exception`, and that cannot be printed."""

    def __str__(self) -> str:
        raise Interruption


@pytest.mark.parametrize("hook", ["check_network", "start_network", "on_connected"])
def test_whatever_a_hook_raises_is_reported_and_tried_again(hook: str) -> None:
    async def scenario() -> None:
        line = Line()
        line.network_error_wait_time = 0.1
        works = getattr(line, hook)

        def once() -> object:
            setattr(line, hook, works)
            raise Interruption

        setattr(line, hook, once)
        line.start(1.0)
        await line.until(lambda: bool(line.failures))
        await line.until_ready()
        ((failed, error),) = line.failures
        assert failed == hook
        assert isinstance(error, Interruption)
        await line.end()
        assert not line.ended

    run(scenario())


def test_the_end_of_the_network_loop_is_not_silent() -> None:
    class Desperate(Line):
        def on_connected(self) -> None:
            super().on_connected()
            for task in asyncio.all_tasks():
                if task.get_name().startswith("network loop"):
                    task.cancel()

    async def scenario() -> None:
        line = Desperate()
        line.start(1.0)
        await line.until(lambda: bool(line.ended))
        assert "cancelled" in str(line.ended[0])
        await line.end()
        assert len(line.ended) == 1

    run(scenario())
