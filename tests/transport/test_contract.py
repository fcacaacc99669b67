"""The contract of every transport: in memory, over ipc and over tcp."""

from __future__ import annotations

import asyncio
import contextvars
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import zmq

from chronopype_mp.core.codec import (
    MAX_FRAME,
    FrameError,
    command_topic,
    decode_command,
    decode_report,
    decode_tick,
    encode_command,
    encode_report,
    encode_tick,
)
from chronopype_mp.core.messages import GuardBeat, Stop, Tick, Welcome, WorkerSettings
from chronopype_mp.exceptions import TransportError
from chronopype_mp.transport import zeromq
from chronopype_mp.transport.base import FRAMES_QUEUED, REPORTS_QUEUED, Hub, Link
from chronopype_mp.transport.memory import MemoryHub
from chronopype_mp.transport.zeromq import ZmqHub, ZmqLink
from tests.waiting import Noticeboard, run

ANY_PORT = "tcp://127.0.0.1:*"
LOOPBACK = (ANY_PORT, ANY_PORT, ANY_PORT, ANY_PORT, ANY_PORT)
BOUND = 10.0
"""Seconds to wait for a frame."""

IN_THE_KERNEL = 12_000_000
"""Bytes that the kernel may queue for a tcp connection."""


def link_to(hub: ZmqHub, worker: str) -> ZmqLink:
    return ZmqLink(hub.down, hub.up, hub.data_up, (hub.messages_in, hub.messages_out), worker)


class Ends:
    """Both ends of one transport."""

    def __init__(self, kind: str) -> None:
        self.hub: MemoryHub | ZmqHub
        if kind == "memory":
            self.hub = MemoryHub()
        else:
            self.hub = ZmqHub() if kind == "ipc" else ZmqHub(LOOPBACK)
        self.links: list[Link] = []

    def link(self, worker: str) -> Link:
        """Return a worker's end whose subscription is active."""
        link: Link
        if isinstance(self.hub, MemoryHub):
            link = self.hub.connect(worker)
        else:
            link = link_to(self.hub, worker)
        self.links.append(link)
        self._wait_for_subscription(link, worker)
        return link

    def _wait_for_subscription(self, link: Link, worker: str) -> None:
        """Repeat the welcome until it arrives, like the coordinator. Then read the rest."""
        welcome = encode_command(worker, Welcome(settings=WorkerSettings()))
        last = encode_command(worker, Stop())
        deadline = time.monotonic() + BOUND
        while not link.receive(1):
            assert time.monotonic() < deadline, "the subscription did not become active"
            self.hub.publish(welcome)
            time.sleep(0.001)  # a synchronous test: the sockets' own thread needs a moment
        self.hub.publish(last)
        while receive(link.receive, 1) != [last]:
            pass

    def close(self) -> None:
        for link in self.links:
            link.close(0)
        self.hub.close_publisher()
        self.hub.close()


def receive(take: Callable[[int], list[bytes]], count: int) -> list[bytes]:
    """Return ``count`` frames, or fail if they do not arrive in time."""
    frames: list[bytes] = []
    deadline = time.monotonic() + BOUND
    while len(frames) < count:
        assert time.monotonic() < deadline, f"{len(frames)} of {count} frames arrived"
        got = take(count - len(frames))
        frames += got
        if not got:
            time.sleep(0.001)  # a synchronous test: the sockets' own thread needs a moment
    return frames


@pytest.fixture(params=["memory", "ipc", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    yield made
    made.close()


@pytest.fixture(params=["ipc", "tcp"])
def sockets(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    yield made
    made.close()


def beat(number: int) -> bytes:
    return encode_report(GuardBeat(worker="a", incarnation=number, token=5, stalled=0.0))


def number_of(frame: bytes) -> int:
    return decode_report(frame).incarnation


def test_the_ends_are_what_the_protocols_say(ends: Ends) -> None:
    hub: Hub = ends.hub
    assert isinstance(hub.down, str)
    assert isinstance(hub.up, str)


def test_a_tick_reaches_every_worker(ends: Ends) -> None:
    links = [ends.link(worker) for worker in ("a", "b")]
    ends.hub.publish(encode_tick(Tick(1, 10.0)))
    for link in links:
        (frame,) = receive(link.receive, 1)
        assert decode_tick(frame) == Tick(1, 10.0)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a", "aa"), ("é", "e"), ("", "a")])
def test_a_command_reaches_its_worker_and_no_other(ends: Ends, one: str, other: str) -> None:
    links = {worker: ends.link(worker) for worker in (one, other)}
    for worker in links:
        ends.hub.publish(encode_command(worker, Stop(id=len(worker.encode()), seq=7)))
    end = encode_tick(Tick(1, 1.0))
    ends.hub.publish(end)
    for worker, link in links.items():
        command, last = receive(link.receive, 2)
        assert decode_command(command) == Stop(id=len(worker.encode()), seq=7)
        assert last == end


def test_a_frame_with_a_topic_that_nobody_has_reaches_nobody(ends: Ends) -> None:
    link = ends.link("a")
    for frame in (b"", b"wa", b"w\0", b"x", command_topic("ab") + b"x"):
        ends.hub.publish(frame)
    end = encode_tick(Tick(1, 1.0))
    ends.hub.publish(end)
    assert receive(link.receive, 1) == [end]


def test_ticks_arrive_in_order(ends: Ends) -> None:
    link = ends.link("a")
    frames = [encode_tick(Tick(seq, float(seq))) for seq in range(500)]
    for frame in frames:
        ends.hub.publish(frame)
    assert receive(link.receive, 500) == frames


def test_reports_arrive_in_order_from_each_worker(ends: Ends) -> None:
    links = [ends.link(worker) for worker in ("a", "b")]
    for number in range(500):
        for which, link in enumerate(links):
            assert link.send(beat(2 * number + which))
    numbers = [number_of(frame) for frame in receive(ends.hub.receive, 1000)]
    for which in (0, 1):
        mine = [number for number in numbers if number % 2 == which]
        assert mine == list(range(which, 1000, 2))


def test_a_read_takes_no_more_than_it_was_asked_for_and_does_not_wait(ends: Ends) -> None:
    link = ends.link("a")
    assert link.receive(5) == []
    assert ends.hub.receive(5) == []
    for seq in range(8):
        ends.hub.publish(encode_tick(Tick(seq, 0.0)))
        assert link.send(beat(seq))
    for take in (link.receive, ends.hub.receive):
        reads: list[int] = []

        def read(_: int, take: Callable[[int], list[bytes]] = take) -> list[bytes]:
            frames = take(3)
            reads.append(len(frames))  # noqa: B023 – called here
            return frames

        assert len(receive(read, 8)) == 8
        assert max(reads) <= 3
        assert take(5) == []


def test_a_guard_reports_from_a_thread_of_its_own(ends: Ends) -> None:
    link = ends.link("a")

    def guard() -> None:
        sender = link.guard_sender()
        for number in range(10):
            assert sender.send(beat(number))
        sender.close(1.0)

    thread = threading.Thread(target=guard)
    thread.start()
    numbers = [number_of(frame) for frame in receive(ends.hub.receive, 10)]
    thread.join(BOUND)
    assert not thread.is_alive()
    assert numbers == list(range(10))
    assert link.send(beat(10)), "the link's own socket still works"
    assert number_of(receive(ends.hub.receive, 1)[0]) == 10


def test_a_link_that_does_not_read_drops_and_costs_bounded_memory(ends: Ends) -> None:
    link = ends.link("a")
    padding = bytes(16 * 1024)
    process = psutil.Process()
    before = process.memory_info().rss
    count = 12_000
    for seq in range(count):
        ends.hub.publish(encode_tick(Tick(seq, 0.0)) + padding)
        if seq % 200 == 0:
            time.sleep(0.002)  # lets the sockets' own thread deliver what it can
    grown = process.memory_info().rss - before
    assert grown < 100 * 2**20, f"{grown >> 20} MB for {count * len(padding) >> 20} MB published"
    # Frames are whole and in order. Gaps are visible in the sequence numbers.
    frames = receive(link.receive, FRAMES_QUEUED // 2)
    while more := link.receive(1000):
        frames += more
    assert len(frames) < count / 3
    seqs = [decode_tick(frame[: -len(padding)]).seq for frame in frames]
    assert seqs[:500] == list(range(500))
    assert seqs == sorted(set(seqs))
    arrives_again(ends, link)


def arrives_again(ends: Ends, link: Link) -> None:
    """Publish until a new frame arrives."""
    mark = encode_tick(Tick(2**40, 0.0))
    deadline = time.monotonic() + BOUND
    while mark not in link.receive(1000):
        assert time.monotonic() < deadline
        ends.hub.publish(mark)
        time.sleep(0.001)  # a synchronous test: the sockets' own thread needs a moment


def test_a_send_to_a_coordinator_that_does_not_read_is_refused_and_never_blocks(
    ends: Ends,
) -> None:
    link = ends.link("a")
    taken = 0
    slowest = 0.0
    refused_in_a_row = 0
    # A burst can outrun the sockets' own thread. Only repeated refusals mean that all is full.
    while refused_in_a_row < 50:
        assert taken < 1_000_000, "the queue for a coordinator that does not read is unbounded"
        began = time.monotonic()
        if link.send(beat(taken)):
            taken += 1
            refused_in_a_row = 0
        else:
            refused_in_a_row += 1
            time.sleep(0.002)  # gives the sockets' own thread its turn
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2.0
    for number in range(taken):
        if number % 1000 == 0:
            batch = receive(ends.hub.receive, min(1000, taken - number))
            assert number_of(batch[0]) == number, "accepted reports must all arrive in order"
    deadline = time.monotonic() + BOUND
    while not link.send(beat(taken)):
        assert time.monotonic() < deadline, "still refused although there is room again"
        time.sleep(0.001)  # a synchronous test: the sockets' own thread needs a moment
    assert number_of(receive(ends.hub.receive, 1)[0]) == taken


@pytest.mark.parametrize("before", [False, True], ids=["while attached", "before it is attached"])
def test_who_is_attached_is_called_until_nothing_is_left(ends: Ends, before: bool) -> None:
    """Also if a burst is larger than one read: ZeroMQ signals changes, not states."""
    link = ends.link("a")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        board = Noticeboard()
        ticks: list[bytes] = []
        reports: list[bytes] = []

        def read_link() -> None:
            ticks.extend(link.receive(7))
            board.notify()

        def read_hub() -> None:
            reports.extend(ends.hub.receive(7))
            board.notify()

        def attach() -> None:
            link.attach(loop, read_link)
            ends.hub.attach(loop, read_hub)

        if not before:
            attach()
        for burst in (500, 1, 300):
            expected = len(ticks) + burst
            for number in range(burst):
                ends.hub.publish(encode_tick(Tick(number, 0.0)))
                # Using the socket may consume the edge that signals received frames.
                assert link.send(beat(number))
            if before and not ticks:
                attach()
            await board.until(lambda: len(ticks) == len(reports) == expected)  # noqa: B023 – awaited here

    run(scenario())


def test_who_is_attached_is_called_in_the_context_in_which_it_was_attached(ends: Ends) -> None:
    """Not in that of the sender: both ends of the memory transport share a loop."""
    link = ends.link("a")
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

    async def scenario() -> None:
        board = Noticeboard()
        seen: list[str] = []

        def read(receive: Callable[[int], list[bytes]]) -> None:
            if receive(1000):
                seen.append(who.get())
                board.notify()

        loop = asyncio.get_running_loop()
        who.set("coordinator")
        ends.hub.attach(loop, lambda: read(ends.hub.receive))
        who.set("worker")
        link.attach(loop, lambda: read(link.receive))
        who.set("neither")
        assert link.send(beat(1))
        await board.until(lambda: seen == ["coordinator"])
        ends.hub.publish(encode_tick(Tick(1, 0.0)))
        await board.until(lambda: seen == ["coordinator", "worker"])

    run(scenario())


def test_frames_from_another_thread_wake_the_loop(ends: Ends) -> None:
    """The ticker publishes from its own thread while the loop sleeps."""
    link = ends.link("a")

    async def scenario() -> None:
        board = Noticeboard()
        ticks: list[bytes] = []

        def read() -> None:
            ticks.extend(link.receive(1000))
            board.notify()

        link.attach(asyncio.get_running_loop(), read)
        for seq in range(1, 4):
            publish = threading.Thread(target=ends.hub.publish, args=(encode_tick(Tick(seq, 0.0)),))
            publish.start()
            await board.until(lambda: len(ticks) == seq)  # noqa: B023 – awaited here
            publish.join()

    run(scenario())


def test_a_closed_link_is_not_called_any_more(ends: Ends) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        board = Noticeboard()
        ticks: list[bytes] = []
        closed, other = ends.link("a"), ends.link("b")
        closed.attach(loop, lambda: pytest.fail("called after it was closed"))
        closed.close(0)

        def read() -> None:
            ticks.extend(other.receive(10))
            board.notify()

        other.attach(loop, read)
        ends.hub.publish(encode_tick(Tick(1, 0.0)))
        await board.until(lambda: len(ticks) == 1)

    run(scenario())


def test_what_was_sent_right_before_the_close_still_arrives(ends: Ends) -> None:
    link = ends.link("a")
    for number in range(100):
        assert link.send(beat(number))
    link.close(5.0)
    numbers = [number_of(frame) for frame in receive(ends.hub.receive, 100)]
    assert numbers == list(range(100))


def test_a_worker_that_comes_after_another_has_gone_is_heard_under_the_same_name(
    ends: Ends,
) -> None:
    ends.link("a").close(0)
    link = ends.link("a")
    ends.hub.publish(encode_tick(Tick(1, 0.0)))
    receive(link.receive, 1)
    assert link.send(beat(1))
    receive(ends.hub.receive, 1)


def test_once_an_echo_is_there_so_is_what_came_before_it(ends: Ends) -> None:
    link = ends.link("a")
    for number in range(50):
        assert link.send(beat(number))
    link.close(5.0)
    assert ends.hub.echo(beat(50))
    numbers: list[int] = []
    while 50 not in numbers:
        numbers.append(number_of(receive(ends.hub.receive, 1)[0]))
    numbers += [number_of(frame) for frame in ends.hub.receive(50)]  # without waiting
    assert sorted(numbers) == list(range(51))


def test_of_a_message_in_parts_each_part_arrives_as_a_frame(sockets: Ends) -> None:
    assert isinstance(sockets.hub, ZmqHub)
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.connect(sockets.hub.up)
    push.send_multipart([beat(1), b"junk", beat(2)])
    push.send(beat(3))
    first, junk, second, third = receive(sockets.hub.receive, 4)
    assert [number_of(frame) for frame in (first, second, third)] == [1, 2, 3]
    with pytest.raises(FrameError):
        decode_report(junk)
    push.close(linger=0)
    context.term()


def test_a_report_larger_than_allowed_is_refused_and_the_coordinator_lives(sockets: Ends) -> None:
    assert isinstance(sockets.hub, ZmqHub)
    sane, insane = sockets.link("a"), sockets.link("b")
    assert insane.send(bytes(MAX_FRAME + 1))
    assert sane.send(beat(1))
    deadline = time.monotonic() + BOUND
    numbers: set[int] = set()
    while numbers < {1, 2}:
        assert time.monotonic() < deadline
        insane.send(beat(2))
        numbers |= {number_of(frame) for frame in sockets.hub.receive(1000)}
        time.sleep(0.001)  # a synchronous test: the sockets' own thread needs a moment


FLOOD = """
import sys, time
from chronopype_mp.transport.zeromq import ZmqLink
link = ZmqLink(sys.argv[1], sys.argv[2], "", ("", ""), "flood")
for _ in range(5000):
    deadline = time.monotonic() + 1.0
    while not link.send(bytes(50_000)) and time.monotonic() < deadline:
        time.sleep(0.001)
    if time.monotonic() >= deadline:
        break
link.close(1.0)
"""


def test_a_coordinator_that_does_not_read_queues_bounded_bytes_of_a_worker(sockets: Ends) -> None:
    flood = [sys.executable, "-c", FLOOD, sockets.hub.down, sockets.hub.up]
    subprocess.run(flood, check=True, timeout=BOUND + 30.0)
    # All that the process could send before its end is here by now, some of it in the kernel.
    queued = 0
    while frames := sockets.hub.receive(1000):
        queued += sum(map(len, frames))
    assert 0 < queued <= REPORTS_QUEUED * 50_000 + IN_THE_KERNEL


def test_a_frame_larger_than_allowed_does_not_make_a_worker_deaf(sockets: Ends) -> None:
    """It did with MAXMSGSIZE on SUB: libzmq does not reconnect after a protocol error."""
    link = sockets.link("a")
    sockets.hub.publish(encode_tick(Tick(1, 0.0)) + bytes(MAX_FRAME))
    arrives_again(sockets, link)


def test_the_private_directory_is_for_this_user_alone_and_gone_after_the_close() -> None:
    hub = ZmqHub()
    assert hub.directory is not None
    mode = os.stat(hub.directory).st_mode
    assert stat.S_ISDIR(mode)
    assert stat.S_IMODE(mode) == 0o700
    assert sorted(os.listdir(hub.directory)) == ["data", "down", "pub", "sub", "up"]
    hub.close_publisher()
    hub.close()
    assert not Path(hub.directory).exists()


def test_tcp_needs_no_directory_and_tells_the_port_it_got() -> None:
    hub = ZmqHub(LOOPBACK)
    assert hub.directory is None
    for address in (hub.down, hub.up):
        assert int(address.removeprefix("tcp://127.0.0.1:")) > 0
    hub.close_publisher()
    hub.close()


def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("d" * 60) / ("d" * 60)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(TransportError, match=r"bytes.*allows only 107.*TMPDIR") as caught:
        ZmqHub()
    assert caught.value.address.startswith(f"ipc://{long}")
    assert list(long.iterdir()) == []


@pytest.mark.parametrize("length", [zeromq.MAX_IPC_PATH, zeromq.MAX_IPC_PATH + 1])
def test_the_longest_path_that_works_has_107_bytes(length: int) -> None:
    start = f"/tmp/chronopype_mp-test-{os.getpid()}-"
    path = start + "é" * ((length - len(start)) // 2) + "x" * ((length - len(start)) % 2)
    assert len(path.encode()) == length
    if length > zeromq.MAX_IPC_PATH:
        with pytest.raises(TransportError, match="107"):
            ZmqHub((f"ipc://{path}", *LOOPBACK[1:]))
        return
    hub = ZmqHub((f"ipc://{path}", *LOOPBACK[1:]))
    hub.close_publisher()
    hub.close()
    Path(path).unlink(missing_ok=True)


def test_an_address_in_use_is_refused_by_name() -> None:
    hub = ZmqHub(LOOPBACK)
    with pytest.raises(TransportError, match="cannot be bound") as caught:
        ZmqHub((hub.down, *LOOPBACK[1:]))
    assert caught.value.address == hub.down
    hub.close_publisher()
    hub.close()
