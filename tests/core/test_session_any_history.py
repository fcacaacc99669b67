"""Both roles of a conversation against each other, over a wire that loses and mixes up frames."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.ledger import Ledger
from chronopype_mp.core.messages import (
    Beat,
    Bye,
    Call,
    Configure,
    Downlink,
    Ready,
    Status,
    Stop,
    Uplink,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.session import (
    CoordinatorSession,
    Due,
    SessionState,
    WorkerSession,
)
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.stimuli import GotReady, Stimulus
from tests.core.test_session import BOOT

HISTORIES = 300
STEPS = 60

STEP = 0.05
"""Seconds from one step to the next."""

CALM = 60
"""Steps on a perfect wire after which everything must be settled."""


class Wire:
    """One direction. Each frame is lost, delivered, delivered twice, or held back."""

    def __init__(self, rng: random.Random, faults: float) -> None:
        self._rng = rng
        self.faults = faults
        self._held: list[Uplink | Downlink] = []
        self.carried = 0

    def send(self, frame: Uplink | Downlink) -> list[Uplink | Downlink]:
        """Return what arrives now, held-back frames of earlier calls included."""
        self.carried += 1
        arriving = [frame]
        if self._rng.random() < self.faults:
            fate = self._rng.choice(("lost", "twice", "held"))
            arriving = {"lost": [], "twice": [frame, frame], "held": []}[fate]
            if fate == "held":
                self._held.append(frame)
        return arriving + self.release()

    def release(self) -> list[Uplink | Downlink]:
        """Return frames that were held back long enough, in any order."""
        self._rng.shuffle(self._held)
        count = self._rng.randint(0, len(self._held))
        released, self._held = self._held[:count], self._held[count:]
        return released


class History:
    """A coordinator and a worker that talk, tick, and get orders.

    Args:
        seed: of what happens.
        faults: the share of frames to which something happens.
    """

    def __init__(self, seed: int, faults: float) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.seq = 0
        self.wanted = WorkerSettings()
        self.coordinator = CoordinatorSession("a", 2, self.wanted)
        self.worker = WorkerSession(BOOT, 7, "")
        self.down, self.up = Wire(self.rng, faults), Wire(self.rng, faults)
        self.stimuli: list[Stimulus] = []
        self.ledger = Ledger()
        self.applied: WorkerSettings | None = None
        self.configured: list[int] = []
        self.called = 0
        self.ran: list[int] = []
        self.account: TickAccount | None = None
        self.network = self.shown = NetworkStatus.STOPPED
        self.stops = 0
        self.said_bye = False

    # What happens in one step

    def step(self, *, calm: bool = False) -> None:
        self.now += STEP
        self._tick()
        if not calm and self.rng.random() < 0.2:
            self.configure()
        if not calm and self.rng.random() < 0.3:
            self.call()
        if not calm and self.account is not None and self.rng.random() < 0.3:
            self.change_network()
        self._to_worker([], self.down.release())
        self._to_coordinator([], self.up.release())
        self._follow(self.worker.handle(Due(), self.now))
        if self.account is not None and not self.said_bye:
            self._beat()
        self._to_worker(self.coordinator.handle(Due(), self.now).commands)

    def configure(self) -> None:
        self.wanted = WorkerSettings(
            paused=self.rng.random() < 0.5,
            check_network_interval=self.rng.choice((None, 1.0, 2.0)),
        )
        self._to_worker(self.coordinator.configure(self.wanted, self.now))

    def call(self) -> None:
        call = Call(call=self.called + 1, method="m", arguments=b"", timeout=1.0)
        sent = self.coordinator.order(call, self.now)
        self.called += len(sent)
        self._to_worker(sent)

    def stop(self) -> None:
        self._to_worker(self.coordinator.order(Stop(), self.now))

    def say_bye(self) -> None:
        self.said_bye = True
        assert self.account is not None
        self._to_coordinator(
            self.worker.bye(self.account, TickCounters(), 0.0, ConnectionCounters())
        )

    def change_network(self) -> None:
        self.network = self.rng.choice(list(NetworkStatus))
        self._to_coordinator(self.worker.network_changed(self.network))

    def _tick(self) -> None:
        self.seq += 1
        account, stopped = self.account, self.worker.stopped_at is not None
        if account is not None and not stopped and self.rng.random() < 0.8:
            # The socket may have dropped some since the last one.
            missed = self.seq - 1 - account.through
            self.account = TickAccount(account.base, account.run + 1, account.missed + missed)
            self.worker.newest_tick = self.seq

    def _beat(self) -> None:
        figures = {"account": self.account, "counters": TickCounters()}
        self._to_coordinator(self.worker.beat(**figures, largest_gap=0.0, lag=0.0))

    # The edges

    def _to_worker(
        self, commands: list[Downlink], arriving: list[Uplink | Downlink] | None = None
    ) -> None:
        arriving = list(arriving or ())
        for command in commands:
            arriving += self.down.send(msgspec.structs.replace(command, seq=self.seq))
        for command in arriving:
            self._follow(self.worker.handle(command, self.now))  # type: ignore[arg-type]

    def _to_coordinator(
        self, reports: list[Uplink], arriving: list[Uplink | Downlink] | None = None
    ) -> None:
        arriving = list(arriving or ())
        for report in reports:
            arriving += self.up.send(report)
        for report in arriving:
            commands, stimuli, facts = self.coordinator.handle(report, self.now)  # type: ignore[arg-type]
            self.stimuli += stimuli
            for fact in facts:
                if isinstance(fact, Ready):
                    self.ledger.open(fact.base)
                elif isinstance(fact, Status):
                    self.shown = fact.network
                elif isinstance(fact, Beat | Bye) and fact.account is not None:
                    self.ledger.report(fact.account)
            self._to_worker(commands)

    def _follow(self, answer: tuple[list[Uplink], list[Downlink]]) -> None:
        reports, deeds = answer
        self._to_coordinator(reports)
        for deed in deeds:
            match deed:
                case Welcome():
                    self.applied = deed.settings
                    self.account = TickAccount(self.seq)
                    self._to_coordinator(self.worker.started(self.seq))
                case Configure():
                    self.applied = deed.settings
                    self.configured.append(deed.id)
                case Call():
                    self.ran.append(deed.call)
                case Stop():
                    self.stops += 1
                    assert self.account is not None
                    behind = deed.seq - self.account.through
                    if behind > 0:
                        self.account = TickAccount(
                            self.account.base, self.account.run, self.account.missed + behind
                        )

    def calm_down(self) -> None:
        """Let time pass on a wire that works."""
        self.down.faults = self.up.faults = 0.0
        for _ in range(CALM):
            self.step(calm=True)


histories = st.tuples(st.integers(0, 2**32), st.floats(0.0, 0.9), st.booleans())


@settings(max_examples=HISTORIES)
@given(histories)
def test_whatever_the_wire_does_both_sides_agree_in_the_end(case: tuple[int, float, bool]) -> None:
    seed, faults, stopped = case
    history = History(seed, faults)
    for _ in range(STEPS):
        history.step()
    history.calm_down()

    # READY, once, with the worker's own base.
    assert history.coordinator.state is SessionState.READY
    assert [type(each) for each in history.stimuli].count(GotReady) == 1
    # Settings converge; each was applied once, and none that is older than another before.
    assert history.applied == history.wanted
    assert history.configured == sorted(set(history.configured))
    assert history.coordinator.settled
    # Each call that was sent ran, once.
    assert sorted(history.ran) == list(range(1, history.called + 1))
    # The mirror shows the worker's network status, however many reports of it were lost.
    assert history.shown is history.network
    # No livelock: once all is settled, beats are all that is said.
    before = (history.down.carried, history.up.carried)
    history.step(calm=True)
    assert (history.down.carried, history.up.carried) == (before[0], before[1] + 1)

    if stopped:
        history.down.faults = history.up.faults = faults
        history.stop()
        for _ in range(STEPS):
            history.step()
        history.calm_down()
        assert history.stops == 1
        assert history.coordinator.settled
        assert history.coordinator.stopped_at == history.worker.stopped_at
        history.say_bye()
        lost = history.ledger.close(history.seq, history.coordinator.stopped_at)
        assert lost == 0
    else:
        # The process dies at any moment: nothing is confirmed, and what it did not report is lost.
        lost = history.ledger.close(history.seq)
        assert lost >= 0
    totals = history.ledger.totals(history.seq)
    assert totals.closes
    assert history.account is not None
    if stopped:
        assert totals.run == history.account.run
