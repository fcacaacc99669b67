"""Rows 19 and 20 of the table of faults: frames that nobody of ours has sent, or not lately."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from chronopype_mp.core.codec import (
    MAX_FRAME,
    TICK_TOPIC,
    command_topic,
    encode_command,
    encode_report,
    encode_tick,
)
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.messages import (
    PROTOCOL,
    AskRetained,
    Attributes,
    Beat,
    Bye,
    CallAsked,
    CallDone,
    CommandDone,
    Configure,
    Failure,
    GuardBeat,
    Hello,
    LogLine,
    Outcome,
    Ready,
    Restoring,
    StatePart,
    Status,
    Tick,
    TickDone,
    Uplink,
    WorkerSettings,
)
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.events import FramesDropped, ProcessorFailed, WorkerReady
from chronopype_mp.testing import Wire, faults
from tests.system.clocks import eventually, run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import HELD_UP, Scribe, ran, ticks_in

GARBAGE = [
    b"",
    b"\x00",
    b"\xc1" * 50,
    b"\x93\x01\x02",
    TICK_TOPIC,
    os.urandom(4000),
    b"x" * 100_000,
]

HUGE = b"x" * (MAX_FRAME + 1)

ACCOUNT, STATE = TickAccount(0, 5000, 0, 0), TickCounters(success_count=77, is_active=True)


def reports_as(worker: str, incarnation: int, token: int = 5) -> list[Uplink]:
    """Return a report of each kind that would change what is known of a worker."""
    who = {"worker": worker, "incarnation": incarnation, "token": token}
    return [
        Hello(**who, pid=1),
        Ready(**who, base=0),
        Status(**who, network=NetworkStatus.ERROR, revision=99),
        Beat(**who, serial=10**6, account=ACCOUNT, counters=STATE, largest_gap=9.0, lag=9.0),
        GuardBeat(**who, stalled=9.0),
        Failure(**who, hook="x", serial=1, type_name="E", message="m", traceback=""),
        LogLine(**who, logger="tests.forged", level=50, message="forged", created=0.0),
        CommandDone(**who, id=1, seq=10**6),
        TickDone(**who, seq=10**6),
        CallDone(**who, call=1, outcome=Outcome()),
        CallAsked(**who, call=1, callee=worker, method="x", arguments=b"", timeout=1.0),
        StatePart(**who, serial=1, index=0, count=1, version=0, taken_at=0.0, data=b"\x01"),
        Restoring(**who, is_over=False),
        Attributes(**who, request=0, values={}, left_out={}, is_last=True),
        AskRetained(**who, request=1, patterns=("**",)),
        Bye(**who, account=ACCOUNT, counters=STATE),
    ]


def prefixes(frame: bytes) -> list[bytes]:
    """Return a frame cut off at every place."""
    return [frame[:end] for end in range(1, len(frame))]


def zmtp(kind: bytes, body: bytes) -> bytes:
    """Return all that a socket of a kind says to send one frame (ZMTP 3.0)."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return greeting + bytes([4, len(ready)]) + ready + b"\x02" + struct.pack(">Q", len(body)) + body


class Forger:
    """Sends frames to the coordinator's sockets."""

    def __init__(self, n: Neighbourhood) -> None:
        self.wire = Wire(n.clock)
        self.up, self.down = self.wire.up, self.wire.down

    def push(self, *frames: bytes) -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.connect(self.up)
            for frame in frames:
                push.send(frame)

    def push_huge(self) -> None:
        """The socket refuses it and hangs up; a new connection serves as before."""
        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.LINGER, 200)
            push.connect(self.up)
            push.send(HUGE)

    def subscribe_huge(self) -> None:
        """By hand: libzmq's own subscriber overflows its stack at this."""
        for size in (MAX_FRAME - 1, MAX_FRAME + 1):
            with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(BrokenPipeError):
                raw.connect(self.down.removeprefix("ipc://"))
                raw.sendall(zmtp(b"SUB", b"\x01" + b"y" * (size - 1)))

    def junk_on_both(self) -> None:
        for address in (self.up, self.down):
            for junk in (os.urandom(1000), b"\xff" + b"\0" * 8 + b"\x01\x7f" + b"\0" * 200):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(address.removeprefix("ipc://"))
                    raw.sendall(junk)

    def publish(self, *frames: bytes) -> None:
        self.wire.publish(*frames)

    async def counted(self, look: Callable[[], int], count: int) -> None:
        await eventually(lambda: look() >= count)


@row(19)
def test_garbage_truncated_and_huge_frames_to_the_coordinator_are_counted_and_dropped(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            forger = Forger(n)
            truncated = [
                part
                for report in reports_as("victim", 1)
                for part in prefixes(encode_report(report))
            ]
            expected = 0
            junk = [*GARBAGE, *truncated]
            # In parts: the coordinator queues 1000 frames of a connection that ends.
            for part in (junk[at : at + 900] for at in range(0, len(junk), 900)):
                forger.push(*part)
                expected += len(part)
                await forger.counted(lambda: forger.wire.dropped.garbage, expected)
            assert forger.wire.dropped.garbage == expected
            forger.push_huge()
            forger.subscribe_huge()
            forger.junk_on_both()
            await n.ticks(5)
            # The listener lives: it goes on counting.
            before = forger.wire.dropped.garbage
            forger.push(b"\xc1")
            await forger.counted(lambda: forger.wire.dropped.garbage, before + 1)
            await n.ticks(15)
            told = sum(event.garbage for event in n.events.of(FramesDropped))
            assert told == forger.wire.dropped.garbage
            assert (victim.pid, victim.restarts) == (pid, 0)
            assert not n.events.of(ProcessorFailed)
        assert victim.statistics().missed <= HELD_UP

    run(scenario())


@row(19)
def test_a_forged_worker_id_incarnation_or_token_is_counted_and_changes_nothing(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            forger = Forger(n)
            foreign = [encode_report(r) for r in reports_as("nobody", 1)]
            stale = [encode_report(r) for r in reports_as("victim", 99)]
            token = forger.wire.token(victim) ^ 1
            reports = reports_as("victim", 1, token)
            assert {type(report) for report in reports} == set(typing.get_args(Uplink))
            forged = [encode_report(report) for report in reports]
            forger.push(*foreign, *stale, *forged)
            dropped = await n.events.wait_for(FramesDropped)
            assert (dropped.foreign, dropped.stale) == (len(foreign), len(stale))
            assert dropped.forged == len(forged)
            assert dropped.garbage == 0
            assert victim.network_status is NetworkStatus.STOPPED
            assert victim.state.success_count != 77
            assert not n.events.of(ProcessorFailed)
            assert victim.restarts == 0
            assert victim.statistics().snapshot_at is None
            await n.ticks(5)

    run(scenario())


@row(19)
def test_a_hello_of_another_version_is_told_of_once_counted_and_dropped(
    tmp_path: Path, launcher: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            forger = Forger(n)
            hello = Hello(
                worker="victim",
                incarnation=1,
                token=forger.wire.token(victim),
                pid=1,
                protocol=PROTOCOL + 1,
            )
            forger.push(*[encode_report(hello)] * 20)
            await forger.counted(lambda: forger.wire.dropped.garbage, 20)
            await n.ticks(5)
            assert forger.wire.dropped.garbage == 20
            assert (victim.pid, victim.restarts) == (pid, 0)

    with caplog.at_level(logging.ERROR, logger="chronopype_mp.coordinator"):
        run(scenario())
    (told,) = [r.getMessage() for r in caplog.records if "protocol" in r.getMessage()]
    assert f"speaks version {PROTOCOL + 1}" in told


@row(19)
def test_garbage_and_truncated_frames_to_a_worker_are_counted_and_dropped(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            forger = Forger(n)
            topic = command_topic("victim")
            command = encode_command(
                "victim", Configure(incarnation=1, id=7, settings=WorkerSettings(paused=True))
            )
            frames = [part for part in prefixes(command) if part.startswith(topic)]
            frames += [topic + body for body in (*GARBAGE, HUGE)]
            forger.publish(*frames)
            # Another incarnation's command is not for this one, and no garbage either.
            forger.publish(
                encode_command(
                    "victim", Configure(incarnation=9, id=7, settings=WorkerSettings(paused=True))
                )
            )
            await forger.counted(lambda: victim.statistics().frames_dropped, len(frames))
            await n.ticks(5)
            assert victim.statistics().frames_dropped == len(frames)
            assert (victim.pid, victim.restarts, victim.state.is_active) == (pid, 0, True)
            assert all(b.statistics().frames_dropped == 0 for b in n.neighbours)
        ticks = ticks_in(tmp_path / "victim")
        assert ran(ticks, n.published[n.published.index(ticks[0]) :])

    run(scenario())


@row(19)
def test_truncated_ticks_are_counted_by_every_worker_and_no_real_tick_is_lost(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            forger = Forger(n)
            prefixed = prefixes(encode_tick(Tick(10_000, 1.0)))
            frames = [frame for frame in prefixed if frame.startswith(TICK_TOPIC)]
            for frame in frames:
                await n.ticks(1)  # alone, or the newest of a batch would hide the others
                forger.publish(frame)
            await n.ticks(10)
            assert all(b.statistics().frames_dropped == len(frames) for b in n.neighbours)

    run(scenario())


@row(20)
def test_reports_of_an_earlier_incarnation_change_nothing_and_are_counted(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            faults.kill(victim)
            await n.events.wait_for(WorkerReady, worker="victim", incarnation=2)
            pid = victim.pid
            reports = [encode_report(r) for r in reports_as("victim", 1)]
            Forger(n).push(*reports)
            while sum(dropped.stale for dropped in n.events.of(FramesDropped)) < len(reports):
                await n.ticks(1)
            dropped = n.events.of(FramesDropped)
            assert sum(each.stale for each in dropped) == len(reports)
            assert not any(each.garbage or each.foreign for each in dropped)
            assert (victim.pid, victim.incarnation, victim.restarts) == (pid, 2, 1)
            assert victim.network_status is NetworkStatus.STOPPED
            assert victim.state.success_count != 77
            assert victim.statistics().lag < 9.0
            assert not n.events.of(ProcessorFailed)
            await n.ticks(5)

    run(scenario())
