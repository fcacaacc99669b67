"""The account of every tick published for a worker, over all its incarnations.

A tick counts as published for a worker if the worker was READY at that time. In the end it is run,
missed, skipped or lost. `TickTotals.closes` says whether the sum is right.
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.state import TickAccount

__all__ = ["Ledger", "TickTotals"]


class TickTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a worker's ticks.

    Attributes:
        published: ticks published while the worker was READY, counted by the coordinator.
        run: executed, successfully or not; counted by the worker, like the next two.
        missed: replaced by a newer one, or dropped by the socket.
        skipped: held back while paused or not connected.
        lost: not accounted for by a process that died.
    """

    published: int = 0
    run: int = 0
    missed: int = 0
    skipped: int = 0
    lost: int = 0

    @property
    def closes(self) -> bool:
        """Whether every published tick is accounted for. While a worker runs, some are not yet."""
        return self.published == self.run + self.missed + self.skipped + self.lost


class Ledger:
    """Adds up the accounts of a worker's incarnations."""

    def __init__(self) -> None:
        self._closed = TickTotals()
        self._open: TickAccount | None = None

    def open(self, base: int) -> None:
        """Open the account of an incarnation after tick ``base``."""
        self._open = TickAccount(base)

    def report(self, account: TickAccount) -> None:
        """Take what the incarnation has counted so far; an older report changes nothing."""
        known = self._open
        if known and account.base == known.base and account.through >= known.through:
            self._open = account

    def close(self, seq: int, stopped_at: int | None = None) -> int:
        """End the account of an incarnation whose process has ended.

        Args:
            seq: the last tick known to be published.
            stopped_at: the last tick before the stop that the incarnation has confirmed; it has
                taken none after that.

        Returns:
            How many ticks were lost with the process.
        """
        if self._open is None:
            return 0
        account, self._open = self._open, None
        end = _end_of(account, seq, stopped_at)
        lost = end - account.through
        self._closed = self._sum(account, end, lost)
        return lost

    def totals(self, seq: int, stopped_at: int | None = None) -> TickTotals:
        """Return the totals, the open account included; the arguments are those of `close`."""
        if self._open is None:
            return self._closed
        end = _end_of(self._open, seq, stopped_at)
        return self._sum(self._open, end, 0)

    def _sum(self, account: TickAccount, end: int, lost: int) -> TickTotals:
        before = self._closed
        return TickTotals(
            published=before.published + end - account.base,
            run=before.run + account.run,
            missed=before.missed + account.missed,
            skipped=before.skipped + account.skipped,
            lost=before.lost + lost,
        )


def _end_of(account: TickAccount, seq: int, stopped_at: int | None) -> int:
    """Return the last tick that an account covers."""
    if stopped_at is None or account.through > stopped_at:  # it ignores the stop
        # The process may have run a tick that the ticker thread has not noted yet.
        return max(account.through, seq)
    return stopped_at
