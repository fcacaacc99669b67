"""Memory stays flat whatever is emitted: in the owner, in the publisher and in a subscriber."""

from __future__ import annotations

import os

import psutil
import pytest

from chronopype_mp import TickProcessor, remote
from tests.system.clocks import run
from tests.system.test_messages import make_clock
from tests.waiting import running

MEGABYTE = 1 << 20

TOPICS = int(os.environ.get("CHRONOPYPE_MP_TEST_TOPICS", "25000"))
"""Topics of each kind that are used once in a round: more than any table keeps."""

ROUNDS = 3

PER_TICK = 250

KEPT = bytes(4000)
"""A retained payload; one round of them exceeds what is retained."""


class UsesOnce(TickProcessor):
    """Emits rounds of messages, each to a topic of its own, and as many to one that nobody wants.

    The topics of ``once`` have a subscriber and a reader of outputs, those of ``kept`` are retained
    and have a reader, and those of ``alone`` have nobody.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.round = 0

    @remote
    def begin_round(self) -> None:
        self.round += 1

    def tick(self, timestamp: float) -> None:
        if self.number >= self.round * TOPICS:
            return
        for _ in range(PER_TICK):
            self.number += 1
            self.emit(self.number, topic=f"once.t{self.number}")
            self.emit(KEPT, topic=f"kept.t{self.number}", retain=True)
            self.emit(self.number, topic=f"alone.t{self.number}")
            self.emit(bytes(1000), topic="nobody")
        if self.number >= self.round * TOPICS:
            self.emit(self.round, topic="done")


class Subscriber(TickProcessor):
    """Subscribes to topics that are used once."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribe("once.*")

    def on_message(self, topic: str, payload: int) -> None:
        assert topic == f"once.t{payload}"


@pytest.mark.timeout(60 + TOPICS // 250)
def test_topics_used_once_and_readers_that_never_read_leave_memory_flat() -> None:
    """The first round fills what is bounded; the next ones add nothing."""

    async def scenario() -> None:
        async with make_clock("forkserver", tick_size=0.02) as clock:
            never_read = clock.outputs("once.*", "kept.*", buffer=1000)
            done = aiter(clock.outputs("done"))
            workers = [
                clock.add_processor(UsesOnce(), name="publisher"),
                clock.add_processor(Subscriber(), name="subscriber"),
            ]
            for handle in workers:
                await handle.wait_ready()
            processes = [psutil.Process(), *(psutil.Process(handle.pid) for handle in workers)]

            def memory() -> list[int]:
                return [process.memory_info().rss // MEGABYTE for process in processes]

            at_round = [memory()]
            async with running(clock):
                for number in range(1, ROUNDS + 1):
                    await workers[0].call("begin_round")
                    assert (await anext(done)).payload == number
                    at_round.append(memory())
            print(f"MB of owner, publisher and subscriber before and after each round: {at_round}")
            assert workers[1].statistics().messages_received > TOPICS
            assert never_read.dropped > TOPICS
            first, last = at_round[1], at_round[-1]
            assert all(after - before < 20 for before, after in zip(first, last, strict=True))
            assert all(
                after - before < 150 for before, after in zip(at_round[0], first, strict=True)
            )

    run(scenario(), 50.0 + TOPICS // 250)
