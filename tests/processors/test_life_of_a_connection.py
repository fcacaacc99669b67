"""What a connection is made of: its one task, its body, its spawned tasks; how it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable

import pytest

from chronopype_mp import PermanentFailure, RetryAfter
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.error_text import repr_of
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors import NetworkStatus, StartWhen, hooks
from chronopype_mp.processors.hooks import HookStuck
from chronopype_mp.testing import ManualClock
from tests.processors.line import CONNECTED, NOT_CONNECTED, Line, hang
from tests.waiting import run, turns

TAKEN_DOWN = ["on_disconnected", "stop"]


class Bang(BaseException):
    """An exception that is no `Exception`."""


class Body(Line):
    """Has a body, which the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[asyncio.Future[None]] = []
        self.check_network_interval = 3600.0

    async def run_network(self) -> None:
        self.note("run")
        self.bodies.append(asyncio.get_running_loop().create_future())
        try:
            await self.bodies[-1]
        finally:
            self.note("run ended")

    @property
    def hooks(self) -> list[str]:
        """What was called, without the checks."""
        return [call for call in self.calls if call != "check"]

    async def until_running(self, times: int = 1) -> None:
        await self.until(lambda: self.calls.count("run") == times)
        await turns()
        assert self.wants_ticks


# One task


def test_start_run_and_stop_of_a_connection_run_in_one_task() -> None:
    class Noting(Body):
        def __init__(self) -> None:
            super().__init__()
            self.tasks: list[tuple[str, asyncio.Task[object] | None]] = []

        def note(self, call: str) -> None:
            self.tasks.append((call, asyncio.current_task()))
            super().note(call)

    async def scenario() -> None:
        line = Noting()
        line.start(1.0)
        await line.until_running()
        line.connection_lost()
        await line.until_running(2)
        await line.end()
        own = [task for call, task in line.tasks if call in ("start", "run", "run ended", "stop")]
        first, second = own[:4], own[4:]
        assert len(set(first)) == len(set(second)) == 1
        assert first[0] is not second[0]

    run(scenario())


def test_a_context_entered_in_start_network_can_be_left_in_stop_network() -> None:
    """A task group cancels the task that entered it when one of its tasks fails."""

    class Grouped(Line):
        group: asyncio.TaskGroup

        async def start_network(self) -> None:
            await super().start_network()
            self.group = await asyncio.TaskGroup().__aenter__()
            if self.calls.count("start") == 1:
                self.group.create_task(self.fail())

        async def fail(self) -> None:
            await self.until(lambda: self.wants_ticks)
            raise ConnectionResetError("gone")

        async def stop_network(self) -> None:
            await super().stop_network()
            await self.group.__aexit__(None, None, None)

    async def scenario() -> None:
        line = Grouped()
        line.check_network_interval = 3600.0
        line.start(1.0)
        await line.until_ready()
        line.board.notify()
        await line.until(lambda: line.calls.count("on_connected") == 2)
        assert "cancelled from within" in line.reasons[3]
        ((hook, error), (second, group)) = line.failures
        assert (hook, second) == ("run_network", "stop_network")
        assert "cancelled" in str(error)
        assert isinstance(group, ExceptionGroup)
        await line.end()

    run(scenario())


def test_what_start_network_sets_in_the_context_is_seen_by_all_that_follows() -> None:
    session: contextvars.ContextVar[int] = contextvars.ContextVar("session")

    class Contextual(Body):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, int]] = []

        def note(self, call: str) -> None:
            self.seen.append((call, session.get(0)))
            super().note(call)

        async def start_network(self) -> None:
            await super().start_network()
            session.set(self.calls.count("start"))

    async def scenario() -> None:
        line = Contextual()
        line.start(1.0)
        await line.until_running()
        assert line._tick_context is not None
        assert line._tick_context[session] == 1
        assert line.seen == [
            ("check", 0),
            ("start", 0),
            ("check", 1),
            ("on_connected", 1),
            ("run", 1),
        ]
        line.connection_lost()
        await line.until_running(2)
        assert line._tick_context[session] == 2
        assert line.seen[5:8] == [("run ended", 1), ("on_disconnected", 1), ("stop", 1)]
        assert line.seen[8:10] == [("check", 0), ("start", 0)]
        await line.end()
        assert line._tick_context is None

    run(scenario())


# The body


def test_the_body_runs_while_connected_and_has_ended_before_the_network_is_stopped() -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        line.check_now()
        await line.until(lambda: line.calls.count("check") == 3)
        await turns()
        await line.end()
        assert line.hooks == ["start", "on_connected", "run", "run ended", *TAKEN_DOWN]
        assert not line.failures

    run(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "run_network returned"),
        (ConnectionResetError("gone"), "run_network: ConnectionResetError: gone"),
        (KeyError("price"), "run_network: KeyError: 'price'"),
        (Bang("panic"), "run_network: Bang: panic"),
    ],
)
def test_the_end_of_the_body_is_the_loss_of_the_connection(
    error: BaseException | None, reason: str
) -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        if error is None:
            line.bodies[0].set_result(None)
        else:
            line.bodies[0].set_exception(error)
        await line.until_running(2)
        assert line.hooks[3:5] == ["run ended", "on_disconnected"]
        assert line.statuses[3:5] == [NetworkStatus.DISCONNECTING, NOT_CONNECTED]
        assert line.reasons[3:5] == [reason, reason]
        assert line.failures == ([] if error is None else [("run_network", error)])
        assert [report.expected for report in line.reports] == (
            [] if error is None else [isinstance(error, OSError)]
        )
        await line.end()

    run(scenario())


def test_a_body_that_is_cancelled_from_within_is_a_loss() -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        line.bodies[0].cancel()
        await line.until_running(2)
        ((hook, error),) = line.failures
        assert hook == "run_network"
        assert "cancelled from within" in str(error)
        await line.end()

    run(scenario())


def test_a_body_that_swallows_its_cancellation_is_stuck_and_the_network_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Body):
        stop_network_timeout = 0.05

        async def run_network(self) -> None:
            self.note("run")
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    self.note("swallowed")

    async def scenario() -> None:
        line = Stubborn()
        line.let_go = asyncio.Event()  # type: ignore[attr-defined]
        line.start(1.0)
        await line.until(lambda: "run" in line.calls)
        line.connection_lost("gone")
        await line.until(lambda: bool(line.stuck))
        assert line.stuck == ["run_network"]
        await line.until(lambda: "stop" in line.calls)
        assert line.calls.count("swallowed") == 2
        line.let_go.set()  # type: ignore[attr-defined]
        await line.end()

    run(scenario())


def test_a_body_that_is_left_behind_does_not_end_the_next_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Body):
        stop_network_timeout = 0.05
        let_go: asyncio.Event

        async def run_network(self) -> None:
            if self.bodies:
                return await super().run_network()
            self.bodies.append(asyncio.get_running_loop().create_future())
            self.note("run")
            while not self.let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.let_go.wait()
            raise KeyError("late")

    async def scenario() -> None:
        line = Stubborn()
        line.let_go = asyncio.Event()
        line.start(1.0)
        await line.until_running()
        line.connection_lost("gone")
        await line.until_running(2)
        line.let_go.set()
        await line.until(lambda: len(line.failures) == 2)
        assert [type(error) for _, error in line.failures] == [HookStuck, KeyError]
        await turns()
        assert line.wants_ticks
        await line.end()

    run(scenario())


# What ends a hook that somebody waits for in vain


class Awaited(Body):
    """One hook hangs, the check while connected; then it does ``ends``."""

    hook = "check"
    check_network_timeout = 5.0
    is_hanging = False

    def ends(self) -> None:
        """Decide what the cancelled hook does."""

    async def enter(self, hook: str) -> None:
        if hook != self.hook or self.is_hanging:
            return
        if hook == "check" and self.network_status is not CONNECTED:
            return
        self.is_hanging = True
        self.board.notify()
        try:
            await hang()
        finally:
            self.ends()

    async def check_network(self) -> NetworkStatus:
        await self.enter("check")
        return await super().check_network()

    async def start_network(self) -> None:
        await super().start_network()
        await self.enter("start")

    async def on_connected(self) -> None:  # type: ignore[override]
        super().on_connected()
        await self.enter("on_connected")


NAMES = {"check": "check_network", "start": "start_network", "on_connected": "on_connected"}
WAYS = [
    pytest.param(hook, by, id=f"{hook}-{by}")
    for hook in NAMES
    for by in ("loss", "stop", "reconnect", "timeout")
    if (hook, by) != ("start", "reconnect")  # an attempt to connect goes on
]
"""Which hook is cancelled, and because of what."""


async def cancelled(line: Awaited, hook: str, by: str) -> None:
    """Start a connection, and have that hook cancelled once it hangs."""
    line.hook = hook
    line._timing = clock = ManualClock()
    if by == "timeout":
        line.check_network_timeout = line.start_network_timeout = 0.05
    line.start(1.0)
    if hook == "check":
        await line.until_running()
        clock.advance(line.check_network_interval)
    await line.until(lambda: line.is_hanging)
    assert line._network is not None
    match by:
        case "loss":
            line.connection_lost("gone")
        case "stop":
            line.stop()
        case "reconnect":
            line._network.reconnect()


@pytest.mark.parametrize(("hook", "by"), WAYS)
def test_a_hook_that_swallows_its_cancellation_is_reported_whoever_has_cancelled_it(
    hook: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "CANCEL_GRACE", 0.02)

    class Stubborn(Awaited):
        async def enter(self, hook: str) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await super().enter(hook)
            if self.is_hanging and hook == self.hook and not self.stuck:
                await self.until(lambda: bool(self.stuck))

    async def scenario() -> None:
        line = Stubborn()
        await cancelled(line, hook, by)
        await line.until(lambda: bool(line.stuck))
        assert line.stuck == [NAMES[hook]]
        ((name, error),) = line.failures
        assert name == NAMES[hook]
        assert isinstance(error, HookStuck)
        await line.end()

    run(scenario())


@pytest.mark.parametrize("raised", [KeyError("no"), PermanentFailure("revoked"), Bang()], ids=repr)
@pytest.mark.parametrize(("hook", "by"), WAYS)
def test_what_a_cancelled_hook_raises_is_reported(
    hook: str, by: str, raised: BaseException
) -> None:
    class Raising(Awaited):
        def ends(self) -> None:
            raise raised

    async def scenario() -> None:
        line = Raising()
        await cancelled(line, hook, by)
        await line.until(lambda: bool(line.failures))
        ((name, error),) = line.failures
        assert name == NAMES[hook]
        assert (error.__cause__ if by == "timeout" else error) is raised
        await turns()
        is_permanent = isinstance(raised, PermanentFailure) and by in ("loss", "timeout")
        assert (line.errors[-1:] == [f"{NAMES[hook]}: PermanentFailure: revoked"]) is is_permanent
        await line.end()

    run(scenario())


@pytest.mark.parametrize("what", ["run_network", "task reader"])
@pytest.mark.parametrize("raised", [KeyError("price"), PermanentFailure("revoked")], ids=repr)
def test_what_the_body_or_a_task_raises_when_it_is_cancelled_counts(
    what: str, raised: BaseException
) -> None:
    class Raising(Body):
        async def start_network(self) -> None:
            await super().start_network()
            if what == "task reader":
                self.spawn(self.read(), "reader")

        async def read(self) -> None:
            try:
                await hang()
            finally:
                raise raised

        async def run_network(self) -> None:
            self.note("run")
            await (self.read() if what == "run_network" else hang())

    async def scenario() -> None:
        line = Raising()
        line._timing = ManualClock()
        line.start(1.0)
        await line.until_running()
        line.connection_lost("gone")
        await line.until(lambda: "stop" in line.calls)
        await turns()
        assert line.failures == [(what, raised)]
        is_permanent = isinstance(raised, PermanentFailure)
        assert line.network_status is (NetworkStatus.ERROR if is_permanent else NOT_CONNECTED)
        reason = f"{what}: PermanentFailure: revoked" if is_permanent else "gone"
        assert line.reasons[-1] == reason
        await line.end()

    run(scenario())


# Spawned tasks


class Spawning(Body):
    """Spawns a task in its start."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[asyncio.Future[None]] = []
        self.spawned: list[asyncio.Task[None]] = []

    async def read(self) -> None:
        self.results.append(asyncio.get_running_loop().create_future())
        try:
            await self.results[-1]
        finally:
            self.note("task ended")

    async def start_network(self) -> None:
        await super().start_network()
        self.spawned.append(self.spawn(self.read(), "reader"))


@pytest.mark.parametrize("error", [KeyError("price"), ConnectionResetError(), Bang()])
def test_what_a_spawned_task_raises_is_reported_and_the_loss_of_the_connection(
    error: BaseException,
) -> None:
    async def scenario() -> None:
        line = Spawning()
        line.start(1.0)
        await line.until_running()
        line.results[0].set_exception(error)
        await line.until_running(2)
        assert line.failures == [("task reader", error)]
        assert line.reasons[3].startswith(f"task reader: {type(error).__name__}")
        await line.end()

    run(scenario())


def test_a_spawned_task_may_return_or_be_cancelled_by_who_has_it() -> None:
    async def scenario() -> None:
        line = Spawning()
        line.start(1.0)
        await line.until_running()
        line.results[0].set_result(None)
        task = line.spawn(line.read(), "another")
        await turns()
        task.cancel()
        await turns()
        assert line.network_status is CONNECTED
        assert not line.failures
        await line.end()

    run(scenario())


def test_a_spawned_task_that_is_cancelled_from_within_does_not_end_unseen() -> None:
    async def scenario() -> None:
        line = Spawning()
        line.start(1.0)
        await line.until_running()
        line.results[0].cancel()
        await line.until_running(2)
        assert line.failures[0][0] == "task reader"
        await line.end()

    run(scenario())


def test_a_spawned_task_is_cancelled_before_the_network_is_stopped() -> None:
    async def scenario() -> None:
        line = Spawning()
        line.start(1.0)
        await line.until_running()
        await line.end()
        assert set(line.hooks[3:5]) == {"run ended", "task ended"}
        assert line.hooks[5:] == TAKEN_DOWN
        assert line.spawned[0].cancelled()

    run(scenario())


def test_a_spawned_task_that_fails_while_the_network_starts_makes_the_start_vain() -> None:
    class Hanging(Body):
        async def start_network(self) -> None:
            await super().start_network()
            if self.calls.count("start") == 1:
                self.spawn(self.fail(), "login")
                await hang()

        async def fail(self) -> None:
            raise KeyError("token")

    async def scenario() -> None:
        line = Hanging()
        line.start(1.0)
        await line.until_running()
        assert line.hooks == ["start", "stop", "start", "on_connected", "run"]
        assert line.failures[0][0] == "task login"
        await line.end()

    run(scenario())


def test_a_task_needs_a_connection_and_the_event_loop() -> None:
    async def scenario() -> None:
        line = Spawning()
        with pytest.raises(RuntimeError, match="needs a connection; call it in start_network"):
            line.spawn(line.read())
        with pytest.raises(TypeError, match=r"pass a coroutine"):
            line.spawn(line.read)  # type: ignore[arg-type]
        line.start(1.0)
        await line.until_running()
        with pytest.raises(TypeError, match=r"pass a coroutine"):
            line.spawn(line.read)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="read: must be called in the worker's event loop"):
            await asyncio.to_thread(lambda: line.spawn(line.read()))
        line.stop()
        with pytest.raises(RuntimeError, match="read: there is no connection"):
            line.spawn(line.read())
        await line.await_cleanup()

    run(scenario())


# Losses and checks from anywhere


def from_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("caller", [lambda call: call(), from_a_thread])
@pytest.mark.parametrize("during", ["check", "start", "on_connected", "run"])
def test_a_loss_is_never_forgotten_because_a_hook_runs(
    during: str, caller: Callable[[Callable[[], None]], None]
) -> None:
    class Losing(Body):
        lost = False

        def note(self, call: str) -> None:
            super().note(call)
            if call == during and not self.lost and (call != "check" or self.client is not None):
                self.lost = True
                caller(lambda: self.connection_lost("the reader saw it"))

    async def scenario() -> None:
        line = Losing()
        line.start(1.0)
        await line.until(lambda: line.calls.count("stop") == 1)
        await line.until_running(2 if during == "run" else 1)
        assert "the reader saw it" in line.reasons
        assert line.hooks.count("start") == 2
        assert not line.failures
        await line.end()

    run(scenario())


@pytest.mark.parametrize("during", TAKEN_DOWN)
def test_a_loss_while_the_connection_is_taken_down_changes_nothing(during: str) -> None:
    class Losing(Body):
        def note(self, call: str) -> None:
            super().note(call)
            if call == during:
                self.connection_lost("late")

    async def scenario() -> None:
        line = Losing()
        line.start(1.0)
        await line.until_running()
        line.connection_lost("first")
        await line.until_running(2)
        assert "late" not in line.reasons
        assert line.hooks.count("stop") == 1
        await line.end()

    run(scenario())


@pytest.mark.parametrize("cause", [RetryAfter(60.0), PermanentFailure("revoked")], ids=repr)
@pytest.mark.parametrize("during", [*TAKEN_DOWN, "wait"])
def test_a_loss_that_says_when_to_try_again_counts_at_any_time(
    during: str, cause: Exception
) -> None:
    class Losing(Body):
        network_backoff = BackoffPolicy(minimum=10.0, jitter=0.0)

        def note(self, call: str) -> None:
            super().note(call)
            if call == during:
                self.connection_lost(cause)

    async def scenario() -> None:
        line = Losing()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until_running()
        line.connection_lost("gone")
        await line.until(lambda: "stop" in line.calls)
        await turns()
        if during == "wait":
            line.connection_lost(cause)
            await turns()
        is_permanent = isinstance(cause, PermanentFailure)
        assert line.network_status is (NetworkStatus.ERROR if is_permanent else NOT_CONNECTED)
        clock.advance(59.9)
        await turns()
        assert line.hooks.count("start") == 1, "an attempt during the ban"
        clock.advance(0.2)
        await (turns() if is_permanent else line.until_running(2))
        assert line.hooks.count("start") == (1 if is_permanent else 2)
        await line.end()

    run(scenario())


def test_the_first_attempt_after_a_loss_waits_for_the_backoff_and_no_longer() -> None:
    class Slow(Body):
        network_backoff = BackoffPolicy(minimum=2.0, jitter=0.0)

        async def stop_network(self) -> None:
            await super().stop_network()
            self._timing.advance(1.5)  # type: ignore[attr-defined]

    async def scenario() -> None:
        line = Slow()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until_running()
        line.connection_lost()
        await line.until(lambda: line.network_status is NOT_CONNECTED)
        await turns()
        checks = line.calls.count("check")
        clock.advance(0.25)
        await turns()
        assert line.calls.count("check") == checks
        clock.advance(0.25)
        await line.until_running(2)
        await line.end()

    run(scenario())


def test_a_check_can_be_asked_for_from_anywhere_and_comes_after_the_one_under_way() -> None:
    class Asking(Body):
        def note(self, call: str) -> None:
            super().note(call)
            if self.calls.count("check") == 3 and call == "check":
                self.check_now()

    async def scenario() -> None:
        line = Asking()
        line.start(1.0)
        await line.until_running()
        await asyncio.to_thread(line.check_now)
        await line.until(lambda: line.calls.count("check") == 4)
        await turns()
        assert line.calls.count("check") == 4
        await line.end()

    run(scenario())


def test_before_the_start_and_after_the_end_there_is_nothing_to_lose() -> None:
    async def scenario() -> None:
        line = Body()
        line.connection_lost()
        line.check_now()
        line.heard()
        line.start(1.0)
        await line.until_running()
        await line.end()
        line.connection_lost()
        line.check_now()
        assert line.network_status is NetworkStatus.STOPPED

    run(scenario())


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (None, "connection_lost() was called"),
        ("closed", "closed"),
        (5, "5"),
        (LONG, None),
        (KeyError("price"), "connection_lost: KeyError: 'price'"),
        (ConnectionResetError("gone"), "connection_lost: ConnectionResetError: gone"),
    ],
)
def test_whatever_the_reason_the_loss_counts_and_an_exception_is_reported(
    reason: object, shown: str | None
) -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        line.connection_lost(reason)
        await line.until_running(2)
        assert line.reasons[3] == shown or (reason is LONG and len(line.reasons[3]) < 1100)
        is_error = isinstance(reason, Exception)
        assert line.failures == ([("connection_lost", reason)] if is_error else [])
        await line.end()

    run(scenario())


def test_an_error_that_is_reported_without_a_connection_does_not_wait_for_the_next_attempt() -> (
    None
):
    async def scenario() -> None:
        line = Body()
        line.network_backoff = BackoffPolicy(minimum=3600.0, maximum=3600.0)
        line.start(1.0)
        await line.until_running()
        line.connection_lost("gone")
        await line.until(lambda: line.network_status is NOT_CONNECTED and "stop" in line.calls)
        await turns()
        line.connection_lost(KeyError("late"))
        await line.until(lambda: bool(line.failures))
        await line.end()

    run(scenario())


@pytest.mark.parametrize("returned", [PermanentFailure("revoked"), RetryAfter, CONNECTED], ids=repr)
@pytest.mark.parametrize("hook", ["start_network", "on_connected", "run_network", "stop_network"])
def test_what_is_returned_instead_of_raised_is_an_error(hook: str, returned: object) -> None:
    async def returns(self: Body) -> object:
        return returned

    async def scenario() -> None:
        line = type("Returning", (Body,), {hook: returns})()
        line._timing = ManualClock()
        if hook == "start_network":
            line.check_network = checks_well
        line.start(1.0)
        if hook == "stop_network":
            await line.until_running()
            line.connection_lost("gone")
        await line.until(lambda: bool(line.failures))
        ((name, error),) = line.failures
        assert name == hook
        assert "which nobody looks at; raise" in str(error)
        await line.end()

    async def checks_well() -> NetworkStatus:
        return NOT_CONNECTED

    run(scenario())


class Leaving:
    """A client whose end fails as well."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        raise ConnectionResetError("already closed")


@pytest.mark.parametrize("is_context", [True, False])
@pytest.mark.parametrize("signal", [RetryAfter(9.0), PermanentFailure("revoked")], ids=repr)
def test_an_exception_that_replaces_a_signal_does_not_hide_it(
    signal: Exception, is_context: bool
) -> None:
    class Replaced(Body):
        async def start_network(self) -> None:
            if is_context:
                async with Leaving():
                    raise signal
            raise ClientError("no login") from signal

    async def scenario() -> None:
        line = Replaced()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until(lambda: bool(line.reports))
        await turns()
        is_permanent = isinstance(signal, PermanentFailure)
        assert line.network_status is (NetworkStatus.ERROR if is_permanent else NOT_CONNECTED)
        assert line.reports[0].next_attempt == (None if is_permanent else clock.wall() + 9.0)
        await line.end()

    run(scenario())


@pytest.mark.parametrize("signal", [RetryAfter(9.0), PermanentFailure("revoked")], ids=repr)
def test_a_tick_may_say_when_to_try_again(signal: Exception) -> None:
    async def scenario() -> None:
        line = Body()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until_running()
        assert line._network is not None
        line._network.tick_failed(signal, is_first=False)
        await line.until(lambda: "stop" in line.calls)
        await turns()
        is_permanent = isinstance(signal, PermanentFailure)
        assert line.network_status is (NetworkStatus.ERROR if is_permanent else NOT_CONNECTED)
        assert line.reasons[-1].startswith(f"async_tick: {type(signal).__name__}")
        clock.advance(9.0)
        await (turns() if is_permanent else line.until_running(2))
        assert line.calls.count("run") == (1 if is_permanent else 2)
        await line.end()

    run(scenario())


class Untellable(Exception):
    """Its attributes are of its own making, and raise."""

    def __str__(self) -> str:
        raise LookupError

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise LookupError

    @property
    def __context__(self) -> BaseException | None:  # type: ignore[override]
        raise LookupError


class Unsaid(RetryAfter):
    """Does not say when to try again."""

    def __init__(self) -> None:
        pass


class WithoutRepr:
    def __repr__(self) -> str:
        raise LookupError


@pytest.mark.parametrize("caller", [lambda call: call(), from_a_thread])
@pytest.mark.parametrize("reason", [Untellable, Unsaid, WithoutRepr])
def test_a_loss_is_not_forgotten_because_its_reason_cannot_be_printed(
    reason: type, caller: Callable[[Callable[[], None]], None]
) -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        caller(lambda: line.connection_lost(reason()))
        await line.until_running(2)
        assert any(f"{reason.__name__}, which cannot be printed" in each for each in line.reasons)
        await line.end()

    run(scenario())


@pytest.mark.parametrize("by", ["run_network", "spawn", "start_network"])
@pytest.mark.parametrize("error", [Untellable(), Unsaid(), GeneratorExit()], ids=repr_of)
def test_no_exception_is_too_odd_to_be_reported(error: BaseException, by: str) -> None:
    class Odd(Body):
        network_error_wait_time = 0.1
        failed = False

        async def fail(self, here: str) -> None:
            if here == by and not self.failed:
                self.failed = True
                raise error

        async def start_network(self) -> None:
            await super().start_network()
            if by == "spawn":
                self.spawn(self.fail("spawn"))
            await self.fail("start_network")

        async def run_network(self) -> None:
            await self.fail("run_network")
            await super().run_network()

    async def scenario() -> None:
        line = Odd()
        line.start(1.0)
        await line.until_running(1)
        await line.until(lambda: line.hooks.count("start") == 2)
        assert [type(each) for _, each in line.failures] == [type(error)]
        await line.end()

    run(scenario())


@pytest.mark.parametrize("kind", [PermanentFailure, ConnectionResetError])
def test_a_loss_may_be_reported_by_a_class_of_exceptions(kind: type[Exception]) -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        with pytest.raises(TypeError, match="seconds"):
            line.connection_lost(RetryAfter)
        assert line.wants_ticks
        line.connection_lost(kind)
        await line.until(lambda: line.calls.count("stop") == 1)
        await turns()
        assert f"connection_lost: {kind.__name__}" in line.reasons
        assert [type(error) for _, error in line.failures] == [kind]
        is_permanent = kind is PermanentFailure
        assert (line.network_status is NetworkStatus.ERROR) is is_permanent
        await line.end()

    run(scenario())


@pytest.mark.parametrize("call", ["connection_lost", "check_now", "heard"])
def test_the_owners_object_has_no_connection_to_report_on(call: str) -> None:
    line = Line()
    line._mirror = object()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=rf"Line\.{call}\(\) works in the worker only"):
        getattr(line, call)()


# When to try again


def failing_in(hook: str, error: BaseException) -> type[Body]:
    """Return a class whose hook fails at its first call."""

    class Failing(Body):
        def note(self, call: str) -> None:
            super().note(call)
            if call == hook and self.calls.count(call) == 1:
                raise error

    return Failing


HOOKS = ["check", "start", "on_connected", "run"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_retry_after_is_waited_for_exactly_and_shown(hook: str) -> None:
    async def scenario() -> None:
        line = failing_in(hook, RetryAfter(6, "too many requests"))()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until(lambda: bool(line.reports))
        await turns()
        (report,) = line.reports
        assert report.expected
        assert report.next_attempt == clock.wall() + 6.0
        assert line.network_status is NOT_CONNECTED
        assert line.reasons[-1].endswith("RetryAfter: retry after 6 s: too many requests")
        count = len(line.calls)
        clock.advance(5.99)
        line.check_network_interval = 0.1
        line.check_now()
        line.pause()
        line.resume()
        await turns()
        assert len(line.calls) == count, "an attempt during the ban"
        clock.advance(0.01)
        await line.until(lambda: line.network_status is CONNECTED)
        await line.end()

    run(scenario())


@pytest.mark.parametrize("hook", HOOKS)
def test_after_a_permanent_failure_nothing_is_tried_until_a_reconnect(hook: str) -> None:
    async def scenario() -> None:
        line = failing_in(hook, PermanentFailure("401 wrong key"))()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until(lambda: line.network_status is NetworkStatus.ERROR)
        await turns()
        assert line.calls[-1] == "stop"
        assert line.errors[0].endswith("PermanentFailure: 401 wrong key")
        assert line.reports[0].next_attempt is None
        count = len(line.calls)
        clock.advance(1e6)
        line.check_now()
        line.connection_lost("late")
        await turns()
        assert len(line.calls) == count
        assert line._network is not None
        line._network.reconnect()
        await line.until(lambda: line.network_status is CONNECTED)
        await line.end()

    run(scenario())


def test_a_loss_may_be_reported_as_a_ban_or_a_permanent_failure() -> None:
    async def scenario() -> None:
        line = Body()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until_running()
        line.connection_lost(RetryAfter(30.0))
        await line.until(lambda: line.network_status is NOT_CONNECTED)
        await turns()
        clock.advance(30.0)
        await line.until_running(2)
        line.connection_lost(PermanentFailure("revoked"))
        await line.until(lambda: line.network_status is NetworkStatus.ERROR)
        await line.end()

    run(scenario())


def test_a_permanent_failure_is_tried_again_after_its_time_if_there_is_one() -> None:
    class Again(failing_in("start", PermanentFailure("maintenance"))):  # type: ignore[misc]
        retry_permanent_after = 3600.0

    async def scenario() -> None:
        line = Again()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until(lambda: line.network_status is NetworkStatus.ERROR)
        await turns()
        clock.advance(3600.0)
        await line.until_running()
        await line.end()

    run(scenario())


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "6", None, True])
def test_a_retry_after_needs_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"RetryAfter\.seconds = .*number of seconds"):
        RetryAfter(seconds)


def test_a_reconnect_takes_the_connection_down_and_makes_it_again_at_once() -> None:
    class Patient(Body):
        network_backoff = BackoffPolicy(minimum=3600.0, maximum=3600.0)

    async def scenario() -> None:
        line = Patient()
        line.start(1.0)
        await line.until_running()
        assert line._network is not None
        line._network.reconnect()
        await line.until_running(2)
        assert line.reasons[3] == "reconnect requested"
        await line.end()

    run(scenario())


# Expected errors


class ClientError(Exception):
    """A client library's own error."""


def translated() -> None:
    try:
        raise ConnectionRefusedError("nobody there")
    except OSError as error:
        raise ClientError("cannot connect") from error


def translated_silently() -> None:
    try:
        raise ConnectionRefusedError("nobody there")
    except OSError:
        raise ClientError("cannot connect") from None


def mistaken() -> None:
    try:
        raise ConnectionRefusedError("nobody there")
    except OSError:
        {}["price"]


def own() -> None:
    raise ClientError("cannot connect")


LOST, BUG = ConnectionResetError("gone"), KeyError("price")
BAN, LONG_BAN = RetryAfter(5.0), RetryAfter(9.0)
REVOKED = PermanentFailure("revoked")


@pytest.mark.parametrize(
    ("errors", "decides", "status", "wait"),
    [
        ([LOST, LOST], LOST, NOT_CONNECTED, 0.01),
        ([LOST, BUG], BUG, NetworkStatus.ERROR, 60.0),
        ([BUG, BAN, LONG_BAN, LOST], LONG_BAN, NOT_CONNECTED, 9.0),
        ([BAN, REVOKED, BUG], REVOKED, NetworkStatus.ERROR, None),
    ],
)
@pytest.mark.parametrize("hook", ["start", "run", "task"])
def test_of_a_group_of_errors_the_gravest_decides(
    hook: str,
    errors: list[Exception],
    decides: Exception,
    status: NetworkStatus,
    wait: float | None,
) -> None:
    """Whether it comes from a task group in a task group, or is what a library made of one."""

    async def fail(error: Exception) -> None:
        raise error

    class Grouped(Body):
        def enters(self, call: str) -> bool:
            return call == hook and not self.failures

        async def several(self) -> None:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(fail(errors[0]))
                async with asyncio.TaskGroup() as inner:
                    for error in errors[1:]:
                        inner.create_task(fail(error))

        async def start_network(self) -> None:
            await super().start_network()
            if self.enters("task"):
                self.spawn(self.several(), "several")
            if self.enters("start"):
                await self.several()

        async def run_network(self) -> None:
            if self.enters("run"):
                await self.several()
            await super().run_network()

    async def scenario() -> None:
        line = Grouped()
        line._timing = ManualClock()
        line.start(1.0)
        await line.until(lambda: bool(line.reports))
        await turns()
        (report,) = line.reports
        assert isinstance(report.error, ExceptionGroup)
        assert report.expected is (BUG not in errors)
        assert type(decides).__name__ in line.reasons[-1]
        # A body or a task that fails is a loss, whatever it raised, unless it says when to retry.
        is_loss = hook != "start" and decides is BUG
        assert line.network_status is (NOT_CONNECTED if is_loss else status)
        if wait is None:
            assert report.next_attempt is None
        else:
            assert report.next_attempt is not None
            left = report.next_attempt - line._timing.wall()
            assert left == pytest.approx(0.01 if is_loss else wait)
        await line.end()

    run(scenario())


def made_of_a_group() -> None:
    raise ClientError("cannot connect") from ExceptionGroup("both", [LOST, TimeoutError()])


def made_of_a_worse_group() -> None:
    raise ClientError("cannot connect") from ExceptionGroup("both", [LOST, BUG])


@pytest.mark.parametrize("hook", ["check", "start"])
@pytest.mark.parametrize(
    ("fail", "is_expected"),
    [
        (translated, True),
        (translated_silently, True),
        (made_of_a_group, True),
        (made_of_a_worse_group, False),
        (mistaken, False),
        (own, False),
    ],
)
def test_an_error_that_networks_have_costs_a_backoff_and_no_traceback(
    fail: Callable[[], None], is_expected: bool, hook: str
) -> None:
    class Failing(Body):
        start_network_when = StartWhen.CONNECTED

        def note(self, call: str) -> None:
            super().note(call)
            if call == hook and self.calls.count(call) == 1:
                fail()

        async def check_network(self) -> NetworkStatus:
            self.note("check")
            return CONNECTED

    async def scenario() -> None:
        line = Failing()
        line._timing = ManualClock()
        line.start(1.0)
        await line.until(lambda: bool(line.reports))
        await turns()
        (report,) = line.reports
        assert report.expected is is_expected
        assert line.network_status is (NOT_CONNECTED if is_expected else NetworkStatus.ERROR)
        assert report.next_attempt is not None
        wait = report.next_attempt - line._timing.wall()
        assert wait == pytest.approx(0.01 if is_expected else 60.0)
        await line.end()

    run(scenario())


def test_a_processor_names_the_errors_that_its_client_has() -> None:
    class Named(failing_in("start", ClientError("cannot connect"))):  # type: ignore[misc]
        expected_errors = (ClientError,)

    async def scenario() -> None:
        line = Named()
        line.start(1.0)
        await line.until_running()
        assert line.reports[0].expected
        await line.end()

    run(scenario())


# Connections that do not hold, and silent ones


def test_a_server_that_accepts_and_drops_is_not_hammered() -> None:
    class Flapping(Body):
        network_backoff = BackoffPolicy(minimum=1.0, jitter=0.0)
        stable_after = 10.0

        async def run_network(self) -> None:
            self.note("run")
            self._timing.advance(self.holds)  # type: ignore[attr-defined]

    async def scenario() -> None:
        line = Flapping()
        line._timing = clock = ManualClock()
        line.holds = 0.5  # type: ignore[attr-defined]
        line.start(1.0)
        waits = []
        for times in range(1, 6):
            await line.until(lambda times=times: line.calls.count("stop") == times)
            await turns()
            assert line._network is not None
            due = line._network.connection.next_attempt
            assert due is not None
            waits.append(due - clock.monotonic())
            if times == 3:
                line.holds = 10.0  # type: ignore[attr-defined]
            clock.advance(waits[-1])
        assert waits == pytest.approx([1.0, 2.0, 4.0, 1.0, 1.0])
        await line.end()

    run(scenario())


def test_a_connection_that_is_silent_for_too_long_is_lost() -> None:
    class Silent(Body):
        stale_after = 30.0

    async def scenario() -> None:
        line = Silent()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until_running()
        clock.advance(20.0)
        await asyncio.to_thread(line.heard)
        clock.advance(20.0)
        await turns()
        assert line.network_status is CONNECTED
        clock.advance(10.0)
        await line.until(lambda: line.network_status is not CONNECTED)
        assert line.reasons[3] == "silent for 30 s"
        await line.end()

    run(scenario())


# Callbacks


def test_on_connected_and_on_disconnected_may_be_coroutine_functions() -> None:
    class Subscribing(Body):
        async def on_connected(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)  # yields
            self.note("subscribed")

        async def on_disconnected(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)  # yields
            self.note("unsubscribed")

    async def scenario() -> None:
        line = Subscribing()
        line.start(1.0)
        await line.until_running()
        await line.end()
        assert line.hooks == ["start", "subscribed", "run", "run ended", "unsubscribed", "stop"]

    run(scenario())


@pytest.mark.parametrize("hook", ["on_connected", "on_disconnected"])
def test_a_callback_that_hangs_is_bounded(hook: str) -> None:
    class Hanging(Body):
        start_network_timeout = 0.05
        stop_network_timeout = 0.05

    async def hanging() -> None:
        await hang()

    async def scenario() -> None:
        line = Hanging()
        works = getattr(line, hook)

        def once() -> Awaitable[None]:
            setattr(line, hook, works)
            return hanging()

        setattr(line, hook, once)
        line.start(1.0)
        if hook == "on_disconnected":
            await line.until_running()
            line.connection_lost()
        await line.until_running(1 if hook == "on_connected" else 2)
        assert [failed for failed, _ in line.failures] == [hook]
        await line.end()

    run(scenario())


def test_every_change_has_a_reason() -> None:
    async def scenario() -> None:
        line = Body()
        line.start(1.0)
        await line.until_running()
        await line.end()
        assert line.reasons == [
            "started",
            "attempt 1",
            "check_network() returned CONNECTED",
            "stop requested",
            "stopped",
        ]

    run(scenario())


# Settings


class Mixin:
    check_network_interval = 0.5


def test_class_attributes_work_like_the_other_settings() -> None:
    class Own(Line):
        check_network_interval = 0.01
        stale_after: float | None = 5

    class Mixed(Mixin, Line):  # type: ignore[misc]
        pass

    class Further(Own):
        pass

    assert (Own().check_network_interval, Own.check_network_interval) == (0.1, 0.1)
    assert (Further().check_network_interval, Further().stale_after) == (0.1, 5.0)
    assert (Mixed().check_network_interval, Line().check_network_interval) == (0.5, 10.0)
    line = Mixed()
    line.check_network_interval = 0.01
    assert line.check_network_interval == 0.1
    with pytest.raises(ConfigError, match=r"Mixed\.stale_after = -1: must be above 0"):
        line.stale_after = -1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("check_network_interval", "1"),
        ("check_network_timeout", None),
        ("network_error_wait_time", True),
        ("network_backoff", 5.0),
        ("expected_errors", ("OSError",)),
        ("expected_errors", BaseException),
        ("stable_after", -1.0),
        ("stale_after", 0.0),
        ("retry_permanent_after", "never"),
        ("start_network_timeout", 0),
        ("stop_network_timeout", None),
        ("start_network_when", "needed"),
    ],
)
def test_an_invalid_setting_is_refused_where_it_is_made(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Wrong\.{name} = "):
        type("Wrong", (Line,), {name: value})
    with pytest.raises(ConfigError, match=rf"Line\.{name} = "):
        setattr(Line(), name, value)


def test_a_setting_that_cannot_travel_is_refused_once_the_processor_is_in_a_clock() -> None:
    line = Line()
    line._mirror = object()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"Line\.expected_errors = .*before add_processor"):
        line.expected_errors = (KeyError,)


def test_a_backoff_that_is_set_at_run_time_takes_effect() -> None:
    class Slowing(failing_in("start", ConnectionRefusedError())):  # type: ignore[misc]
        def note(self, call: str) -> None:
            if call == "start":
                self.network_backoff = BackoffPolicy(minimum=50.0, jitter=0.0)
            super().note(call)

    async def scenario() -> None:
        line = Slowing()
        line._timing = clock = ManualClock()
        line.start(1.0)
        await line.until(lambda: bool(line.reports))
        assert line.reports[0].next_attempt == clock.wall() + 50.0
        await line.end()

    run(scenario())
