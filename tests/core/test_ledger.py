"""The ledger: whatever incarnations do, every tick published for a worker is accounted for."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chronopype_mp.core.ledger import Ledger, TickTotals
from chronopype_mp.core.state import TickAccount


def test_nothing_is_published_for_a_worker_that_is_not_ready() -> None:
    ledger = Ledger()
    assert ledger.totals(7) == TickTotals()
    assert ledger.close(7) == 0
    assert ledger.totals(9) == TickTotals()


def test_a_running_worker_owes_what_it_has_not_reported_yet() -> None:
    ledger = Ledger()
    ledger.open(5)
    ledger.report(TickAccount(5, run=2, missed=1))
    totals = ledger.totals(10)
    assert totals == TickTotals(published=5, run=2, missed=1)
    assert not totals.closes


def test_what_a_process_that_died_did_not_report_is_lost() -> None:
    ledger = Ledger()
    ledger.open(5)
    ledger.report(TickAccount(5, run=2, skipped=1))
    assert ledger.close(10) == 2
    assert ledger.totals(99) == TickTotals(published=5, run=2, skipped=1, lost=2)
    assert ledger.totals(99).closes


def test_what_is_published_after_a_stop_is_not_the_workers() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.stop_sent(4)
    ledger.report(TickAccount(0, run=4))
    assert ledger.close(9, stopped=True) == 0
    assert ledger.totals(9) == TickTotals(published=4, run=4)


def test_of_a_repeated_stop_the_one_that_the_worker_saw_ends_its_account() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.stop_sent(4)
    ledger.stop_sent(6)
    ledger.report(TickAccount(0, run=6))
    assert ledger.close(9, stopped=True) == 0
    assert ledger.totals(9) == TickTotals(published=6, run=6)


def test_a_process_killed_while_stopping_loses_what_came_before_the_first_stop() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=1))
    ledger.stop_sent(4)
    ledger.stop_sent(6)
    assert ledger.close(9, stopped=True) == 3
    assert ledger.totals(9) == TickTotals(published=4, run=1, lost=3)


def test_a_process_that_died_before_it_saw_a_stop_took_ticks_until_its_end() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.stop_sent(4)
    ledger.report(TickAccount(0, run=6))
    assert ledger.close(9) == 3
    assert ledger.totals(9) == TickTotals(published=9, run=6, lost=3)


def test_the_account_of_another_incarnation_changes_nothing() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.close(3)
    ledger.open(5)
    ledger.report(TickAccount(0, run=3))
    assert ledger.totals(5) == TickTotals(published=3, lost=3)


class Incarnations(RuleBasedStateMachine):
    """One worker over its incarnations: what the ledger is told, and what it must make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.seq = 0
        self.base: int | None = None
        self.fates = {"run": 0, "missed": 0, "skipped": 0}
        self.told = dict(self.fates)
        self.stops: list[int] = []
        self.settled = dict(self.fates)
        self.lost = 0
        self.published = 0

    @property
    def through(self) -> int:
        """The last tick that the incarnation has dealt with."""
        assert self.base is not None
        return self.base + sum(self.fates.values())

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        self.seq += count

    @precondition(lambda self: self.base is None)
    @rule()
    def get_ready(self) -> None:
        self.base = self.seq
        self.fates = dict.fromkeys(self.fates, 0)
        self.told = dict(self.fates)
        self.stops = []
        self.ledger.open(self.base)

    @precondition(lambda self: self.base is not None and self.through < self.seq)
    @rule(fate=st.sampled_from(["run", "missed", "skipped"]))
    def deal_with_a_tick(self, fate: str) -> None:
        self.fates[fate] += 1

    @precondition(lambda self: self.base is not None)
    @rule()
    def report(self) -> None:
        assert self.base is not None
        self.told = dict(self.fates)
        self.ledger.report(TickAccount(self.base, **self.told))

    @precondition(lambda self: self.base is not None)
    @rule()
    def send_stop(self) -> None:
        self.stops.append(self.seq)
        self.ledger.stop_sent(self.seq)

    @precondition(lambda self: self.base is not None and any(s >= self.through for s in self.stops))
    @rule(data=st.data())
    def stop_in_order(self, data: st.DataObject) -> None:
        seen = data.draw(st.sampled_from([s for s in self.stops if s >= self.through]))
        self.fates["missed"] += seen - self.through
        self.report()
        assert self._end(stopped=True) == 0

    @precondition(lambda self: self.base is not None)
    @rule(stopped=st.booleans())
    def die(self, stopped: bool) -> None:
        assert self.base is not None
        reported = self.base + sum(self.told.values())
        stopped = stopped and bool(self.stops)
        lost = self._end(stopped)
        if stopped:
            assert lost == max(0, self.stops[0] - reported)
        else:
            assert lost == self.seq - reported

    def _end(self, stopped: bool) -> int:
        lost = self.ledger.close(self.seq, stopped)
        assert lost >= 0
        self.base = None
        self.settled = {fate: self.settled[fate] + self.told[fate] for fate in self.settled}
        self.lost += lost
        return lost

    @invariant()
    def the_totals_add_up_what_was_reported(self) -> None:
        totals = self.ledger.totals(self.seq)
        unsettled = self.told if self.base is not None else dict.fromkeys(self.told, 0)
        for fate, count in self.settled.items():
            assert getattr(totals, fate) == count + unsettled[fate]
        assert totals.lost == self.lost
        if self.base is None:
            assert totals.closes


TestIncarnations = Incarnations.TestCase
TestIncarnations.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
