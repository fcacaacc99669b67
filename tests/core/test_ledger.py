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
    ledger.report(TickAccount(0, run=4))
    assert ledger.totals(9, stopped_at=4) == TickTotals(published=4, run=4)
    assert ledger.close(9, stopped_at=4) == 0
    assert ledger.totals(9) == TickTotals(published=4, run=4)


def test_a_process_killed_while_stopping_loses_what_came_before_the_stop_it_confirmed() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=1))
    assert ledger.close(9, stopped_at=4) == 3
    assert ledger.totals(9) == TickTotals(published=4, run=1, lost=3)


def test_a_process_that_died_before_it_confirmed_a_stop_took_ticks_until_its_end() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=6))
    assert ledger.close(9) == 3
    assert ledger.totals(9) == TickTotals(published=9, run=6, lost=3)


def test_a_tick_that_was_run_before_the_ticker_noted_its_publication_counts_as_published() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=6))
    assert ledger.close(4) == 0
    assert ledger.totals(4) == TickTotals(published=6, run=6)


def test_a_report_that_was_overtaken_by_a_newer_one_changes_nothing() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=6))
    ledger.report(TickAccount(0, run=4))
    assert ledger.close(6) == 0


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
        self.stop: int | None = None
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
        self.stop = None
        self.ledger.open(self.base)

    @precondition(
        lambda self: self.base is not None and self.stop is None and self.through < self.seq
    )
    @rule(fate=st.sampled_from(["run", "missed", "skipped"]))
    def deal_with_a_tick(self, fate: str) -> None:
        self.fates[fate] += 1

    @precondition(lambda self: self.base is not None)
    @rule()
    def report(self) -> None:
        assert self.base is not None
        self.told = dict(self.fates)
        self.ledger.report(TickAccount(self.base, **self.told))

    @precondition(lambda self: self.base is not None and self.stop is None)
    @rule()
    def stop_gracefully(self) -> None:
        self.stop = self.seq
        self.fates["missed"] += self.seq - self.through
        self.report()

    @precondition(lambda self: self.base is not None)
    @rule()
    def end(self) -> None:
        assert self.base is not None
        reported = self.base + sum(self.told.values())
        lost = self.ledger.close(self.seq, self.stop)
        assert lost == (self.seq if self.stop is None else self.stop) - reported
        assert self.stop is None or lost == 0
        self.base = None
        self.settled = {fate: self.settled[fate] + self.told[fate] for fate in self.settled}
        self.lost += lost

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


def test_a_process_that_takes_ticks_after_the_stop_that_it_confirmed_ignores_the_stop() -> None:
    ledger = Ledger()
    ledger.open(0)
    ledger.report(TickAccount(0, run=6))
    assert ledger.totals(9, stopped_at=4) == TickTotals(published=9, run=6)
    assert ledger.close(9, stopped_at=4) == 3
    assert ledger.totals(9) == TickTotals(published=9, run=6, lost=3)
