"""Frames that are none, on both sockets."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import zmq

from chronopype_mp.core.codec import TICK_TOPIC, command_topic, encode_report
from chronopype_mp.core.messages import GuardBeat
from chronopype_mp.events import FramesDropped
from chronopype_mp.testing import Wire
from tests.system.clocks import Watched, closes, run
from tests.system.processors import Scribe, ran, ticks_in

GARBAGE = [
    b"",
    b"\x00",
    b"\xc1" * 50,
    TICK_TOPIC,
    os.urandom(4000),
    b"\x93\x01\x02",
    b"x" * 100_000,
]


def test_garbage_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    run(_garbage(tmp_path / "ticks"))


async def _garbage(path: Path) -> None:
    watched = Watched()
    async with watched.clock as clock:
        handle = clock.add_processor(Scribe(path), name="a")
        await handle.wait_ready()
        wire = Wire(clock)
        directory = os.path.dirname(wire.up.removeprefix("ipc://"))
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700

        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.connect(wire.up)
            for frame in GARBAGE:
                push.send(frame)
            push.send_multipart([b"two", b"parts"])
            push.send(
                encode_report(GuardBeat(worker="nobody", incarnation=1, token=5, stalled=0.0))
            )
            push.send(encode_report(GuardBeat(worker="a", incarnation=99, token=5, stalled=0.0)))
        for address in (wire.up, wire.down):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(address.removeprefix("ipc://"))
                raw.sendall(os.urandom(1000))
        for body in GARBAGE:
            for topic in (TICK_TOPIC, command_topic("a")):
                wire.publish(topic + body)
        await watched.run_for(1.0)
        await watched.events.wait_for(FramesDropped)
        dropped = wire.dropped
        # To libzmq the junk on the bare socket may look like frames of its oldest protocol.
        assert dropped.garbage >= len(GARBAGE) + 1
        assert (dropped.foreign, dropped.stale) == (1, 1)
    statistics = handle.statistics()
    # A run of ticks is read as one, by its last, so not all of those are even looked at.
    assert len(GARBAGE) <= statistics.frames_dropped <= 2 * len(GARBAGE)
    assert ran(ticks_in(path), watched.published)
    assert handle.restarts == 0
    assert closes(handle)
