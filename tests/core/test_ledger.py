"""The ledger: every tick of a worker, over all its incarnations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.ledger import Ledger, TickTotals
from chronopype_mp.core.state import TickAccount


def test_a_worker_that_never_opened_an_account_has_no_ticks() -> None:
    ledger = Ledger()
    assert ledger.totals(100) == TickTotals()
    assert ledger.close(100) == 0
    assert ledger.totals(100).closes


def test_an_open_account_shows_what_is_still_under_way() -> None:
    ledger = Ledger()
    ledger.open(10)
    ledger.report(TickAccount(base=10, run=3, missed=1, skipped=2))
    totals = ledger.totals(18)
    assert totals == TickTotals(published=8, run=3, missed=1, skipped=2)
    assert not totals.closes


def test_what_a_process_that_died_had_not_accounted_for_is_lost() -> None:
    ledger = Ledger()
    ledger.open(10)
    ledger.report(TickAccount(base=10, run=3))
    assert ledger.close(18) == 5
    assert ledger.totals(30) == TickTotals(published=8, run=3, lost=5)
    assert ledger.totals(30).closes


def test_after_an_orderly_stop_nothing_is_lost_whatever_was_published_later() -> None:
    ledger = Ledger()
    ledger.open(10)
    ledger.stop_sent(14)
    ledger.stop_sent(16)
    ledger.report(TickAccount(base=10, run=4))
    assert ledger.close(20) == 0
    assert ledger.totals(20) == TickTotals(published=4, run=4)


def test_a_worker_that_dies_after_the_stop_loses_what_it_had_not_done_by_then() -> None:
    ledger = Ledger()
    ledger.open(10)
    ledger.stop_sent(14)
    ledger.report(TickAccount(base=10, run=1))
    assert ledger.close(20) == 3
    assert ledger.totals(20).closes


def test_a_report_of_an_account_that_is_not_open_is_nothing_to_the_one_that_is() -> None:
    ledger = Ledger()
    ledger.report(TickAccount(base=0, run=5))
    ledger.open(10)
    ledger.report(TickAccount(base=0, run=5))
    assert ledger.totals(10) == TickTotals()


COUNTS = st.integers(min_value=0, max_value=9)


@given(
    st.lists(
        st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans()),
        max_size=10,
    )
)
def test_over_any_incarnations_every_published_tick_is_run_missed_skipped_or_lost(
    lives: list[tuple[int, int, int, int, int, bool]],
) -> None:
    ledger = Ledger()
    seq, published, lost = 0, 0, 0
    for down, run, missed, skipped, open_at_the_end, stopped in lives:
        seq += down
        ledger.open(seq)
        account = TickAccount(seq, run, missed, skipped)
        ledger.report(account)
        if stopped:
            ledger.stop_sent(account.through)
        assert ledger.close(account.through + open_at_the_end) == (
            0 if stopped else open_at_the_end
        )
        seq = account.through + open_at_the_end
        published += run + missed + skipped + (0 if stopped else open_at_the_end)
        lost += 0 if stopped else open_at_the_end
        totals = ledger.totals(seq)
        assert totals.closes
        assert (totals.published, totals.lost) == (published, lost)
    assert ledger.totals(seq).run == sum(life[1] for life in lives)
