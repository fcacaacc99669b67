"""State survives a worker's process, and with a state_dir the program: every launcher alike."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from chronopype_mp import BackoffPolicy, RestartBudget, Supervision, WorkerHandle
from chronopype_mp.events import Event, ProcessorFailed, WorkerDied
from tests.system.clocks import Watched, eventually, run
from tests.system.processors import Scribe

KILLS = int(os.environ.get("CHRONOPYPE_MP_TEST_SNAPSHOT_KILLS", "12"))
"""How many snapshots are cut off at random."""

QUICK = Supervision(
    backoff=BackoffPolicy(minimum=0.01, maximum=0.02),
    budget=RestartBudget(max_restarts=10_000, window=1.0),
    healthy_after=0.0,
    loop_stall_timeout=2.0,
)

every_launcher = pytest.mark.parametrize("launcher", ["inline", "forkserver", "spawn"])


@dataclasses.dataclass
class Position:
    size: int
    sides: tuple[str, ...]


class Trader(Scribe):
    """Its position is one more with each tick; notes what it restores and with what it starts."""

    snapshot_interval = 0.02

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.position = Position(0, ("buy",))

    def snapshot(self) -> Position:
        return self.position

    def restore(self, state: Position) -> None:
        self.note(f"restored {state!r}")
        self.position = state

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.note(f"started with {self.position.size}")

    def tick(self, timestamp: float) -> None:
        self.position.size += 1

    def stop(self) -> None:
        super().stop()
        self.note(f"stopped with {self.position.size}")
        self.position = Position(-1, ())  # not part of the last snapshot


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def restarted(handle: WorkerHandle, watched: Watched, *, kill: bool) -> None:
    if not kill:
        await handle.restart()
        return
    assert handle.pid is not None
    incarnation = handle.incarnation
    os.kill(handle.pid, signal.SIGKILL)
    await watched.events.wait_for(WorkerDied, incarnation=incarnation)
    await handle.wait_ready()


@every_launcher
def test_the_last_snapshot_is_restored_before_the_start_and_survives_the_program(
    launcher: str, tmp_path: Path
) -> None:
    path, directory = tmp_path / "notes", tmp_path / "state"

    async def scenario() -> None:
        watched = Watched(launcher=launcher, supervision=QUICK, state_dir=directory)
        async with watched.clock as clock:
            trader = Trader(path)
            handle = clock.add_processor(trader, name="trader")
            await handle.wait_ready()
            await watched.run_for(0.3)
            at = handle.statistics().snapshot_at
            await eventually(lambda: handle.statistics().snapshot_at != at)
            await eventually(lambda: trader.position.size > 0)  # at once, unless it is busy
            ticks = trader.position.size
            assert handle.statistics().snapshot_bytes > 10
            await restarted(handle, watched, kill=launcher != "inline")
            assert lines(path)[-2:] == [
                f"restored Position(size={ticks}, sides=('buy',))",
                f"started with {ticks}",
            ]
            await watched.run_for(0.2)
        again = Watched(launcher=launcher, supervision=QUICK, state_dir=directory)
        async with again.clock as clock:
            handle = clock.add_processor(Trader(path), name="trader")
            await handle.wait_ready()
        stopped = next(line for line in reversed(lines(path)[:-1]) if "stopped with" in line)
        assert lines(path)[-3:] == [
            f"restored Position(size={stopped.split()[-1]}, sides=('buy',))",
            f"started with {stopped.split()[-1]}",
            f"stopped with {stopped.split()[-1]}",
        ]
        assert again.events.of(ProcessorFailed) == watched.events.of(ProcessorFailed) == []

    run(scenario())


class Outdated(Trader):
    snapshot_version = 2


class Raises(Trader):
    def restore(self, state: Position) -> None:
        self.position = state  # half of it
        raise KeyError("gone")


class Exits(Trader):
    def restore(self, state: Position) -> None:
        raise SystemExit(3)


class Converts(Trader):
    def snapshot(self) -> list[int]:  # type: ignore[override]
        return [self.position.size]


@pytest.mark.parametrize(
    ("launcher", "kind", "error"),
    [
        (
            "inline",
            Outdated,
            "SnapshotError: Outdated: the snapshot has version 0, but",
        ),
        ("inline", Raises, "KeyError: 'gone'"),
        ("inline", Exits, "SystemExit: 3"),
        ("inline", Converts, "SnapshotError: Converts: the snapshot does not fit the annotation"),
        ("forkserver", Raises, "KeyError: 'gone'"),
        ("forkserver", Exits, "SystemExit: 3"),
        ("spawn", Raises, "KeyError: 'gone'"),
    ],
)
def test_a_snapshot_that_cannot_be_restored_is_reported_and_set_aside(
    launcher: str, kind: type[Trader], error: str, tmp_path: Path
) -> None:
    path, directory = tmp_path / "notes", tmp_path / "state"

    async def scenario() -> None:
        first = Watched(launcher="inline", state_dir=directory)
        async with first.clock as clock:
            clock.add_processor(Trader(path), name="trader")
            await first.run_for(0.2)
        errors: list[str] = []
        second = Watched(
            launcher=launcher,
            state_dir=directory,
            error_callback=lambda processor, error: errors.append(str(error)),
        )
        async with second.clock as clock:
            handle = clock.add_processor(kind(path), name="trader")
            await handle.wait_ready()
            assert lines(path)[-1] == "started with 0"
            assert (handle.incarnation, handle.last_failure) == (1, None)
            (failed,) = second.events.of(ProcessorFailed)
            assert (failed.worker, failed.hook) == ("trader", "restore")
            assert len(errors) == 1
            assert errors[0].startswith(error)
            await eventually((directory / "trader" / "snapshot.broken").exists)

    run(scenario())


class DiesInRestore(Trader):
    def restore(self, state: Position) -> None:
        self.note("restoring")
        # Long enough for the report that it begins to leave the process.
        signal.sigtimedwait([], 0.05)
        os._exit(3)


def test_a_snapshot_that_ends_processes_is_given_up_after_the_third(tmp_path: Path) -> None:
    path = tmp_path / "notes"

    async def scenario() -> None:
        watched = Watched(supervision=QUICK)
        async with watched.clock as clock:
            handle = clock.add_processor(DiesInRestore(path))
            await handle.wait_ready()
            await eventually(lambda: handle.statistics().snapshot_at is not None)
            await restarted(handle, watched, kill=True)
            assert lines(path).count("restoring") == 3
            assert lines(path)[-1] == "started with 0"
            assert handle.incarnation == 5
            (failed,) = watched.events.of(ProcessorFailed)
            assert failed.message.startswith("3 processes in a row ended in it")

    run(scenario())


class Large(Scribe):
    """Its snapshots have many parts, which follow from a number."""

    snapshot_interval = 0.01

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.number = 0

    def snapshot(self) -> tuple[int, bytes, str]:
        self.number += 1
        body = self.number.to_bytes(4, "big") * 100_000
        return self.number, body, hashlib.sha256(body).hexdigest()

    def restore(self, state: tuple[int, bytes, str]) -> None:
        number, body, digest = state
        assert body == number.to_bytes(4, "big") * 100_000
        assert hashlib.sha256(body).hexdigest() == digest
        self.number = number
        self.note(f"{number}")


def test_a_snapshot_is_never_half_whenever_the_process_is_killed(tmp_path: Path) -> None:
    """Each next process gets the last whole one that had come in."""
    path = tmp_path / "notes"
    moments = random.Random(15)

    async def scenario() -> None:
        watched = Watched(supervision=QUICK, state_dir=tmp_path / "state")
        async with watched.clock as clock:
            handle = clock.add_processor(Large(path), name="large")
            kept: list[int] = []

            def note(event: Event) -> None:
                state = handle._record.saved_state
                assert state is not None
                kept.append(msgspec.msgpack.decode(state.data)[0])

            clock.events.subscribe(note, WorkerDied)
            for _ in range(KILLS):
                await handle.wait_ready()
                at = handle.statistics().snapshot_at
                await eventually(lambda at=at: handle.statistics().snapshot_at != at)  # type: ignore[misc]
                # A random moment of a snapshot is what the test is about.
                await asyncio.sleep(moments.uniform(0.0, 0.02))
                await restarted(handle, watched, kill=True)
            numbers = [int(line) for line in lines(path)]
            assert numbers == kept
            assert len(numbers) == KILLS
            assert numbers == sorted(numbers)
            assert watched.events.of(ProcessorFailed) == []
            deaths = watched.events.of(WorkerDied)
            assert {death.signal for death in deaths} == {"SIGKILL"}

    run(scenario())


def test_a_directory_that_cannot_be_written_to_is_said_once_and_the_worker_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"

    async def scenario() -> None:
        watched = Watched(state_dir=directory, supervision=QUICK)
        (directory / "trader").write_text("in the way")
        async with watched.clock as clock:
            handle = clock.add_processor(Trader(tmp_path / "notes"), name="trader")
            await handle.wait_ready()
            seen = set()
            while len(seen) < 5:
                await asyncio.sleep(0.01)  # nothing tells of a snapshot
                seen.add(handle.statistics().snapshot_at)
            await restarted(handle, watched, kill=True)
            assert "restored" in "".join(lines(tmp_path / "notes"))

    run(scenario())
    said = [text for text in caplog.messages if "cannot be written" in text]
    assert len([text for text in said if text.startswith("the snapshot of worker 'trader'")]) == 1
