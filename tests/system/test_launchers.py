"""One contract, every launcher."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import (
    BackoffPolicy,
    ClockError,
    ConfigError,
    NetworkStatus,
    ProcessorError,
    ProcessorSpec,
    ProcessorTimeoutError,
    RealtimeClock,
    Supervision,
    TickProcessor,
    TransferError,
    WorkerStatus,
)
from chronopype_mp.events import NetworkChanged, ProcessorFailed, WorkerDied, WorkerReady
from chronopype_mp.launchers import ForkserverLauncher, InlineLauncher, Launcher, SpawnLauncher
from chronopype_mp.transport.zeromq import ZmqHub
from tests.system.clocks import SCENARIO_TIMEOUT, Watched, closes, eventually, run
from tests.system.processors import Network, Scribe, ran, ticks_in

QUICK = Supervision(backoff=BackoffPolicy(minimum=0.01, maximum=0.05))

Scenario = Callable[[str, Path], Any]


class OverTcp(ForkserverLauncher):
    """A forkserver's launcher whose workers may be anywhere: there is no directory to share."""

    def make_hub(self, queued: int) -> ZmqHub:
        any_port = "tcp://127.0.0.1:*"
        return ZmqHub((any_port, any_port, any_port, any_port, any_port), queued=queued)


@pytest.fixture
def launcher(kind: str) -> str | Launcher:
    return OverTcp() if kind == "forkserver over tcp" else kind


every_launcher = pytest.mark.parametrize(
    "kind", ["forkserver", "forkserver over tcp", "spawn", "inline"]
)


@every_launcher
@pytest.mark.quiet
def test_a_worker_runs_every_tick_from_ready_to_the_end(
    kind: str, launcher: str | Launcher, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        async with watched.clock as clock:
            handle = clock.add_processor(Scribe(tmp_path / "ticks"))
            await handle.wait_ready()
            assert (handle.pid == os.getpid()) == (kind == "inline")
            await watched.run_for(1.0)
        assert ticks_in(tmp_path / "ticks") == watched.published
        assert handle.statistics().run == handle.state.total_ticks == len(watched.published)
        assert handle.status is WorkerStatus.STOPPED
        assert handle.pid is None
        assert closes(handle)

    run(scenario())


class Fails(TickProcessor):
    """Fails in every tick."""

    def tick(self, timestamp: float) -> None:
        raise LookupError(f"nothing at {timestamp}")


@every_launcher
def test_a_failing_tick_is_recorded_reported_and_stops_nobody(
    launcher: str | Launcher, tmp_path: Path
) -> None:
    async def scenario() -> None:
        failures: list[tuple[object, BaseException]] = []
        watched = Watched(
            launcher=launcher,
            max_retries=0,
            error_callback=lambda processor, error: failures.append((processor, error)),
        )
        fails = Fails()
        async with watched.clock as clock:
            neighbour = clock.add_processor(Scribe(tmp_path / "ticks"))
            await neighbour.wait_ready()
            handle = clock.add_processor(fails)
            await handle.wait_ready()
            await watched.run_for(0.5)
        assert ran(ticks_in(tmp_path / "ticks"), watched.published)
        state = fails.state
        assert state.error_count == handle.statistics().run >= 5
        assert state.last_error == f"nothing at {watched.published[-1]}"
        events = watched.events.of(ProcessorFailed)
        assert len(events) == len(failures) == state.error_count
        assert all(processor is fails for processor, _ in failures)
        assert handle.restarts == 0
        error = failures[0][1]
        assert isinstance(error, LookupError)
        assert isinstance(error, ProcessorError)
        assert error.type_name == type(error).__name__ == "LookupError"
        assert "in tick" in error.traceback
        assert str(error).startswith("LookupError: nothing at ")
        assert "Traceback (most recent call last)" in str(error)

    run(scenario())


@every_launcher
def test_with_raise_the_first_failure_ends_the_run(launcher: str | Launcher) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher, max_retries=0, on_error="raise")
        async with watched.clock as clock:
            clock.add_processor(Fails())
            with pytest.raises(LookupError, match="nothing at"):
                await watched.run_for(30.0)
            # The clock stays in its context and can be run again.
            with pytest.raises(LookupError, match="nothing at"):
                await watched.run_for(30.0)

    run(scenario())


class Hangs(TickProcessor):
    """Never ends a tick."""

    async def async_tick(self, timestamp: float) -> None:
        await asyncio.Event().wait()


@every_launcher
def test_a_tick_that_takes_too_long_is_a_timeout(launcher: str | Launcher) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher, max_retries=0, on_error="raise", processor_timeout=0.2)
        async with watched.clock as clock:
            clock.add_processor(Hangs())
            with pytest.raises(ProcessorTimeoutError, match=r"timed out after 0\.2s"):
                await watched.run_for(30.0)

    run(scenario())


class CannotStart(TickProcessor):
    """Raises in start."""

    def start(self, timestamp: float) -> None:
        raise OSError("no such device")


@every_launcher
def test_with_raise_a_failing_start_fails_the_entry_and_stops_all(
    launcher: str | Launcher,
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher, on_error="raise")
        good = watched.clock.add_processor(TickProcessor())
        watched.clock.add_processor(CannotStart(), name="bad")
        with pytest.raises(ClockError, match="Failed to start processor 'bad'") as caught:
            async with watched.clock:
                pytest.fail("entered")
        cause = caught.value.__cause__
        assert isinstance(cause, OSError)
        assert isinstance(cause, ProcessorError)
        assert (cause.type_name, cause.message) == ("OSError", "no such device")
        assert "in start" in cause.traceback
        assert good.status is WorkerStatus.STOPPED
        assert not watched.clock.is_in_context

    run(scenario())


class ExitsOnce(TickProcessor):
    """Ends its process in its first tick."""

    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def tick(self, timestamp: float) -> None:
        if not self.flag.exists():
            self.flag.touch()
            os._exit(7)


@pytest.mark.parametrize("kind", ["forkserver", "forkserver over tcp", "spawn"])
def test_a_process_that_ends_by_itself_is_replaced(
    launcher: str | Launcher, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher, supervision=QUICK)
        async with watched.clock as clock:
            handle = clock.add_processor(ExitsOnce(tmp_path / "flag"), name="a")
            await handle.wait_ready()
            await watched.run_for(0.2)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert death.exitcode == 7
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
        assert closes(handle)

    run(scenario())


@every_launcher
def test_an_operators_restart_gives_a_new_incarnation_and_is_no_failure(
    launcher: str | Launcher, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        async with watched.clock as clock:
            handle = clock.add_processor(Network(tmp_path / "notes"), name="a")
            await handle.wait_ready()
            await watched.events.wait_for(NetworkChanged, worker="a", after=NetworkStatus.CONNECTED)
            await handle.restart()
            assert (handle.incarnation, handle.restarts) == (2, 1)
            await watched.events.wait_for(
                NetworkChanged, worker="a", incarnation=2, after=NetworkStatus.CONNECTED
            )
            assert handle.network_status is NetworkStatus.CONNECTED
            assert not watched.events.of(WorkerDied)
        assert closes(handle)
        notes = await asyncio.to_thread((tmp_path / "notes").read_text)
        assert notes.split("\n")[:3] == ["started", "stop begun", "stop ended"]

    run(scenario())


@every_launcher
def test_log_records_reach_the_same_logger_here(
    kind: str, launcher: str | Launcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Talks(TickProcessor):
        def start(self, timestamp: float) -> None:
            try:
                raise LookupError("nobody")
            except LookupError:
                logging.getLogger("tests.talks").warning(
                    "hello %s", "there", exc_info=True, extra={"order": 17}
                )
            logging.getLogger("tests.silent").info("not enabled")

    async def scenario() -> int | None:
        logging.getLogger("tests.silent").setLevel(logging.WARNING)
        watched = Watched(launcher=launcher)
        async with watched.clock as clock:
            handle = clock.add_processor(Talks(), name="talker")
            await handle.wait_ready()
            return handle.pid

    pid = run(scenario())
    (record,) = [r for r in caplog.records if r.name.startswith("tests.")]
    assert record.getMessage() == "hello there"
    assert record.levelno == logging.WARNING
    assert record.process == pid
    assert vars(record)["order"] == 17
    assert "LookupError: nobody" in logging.Formatter().format(record)
    if kind != "inline":
        assert vars(record)["worker"] == "talker"


class Surroundings(TickProcessor):
    """Notes where it finds itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def start(self, timestamp: float) -> None:
        level = logging.getLogger("tests.surroundings").level
        self.path.write_text(
            f"{sys.path[0]}|{os.getcwd()}|{os.environ.get('TESTS_NEW')}|"
            f"{os.environ.get('TESTS_GONE')}|{level}"
        )


@every_launcher
def test_a_worker_sees_path_directory_environment_and_levels_as_they_are_when_it_starts(
    launcher: str | Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTS_NEW", "new")
    monkeypatch.delenv("TESTS_GONE", raising=False)
    monkeypatch.syspath_prepend("/tests/path")
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("tests.surroundings")
    logger.setLevel(17)

    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        async with watched.clock as clock:
            await clock.add_processor(Surroundings(tmp_path / "seen")).wait_ready()

    run(scenario())
    logger.setLevel(logging.NOTSET)
    assert (tmp_path / "seen").read_text() == f"/tests/path|{tmp_path}|new|None|17"


@every_launcher
def test_classes_and_functions_made_in_a_function_travel(
    launcher: str | Launcher, tmp_path: Path
) -> None:
    secret = "from the closure"

    class Local(Scribe):
        def tick(self, timestamp: float) -> None:
            self.note(secret)

    def factory(path: Path) -> Local:
        return Local(path)

    async def scenario() -> None:
        watched = Watched(launcher=launcher)
        async with watched.clock as clock:
            by_object = clock.add_processor(Local(tmp_path / "a"))
            by_factory = clock.add_processor(
                ProcessorSpec(target=factory, options={"path": tmp_path / "b"})
            )
            by_name = clock.add_processor(
                ProcessorSpec(
                    target="tests.system.processors:Scribe", options={"path": tmp_path / "c"}
                )
            )
            for handle in (by_object, by_factory, by_name):
                await handle.wait_ready()
            await watched.run_for(0.3)

    run(scenario())
    for name in "ab":
        assert set((tmp_path / name).read_text().splitlines()) == {secret}
    assert ticks_in(tmp_path / "c")


@every_launcher
def test_what_cannot_travel_is_refused_at_once_with_the_attribute_and_the_way_out(
    launcher: str | Launcher,
) -> None:
    processor = TickProcessor()
    processor.connection = (n for n in range(3))  # type: ignore[attr-defined]
    clock = Watched(launcher=launcher).clock
    with pytest.raises(TransferError, match=r"TickProcessor\.connection cannot be sent") as caught:
        clock.add_processor(processor)
    assert caught.value.attribute == "connection"
    assert "ProcessorSpec(target=" in str(caught.value)
    assert clock.processors == []


def test_the_environment_chooses_the_default_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (
        ("inline", InlineLauncher),
        ("spawn", SpawnLauncher),
        ("forkserver", ForkserverLauncher),
        ("", ForkserverLauncher),
    ):
        monkeypatch.setenv("CHRONOPYPE_MP_LAUNCHER", name)
        assert type(Watched().clock._launcher) is kind
    monkeypatch.setenv("CHRONOPYPE_MP_LAUNCHER", "fork")
    with pytest.raises(ConfigError, match="CHRONOPYPE_MP_LAUNCHER = 'fork': must be one of"):
        Watched()


def test_stdout_and_stderr_of_a_worker_are_shown_with_its_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Prints(TickProcessor):
        def start(self, timestamp: float) -> None:
            print("to stdout")
            print("to stderr", file=sys.stderr)
            os.write(1, b"raw \xff bytes\nno newline")

    async def scenario() -> None:
        watched = Watched()
        async with watched.clock as clock:
            await clock.add_processor(Prints(), name="p").wait_ready()

    run(scenario())
    out, err = capfd.readouterr()
    assert out == "[p] to stdout\n[p] raw \N{REPLACEMENT CHARACTER} bytes\n[p] no newline\n"
    assert err == "[p] to stderr\n"


def test_a_clock_can_be_entered_again_and_two_clocks_live_side_by_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, two = Watched(), Watched()
        a = one.clock.add_processor(Scribe(tmp_path / "a"), name="a")
        b = two.clock.add_processor(Scribe(tmp_path / "b"), name="a")
        for _ in range(2):
            async with one.clock, two.clock:
                await a.wait_ready()
                await b.wait_ready()
                await asyncio.gather(one.run_for(0.3), two.run_for(0.3))
            assert closes(a)
            assert closes(b)
        assert ran(ticks_in(tmp_path / "a"), one.published)
        assert ran(ticks_in(tmp_path / "b"), two.published)

    run(scenario())


def test_a_clock_in_another_thread_works(tmp_path: Path) -> None:
    def in_thread() -> None:
        async def scenario() -> None:
            watched = Watched()
            async with watched.clock as clock:
                handle = clock.add_processor(Scribe(tmp_path / "ticks"))
                await handle.wait_ready()
                await watched.run_for(0.3)
            assert ran(ticks_in(tmp_path / "ticks"), watched.published)
            done.append(True)

        run(scenario())

    done: list[bool] = []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(30)
    assert done


def test_a_launcher_that_is_none_is_refused() -> None:
    config = Watched().clock.config
    with pytest.raises(ConfigError, match="'fork'"):
        RealtimeClock(config, launcher="fork")


PATIENCE = 60.0
"""Seconds, on a machine that is busy with other things."""


class Ticking(Network):
    """A network that is ticked."""

    check_network_interval = 0.2
    check_network_timeout = PATIENCE

    def tick(self, timestamp: float) -> None:
        """Do nothing."""


@pytest.mark.parametrize("kind", ["forkserver", "spawn", "inline"])
def test_the_handle_shows_the_worker_and_its_connection_and_takes_requests(
    kind: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        patient = Supervision(loop_stall_timeout=PATIENCE, stop_grace=PATIENCE)
        watched = Watched(launcher=kind, supervision=patient)
        async with watched.clock as clock:
            running = asyncio.create_task(clock.run())
            handle = clock.add_processor(Ticking(tmp_path / "notes"), name="a")
            await connected(watched, 1)
            await eventually(lambda: handle.statistics().lateness.count >= 5, PATIENCE)
            await eventually(lambda: handle.statistics().check_latency.count >= 3, PATIENCE)
            seen = handle.statistics()
            assert (seen.connects, seen.next_attempt, seen.network_error) == (1, None, None)
            assert seen.network_reason == "check_network() returned CONNECTED"
            assert 0.0 < seen.connected_seconds < seen.uptime < SCENARIO_TIMEOUT
            assert seen.check_latency.total < SCENARIO_TIMEOUT
            # Every launcher's workers measure from the same deadlines, on the same clock.
            assert seen.lateness.largest < SCENARIO_TIMEOUT
            assert seen.last_heard is not None
            assert abs(time.time() - seen.last_heard) < SCENARIO_TIMEOUT
            assert (seen.rss > 1_000_000, seen.cpu > 0.0) == (kind != "inline",) * 2
            with pytest.raises(AttributeError):
                seen.connects = 5  # type: ignore[misc]

            handle.reconnect()
            await connected(watched, 2)
            assert handle.statistics().connects == 2

            handle.pause()
            await watched.ticks(3)
            await eventually(lambda: handle.statistics().skipped >= 2, PATIENCE)
            handle.resume()

            handle.stop()
            await handle.wait_stopped()
            stopped = handle.statistics()
            assert (stopped.rss, stopped.cpu, stopped.uptime) == (0, 0.0, 0.0)
            assert (stopped.connects, stopped.network_reason) == (2, "stopped")
            assert handle.pid is None
            await watched.ticks(3)
            assert handle.status is WorkerStatus.STOPPED
            assert handle.statistics().published == stopped.published

            handle.start()
            await connected(watched, 3)
            assert (handle.incarnation, handle.status) == (2, WorkerStatus.READY)
            await eventually(lambda: handle.statistics().run > stopped.run, PATIENCE)
            await clock.shutdown()
            await running
        end = handle.statistics()
        assert closes(handle)
        assert (end.connects, end.restarts, end.lost) == (3, 1, 0)
        assert end.connected_seconds > stopped.connected_seconds
        assert end.lateness.count == end.run == end.executions.count
        assert watched.events.of(WorkerDied) == []

    run(scenario())


async def connected(watched: Watched, count: int) -> None:
    await watched.events.wait_for(
        NetworkChanged, after=NetworkStatus.CONNECTED, count=count, timeout=PATIENCE
    )
