"""Messages between processors, whichever launcher has started their workers."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from chronopype_mp import (
    ClockConfig,
    ClockMode,
    HookError,
    MessageError,
    Output,
    RealtimeClock,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerHandle,
)
from chronopype_mp.events import ProcessorFailed, WorkerDied, WorkerReady
from chronopype_mp.testing import EventRecorder, faults
from tests.system.clocks import eventually, run
from tests.system.neighbours import QUICK
from tests.waiting import running

every_launcher = pytest.mark.parametrize("launcher", ["inline", "forkserver", "spawn"])

MANY = 10_000
"""Topics."""

KILLS = int(os.environ.get("CHRONOPYPE_MP_TEST_KILLS", "4"))
"""Rounds in which workers are killed."""


class Price(msgspec.Struct, frozen=True):
    value: float


class Own(BaseException):
    """What no ``except Exception`` catches."""


def make_clock(launcher: str, tick_size: float = 0.05, **config: Any) -> RealtimeClock:
    settings = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=tick_size, **config)
    supervision = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=1000))
    return RealtimeClock(settings, launcher=launcher, supervision=supervision)


class Feed(TickProcessor):
    """Emits in its start what is retained, and the rest when it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribe("go")

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        for value in (1.0, 2.0):
            self.emit(Price(value), topic="prices.btc", retain=True)
        self.emit("old", topic="news")

    def on_message(self, topic: str, payload: object) -> None:
        self.emit(Price(3.0), topic="prices.btc")
        self.emit("no price", topic="prices.eth")
        for number in range(5):
            self.emit(number, topic="numbers.all")
            self.emit(number, topic="others")
        for kind in ("raise", "exit", "hang", "last"):
            self.emit(kind, topic="orders")


class Reader(TickProcessor):
    """Notes its messages and ticks, and shows them to the owner."""

    message_types = {"prices.*": Price}  # noqa: RUF012 – as users write it

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []
        self.busy = ""
        self.subscribe("prices.*", "orders")

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.subscribe("numbers.**")
        self.emit("ready", topic="go")

    def note(self, what: Any) -> None:
        self.notes.append(what)
        self.emit(what, topic="notes")

    def tick(self, timestamp: float) -> None:
        self.note("tick beside a message" if self.busy else "tick")

    def on_message(self, topic: str, payload: Any) -> Any:
        assert not self.busy
        if isinstance(payload, Price):
            payload = [payload.value]
        self.note([topic, payload])
        if payload == 2:
            self.unsubscribe("numbers.**")
        if payload == "raise":
            raise ValueError("it raised")
        if payload == "exit":
            raise Own("it raised more")
        return self.hang() if payload == "hang" else None

    async def hang(self) -> None:
        self.busy = "hang"
        try:
            await asyncio.sleep(3600)
        finally:
            self.busy = ""


class AsyncReader(Reader):
    async def on_message(self, topic: str, payload: Any) -> None:
        await asyncio.sleep(0.001)  # a message takes its time, and ticks wait meanwhile
        rest = super().on_message(topic, payload)
        if rest is not None:
            await rest


@every_launcher
@pytest.mark.parametrize("kind", [Reader, AsyncReader])
def test_messages_come_between_ticks_in_order_and_a_failing_one_stops_nothing(
    launcher: str, kind: type[Reader]
) -> None:
    async def scenario() -> None:
        clock = make_clock(launcher, processor_timeout=0.3)
        notes: list[Any] = []
        ended = asyncio.Event()

        async with clock:
            events = EventRecorder(clock.events)
            outputs = clock.outputs("notes")

            async def read() -> None:
                async for output in outputs:
                    notes.append(output.payload)
                    if output.payload == ["orders", "last"]:
                        ended.set()

            reading = asyncio.create_task(read())
            feed = clock.add_processor(Feed(), name="feed")
            await feed.wait_ready()
            async with running(clock):
                reader = clock.add_processor(kind(), name="reader")
                await ended.wait()
            failures = [(e.hook, e.type_name) for e in events.of(ProcessorFailed)]
        await reading
        messages = [note for note in notes if isinstance(note, list)]
        assert messages == [
            ["prices.btc", [2.0]],
            ["prices.btc", [3.0]],
            *[["numbers.all", number] for number in range(3)],
            *[["orders", word] for word in ("raise", "exit", "hang", "last")],
        ]
        assert notes[0] == ["prices.btc", [2.0]]  # before the first tick
        assert "tick beside a message" not in notes
        names = "MessageError", "ValueError", "Own", "TimeoutError"
        assert failures == [("on_message", name) for name in names]
        statistics = reader.statistics()
        assert statistics.messages_received >= len(messages) + 1
        assert statistics.message_gaps == statistics.frames_dropped == 0
        assert feed.statistics().messages_received == 1

    run(scenario())


class Board(TickProcessor):
    """Retains many values; a new round of them whenever it is asked for one."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribe("round")

    def on_message(self, topic: str, payload: int) -> None:
        for number in range(MANY):
            self.emit(payload, topic=f"values.v{number}", retain=True)
        self.emit(payload, topic="done")


class Asks(TickProcessor):
    """Asks for a round when it starts."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.emit(self.number, topic="round")


class Latest(TickProcessor):
    """Has the last value of each topic, and shows at its first tick what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, int] = {}
        self.ticked = False
        self.twice = 0
        self.subscribe("values.*")

    def on_message(self, topic: str, payload: int) -> None:
        self.twice += self.values.get(topic) == payload
        self.values[topic] = payload

    def tick(self, timestamp: float) -> None:
        if not self.ticked:
            self.ticked = True
            self.emit([len(self.values), min(self.values.values()), self.twice], topic="first")


def stand_still(seconds: float) -> None:
    """Block the owner's event loop: the fault under test."""
    time.sleep(seconds)


@every_launcher
def test_a_restarted_subscriber_has_all_retained_values_before_its_first_tick(
    launcher: str,
) -> None:
    """Also those of a publisher that has died, and those published while the owner was blocked."""

    async def scenario() -> None:
        async with make_clock(launcher) as clock:
            first, done = clock.outputs("first"), clock.outputs("done")
            events = EventRecorder(clock.events)
            board = clock.add_processor(Board(), name="board")
            await board.wait_ready()
            clock.add_processor(Asks(1), name="one")
            await anext(aiter(done))
            async with running(clock):
                reader = clock.add_processor(Latest(), name="reader")
                assert (await anext(aiter(first))).payload == [MANY, 1, 0]
                await clock.add_processor(Asks(2), name="two").wait_ready()
                if launcher != "inline":
                    stand_still(1.0)
                await anext(aiter(done))
                if launcher == "inline":
                    await reader.restart()
                else:
                    for handle in (board, reader):
                        faults.kill(handle)
                    await events.wait_for(WorkerReady, worker="reader", incarnation=2)
                assert (await anext(aiter(first))).payload == [MANY, 2, 0]

    run(scenario())


class Counts(TickProcessor):
    """Emits to its topics in turn, as fast as it can in every tick; a message each has a frame."""

    def __init__(self, topics: int, burst: int) -> None:
        super().__init__()
        self.burst = burst
        self.numbers = [0] * topics
        self.topic = 0

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.process = random.getrandbits(48)

    def tick(self, timestamp: float) -> None:
        for _ in range(self.burst):
            self.topic = (self.topic + 1) % len(self.numbers)
            self.numbers[self.topic] += 1
            payload = [self.process, self.numbers[self.topic], bytes(500)]
            self.emit(payload, topic=f"counts.t{self.topic}")


class CountsGaps(TickProcessor):
    """Counts gaps by the payloads, which the package knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[tuple[str, int], int] = {}
        self.counts: Counter[str] = Counter()
        self.subscribe("counts.*")

    def on_message(self, topic: str, payload: list[Any]) -> None:
        process, number, _ = payload
        last = self.last.get((topic, process))
        self.last[topic, process] = number
        self.counts["received"] += 1
        self.counts["twice"] += last is not None and number <= last
        self.counts["gaps"] += 0 if last is None else number - last - 1

    def stop(self) -> None:
        super().stop()
        self.emit(dict(self.counts), topic="gaps")


class Account:
    """The counts of a subscriber: its own, and those of the package, since its last death."""

    def __init__(self, clock: RealtimeClock, handle: WorkerHandle) -> None:
        self.handle = handle
        self.own: Counter[str] = Counter()
        self.before: Counter[str] = Counter()
        clock.outputs.subscribe(self.take, "gaps", worker=handle.name)
        clock.events.subscribe(self.forget, WorkerDied)

    def counted(self) -> Counter[str]:
        statistics = self.handle.statistics()
        return Counter(received=statistics.messages_received, gaps=statistics.message_gaps)

    def take(self, output: Output) -> None:
        self.own.update(output.payload)

    def forget(self, event: WorkerDied) -> None:
        if event.worker == self.handle.name:
            self.own, self.before = Counter(), self.counted()

    def is_exact(self) -> bool:
        return self.own["twice"] == 0 and self.own == self.counted() - self.before


@pytest.mark.timeout(60 + 10 * KILLS)
@every_launcher
def test_gaps_are_counted_exactly_while_workers_die_and_the_forwarder_stands_still(
    launcher: str,
) -> None:
    """Publishers and a subscriber are killed at random, beside 10,000 topics. A worker of the
    inline launcher has no process to kill and no forwarder, and is restarted instead."""
    seed = random.randrange(1_000_000)

    async def scenario() -> None:
        randomness = random.Random(seed)
        burst = 20 if launcher == "inline" else 200
        async with make_clock(launcher, tick_size=0.02) as clock:
            events = EventRecorder(clock.events)
            steady = clock.add_processor(CountsGaps(), name="steady")
            victims = [
                clock.add_processor(processor, name=name)
                for name, processor in (
                    ("victim", CountsGaps()),
                    ("few", Counts(2, burst)),
                    ("many", Counts(MANY, burst)),
                )
            ]
            accounts = [Account(clock, handle) for handle in (steady, victims[0])]
            for handle in (steady, *victims):
                await handle.wait_ready()

            async def end(handle: WorkerHandle) -> None:
                if launcher == "inline":
                    await handle.restart()
                    return
                following = handle.incarnation + 1
                faults.kill(handle)
                await events.wait_for(
                    WorkerReady, worker=handle.name, incarnation=following, timeout=30.0
                )

            def starve(pause: float) -> None:
                """Keep the forwarder's thread from running, so that its queues fill up."""
                if launcher != "inline":
                    forwarder = clock._coordinator.hub._forwarder  # type: ignore[union-attr]
                    forwarder.call(lambda: time.sleep(pause))

            async def receive(count: int) -> None:
                goal = steady.statistics().messages_received + count
                await eventually(lambda: steady.statistics().messages_received >= goal, 30.0)

            async with running(clock):
                while launcher != "inline" and steady.statistics().message_gaps == 0:
                    starve(1.0)
                    await receive(100 * burst)
                for _ in range(KILLS):
                    await receive(randomness.randint(1, 50 * burst))
                    starve(randomness.choice([0.0, 0.5, 0.7]))
                    ended = randomness.sample(victims, randomness.randint(1, len(victims)))
                    await asyncio.gather(*(end(handle) for handle in ended))
        for account in accounts:
            assert account.is_exact(), (seed, account.own, account.counted(), account.before)
            print(f"seed {seed}, {account.handle.name}: {account.counted()}")

    run(scenario(), 50.0 + 10 * KILLS)


class Idle(TickProcessor):
    """Gets everything and reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribe("**")

    async def on_message(self, topic: str, payload: object) -> None:
        await asyncio.sleep(3600)


def test_a_class_that_cannot_get_messages_is_told_so_at_once() -> None:
    with pytest.raises(HookError, match="add `def on_message"):
        TickProcessor().subscribe("a")
    with pytest.raises(MessageError, match="must be a whole word"):
        Idle().subscribe("a*")
    processor = Idle()
    RealtimeClock(ClockConfig(clock_mode=ClockMode.REALTIME)).add_processor(processor)
    with pytest.raises(MessageError, match="belongs to the owner's process"):
        processor.subscribe("a")


class OwnSubscribe(TickProcessor):
    """A class that has these names for itself, as one written for chronopype may."""

    def subscribe(self, channel: str) -> None:  # type: ignore[override]
        self.channel = channel

    def on_message(self, message: str) -> None:  # type: ignore[override]
        raise AssertionError

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.subscribe("channel")
        self.emit(self.channel, topic="channel")


class Wrong(TickProcessor):
    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.subscribe("a")

    def on_message(self, message: str) -> None:  # type: ignore[override]
        raise AssertionError


def test_the_names_are_judged_only_in_a_class_that_subscribes() -> None:
    async def scenario() -> None:
        async with make_clock("inline") as clock:
            outputs = clock.outputs("channel")
            with pytest.raises(HookError, match=r"on_message.*\(self, topic, payload\)"):
                clock.add_processor(Wrong())
            clock.add_processor(OwnSubscribe())
            assert (await anext(aiter(outputs))).payload == "channel"

    run(scenario())
