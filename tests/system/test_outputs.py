"""What a processor emits reaches the owner, whichever launcher has started its worker."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
import psutil
import pytest

from chronopype_mp import (
    ClockConfig,
    ClockMode,
    Output,
    OutputError,
    OutputPolicy,
    OutputsFull,
    RealtimeClock,
    TickProcessor,
)
from tests.system.clocks import eventually, run
from tests.waiting import running

MEGABYTE = 1 << 20

FEW = 50_000
COUNT = int(os.environ.get("CHRONOPYPE_MP_TEST_OUTPUTS", FEW))

every_launcher = pytest.mark.parametrize("launcher", ["inline", "forkserver", "spawn"])


class Price(msgspec.Struct, frozen=True):
    value: float


@dataclasses.dataclass
class Order:
    size: int


def make_clock(launcher: str, **outputs: Any) -> RealtimeClock:
    config = ClockConfig(
        clock_mode=ClockMode.REALTIME, tick_size=0.05, outputs=OutputPolicy(**outputs)
    )
    return RealtimeClock(config, launcher=launcher)


class Everywhere(TickProcessor):
    """Emits wherever a processor may, and notes what is refused."""

    output_types = {"prices.*": Price, "orders": Order}  # noqa: RUF012 – as users write it

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.ticked = False
        self.emit("start", topic="hooks")
        self.emit(Price(1.5), topic="prices.btc")
        self.emit(Order(3), topic="orders")
        self.emit({"any": [1, None, b"x"]})
        for payload, topic in ((object(), "hooks"), ("no Price", "prices.btc"), (1, "a..b")):
            try:
                self.emit(payload, topic=topic)
            except OutputError as error:
                self.emit(str(error), topic="refused")

    async def async_tick(self, timestamp: float) -> None:
        if not self.ticked:
            self.ticked = True
            self.emit("tick", topic="hooks")
            await self.drain_outputs()
            thread = threading.Thread(target=lambda: self.emit("thread", topic="hooks"))
            thread.start()
            thread.join()

    def stop(self) -> None:
        self.emit("stop", topic="hooks")
        super().stop()

    async def await_cleanup(self) -> None:
        self.emit("await_cleanup", topic="hooks")


@every_launcher
def test_everything_emitted_arrives_once_in_order_with_its_declared_type(launcher: str) -> None:
    called: list[Output] = []

    async def scenario() -> None:
        clock = make_clock(launcher)
        reader, hooks = clock.outputs(), clock.outputs("hooks", worker="a")
        clock.outputs.subscribe(called.append, "prices.*")
        processor = Everywhere()
        with pytest.raises(OutputError, match="belongs to the owner's process"):
            processor.emit(1)
        async with clock:
            handle = clock.add_processor(processor, name="a")
            await clock.add_processor(Everywhere(), name="b").wait_ready()
            async with running(clock):
                while (await anext(hooks)).payload != "thread":
                    pass
            with pytest.raises(OutputError, match="belongs to the owner's process"):
                processor.emit(1)
        assert [each.payload async for each in hooks] == ["stop", "await_cleanup"]
        everything = [each async for each in reader if each.worker == "a"]
        assert [each.seq for each in everything] == list(range(1, len(everything) + 1))
        by_topic = {each.topic: each.payload for each in everything}
        assert by_topic["prices.btc"] == Price(1.5)
        assert by_topic["orders"] == Order(3)
        assert by_topic[""] == {"any": [1, None, b"x"]}
        refused = [each.payload for each in everything if each.topic == "refused"]
        assert [part in text for part, text in zip(
            ("cannot be encoded", "declares Price", "empty word"), refused, strict=True
        )] == [True] * 3  # fmt: skip
        statistics = handle.statistics()
        assert statistics.outputs_emitted == statistics.outputs_sent == len(everything)
        assert statistics.outputs_dropped == 0
        assert {each.worker for each in called} == {"a", "b"}

    run(scenario())


class Counts(TickProcessor):
    """Emits numbers in a task, as fast as its policy allows."""

    def __init__(self, count: int, size: int = 0) -> None:
        super().__init__()
        self.count = count
        self.size = size

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.task = asyncio.get_running_loop().create_task(self.work())

    async def work(self) -> None:
        for number in range(self.count):
            self.emit((number, b"x" * self.size), topic="numbers")
            await self.drain_outputs()
        self.emit(None, topic="end")


class Bursts(Counts):
    """Emits numbers without ever waiting."""

    async def work(self) -> None:
        for number in range(self.count):
            self.emit((number, b"x" * self.size), topic="numbers")
            if number % 1000 == 0:
                await asyncio.sleep(0)  # yields
        self.emit(None, topic="end")


@every_launcher
def test_a_reader_that_waits_loses_nothing(launcher: str) -> None:
    count = 5000

    async def scenario() -> None:
        clock = make_clock(launcher, when_full="wait", buffer_bytes=131_072)
        async with clock, clock.outputs(buffer=100) as reader:
            for name in ("a", "b"):
                clock.add_processor(Counts(count, 100), name=name)
            read: dict[str, list[int]] = {"a": [], "b": []}
            ended = 0
            while ended < 2:
                output = await anext(reader)
                if output.topic == "end":
                    ended += 1
                else:
                    read[output.worker].append(output.payload[0])
            assert read["a"] == read["b"] == list(range(count))
            assert reader.dropped == 0

    run(scenario())


@every_launcher
def test_the_counts_of_what_is_dropped_are_exact(launcher: str) -> None:
    count = 20_000

    async def scenario() -> None:
        clock = make_clock(launcher, buffer_bytes=131_072)
        reader = clock.outputs(buffer=500)
        async with clock:
            handle = clock.add_processor(Bursts(count, 100), name="a")
            await handle.wait_ready()
            await eventually(lambda: handle.statistics().outputs_emitted == count + 1)
        outputs = [each async for each in reader]
        statistics = handle.statistics()
        assert statistics.outputs_emitted == count + 1
        assert statistics.outputs_sent + statistics.outputs_dropped == count + 1
        assert len(outputs) + reader.dropped == statistics.outputs_sent
        assert outputs[-1].topic == "end"
        assert all(each.payload[0] == each.seq - 1 for each in outputs[:-1])
        assert sorted({each.seq for each in outputs}) == [each.seq for each in outputs]

    run(scenario())


class Overflows(TickProcessor):
    """Emits in one turn of the loop until the buffer is full, then a little more."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.task = asyncio.get_running_loop().create_task(self.work())

    async def work(self) -> None:
        while True:
            try:
                self.emit(b"x" * 1000, topic="flood")
            except OutputsFull as error:
                await self.drain_outputs()
                self.emit(str(error), topic="full")
                return


@every_launcher
def test_a_full_buffer_raises_and_can_be_waited_for(launcher: str) -> None:
    async def scenario() -> None:
        clock = make_clock(launcher, when_full="wait", buffer_bytes=131_072)
        flood, full = clock.outputs("flood", buffer=10), clock.outputs("full")
        async with clock:
            handle = clock.add_processor(Overflows(), name="a")
            await handle.wait_ready()
            # The owner reads nothing meanwhile: the reader of the flood is full.
            await eventually(lambda: handle.statistics().outputs_emitted > 100)
            async with flood:  # closed, it holds nothing back
                pass
            assert "await self.drain_outputs()" in (await anext(full)).payload

    run(scenario())


@every_launcher
def test_what_nobody_reads_is_not_sent(launcher: str) -> None:
    async def scenario() -> None:
        clock = make_clock(launcher)
        async with clock:
            handle = clock.add_processor(Counts(1000), name="a")
            await eventually(lambda: handle.statistics().outputs_emitted == 1001)
            assert handle.statistics().outputs_sent == 0
            reader = clock.outputs("end")
            await handle.restart()
            assert (await anext(reader)).topic == "end"
        assert [each.topic async for each in reader] == []

    run(scenario())


class Names(TickProcessor):
    """Emits its process id."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.emit(os.getpid())


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_outputs_of_the_next_process_follow_those_of_a_killed_one(launcher: str) -> None:
    async def scenario() -> None:
        clock = make_clock(launcher)
        async with clock, clock.outputs() as reader:
            clock.add_processor(Names(), name="a")
            first = await anext(reader)
            os.kill(first.payload, signal.SIGKILL)
            second = await anext(reader)
            assert (first.incarnation, first.seq) == (1, 1)
            assert (second.incarnation, second.seq) == (2, 1)

    run(scenario())


class Forks(TickProcessor):
    """Forks a child that tries to emit, and emits what became of that."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.emit("before")
        self.task = asyncio.get_running_loop().create_task(self.fork())

    async def fork(self) -> None:
        await asyncio.sleep(0.05)  # until the socket for outputs is connected
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                self.emit("from the child")
                said = "accepted"
            except OutputError as error:
                said = str(error)
            os.write(write, said.encode())
            os._exit(0)
        os.waitpid(pid, 0)  # noqa: ASYNC222 – the child ends at once
        self.emit(os.read(read, 1000).decode())


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_a_forked_child_of_a_worker_cannot_emit(launcher: str) -> None:
    async def scenario() -> None:
        clock = make_clock(launcher)
        async with clock, clock.outputs() as reader:
            clock.add_processor(Forks(), name="a")
            assert (await anext(reader)).payload == "before"
            assert "a forked child of the worker cannot emit" in (await anext(reader)).payload

    run(scenario())


def test_a_flood_that_nobody_reads_leaves_memory_flat() -> None:
    me = psutil.Process()

    async def scenario() -> None:
        clock = make_clock("forkserver")
        never_read = clock.outputs("numbers", buffer=1000)
        unread = clock.outputs("numbers", when_full="wait", buffer=1000)
        async with clock:
            handle = clock.add_processor(Bursts(1_000_000_000, 1000), name="a")
            await handle.wait_ready()
            assert handle.pid is not None
            worker = psutil.Process(handle.pid)
            emitted = handle.statistics().outputs_emitted
            await eventually(lambda: handle.statistics().outputs_emitted > emitted + 10_000)
            before = me.memory_info().rss, worker.memory_info().rss
            emitted = handle.statistics().outputs_emitted
            await eventually(lambda: handle.statistics().outputs_emitted > emitted + 100_000, 60.0)
            after = me.memory_info().rss, worker.memory_info().rss
            assert after[0] - before[0] < 30 * MEGABYTE
            assert after[1] - before[1] < 30 * MEGABYTE
            assert len(unread._buffer) < 2000
            assert never_read.dropped >= 0

    run(scenario())


def read_a_million(count: int, workers: int) -> None:
    """The owner of the test below: reads everything and says what was wrong."""

    async def scenario() -> str:
        clock = make_clock("forkserver", when_full="wait")
        read: dict[str, int] = {}
        async with clock, clock.outputs() as reader:
            for number in range(workers):
                clock.add_processor(Counts(count // workers), name=f"w{number}")
            print("reads", flush=True)
            ended = 0
            while ended < workers:
                output = await anext(reader)
                last = read.get(output.worker, 0)
                if output.seq != last + 1 or output.incarnation != 1:
                    return f"{output} follows {last}"
                read[output.worker] = output.seq
                ended += output.topic == "end"
        return f"ended {sum(read.values())}"

    print(asyncio.run(scenario()), flush=True)


def stop_and_continue(owner: subprocess.Popen[str], longest: float) -> None:
    """Send SIGSTOP and SIGCONT at random until the owner ends."""
    while owner.poll() is None:
        time.sleep(random.uniform(0.0, 0.3))  # the moment of the fault is random
        owner.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.0, longest))  # the fault under test
        owner.send_signal(signal.SIGCONT)


@pytest.mark.timeout(150 + COUNT // 1000)
def test_no_output_is_lost_while_the_owner_is_stopped_at_random() -> None:
    count, workers = COUNT, 2
    program = f"from {__name__} import read_a_million; read_a_million({count}, {workers})"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "reads\n"
        stop_and_continue(owner, longest=0.5 if count == FEW else 5.0)
        said = owner.stdout.read()
    assert said == f"ended {count + workers}\n"
