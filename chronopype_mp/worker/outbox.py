"""Sends reports to the coordinator. Nothing here ever blocks the worker."""

from __future__ import annotations

from collections import deque

from chronopype_mp.core.codec import encode_report
from chronopype_mp.core.messages import Uplink
from chronopype_mp.transport.base import Sender

__all__ = ["Outbox"]

REPORTS_KEPT = 1000
"""Reports kept while the coordinator does not read."""


class Outbox:
    """Sends reports in order, and keeps up to `REPORTS_KEPT` while the socket is full.

    Args:
        sender: where to.

    Attributes:
        lost: reports dropped so far.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._kept: deque[bytes] = deque()
        self.lost = 0

    def post(self, report: Uplink) -> None:
        """Send a report, or keep it. If too many are kept, the oldest is dropped."""
        self.flush()
        frame = encode_report(report)
        if self._kept or not self._sender.send(frame):
            if len(self._kept) >= REPORTS_KEPT:
                self._kept.popleft()
                self.lost += 1
            self._kept.append(frame)

    def post_if_free(self, report: Uplink) -> None:
        """Send an expendable report (a beat, a log line), or drop and count it."""
        self.flush()
        if self._kept or not self._sender.send(encode_report(report)):
            self.lost += 1

    def flush(self) -> None:
        """Send kept reports until the socket is full."""
        while self._kept and self._sender.send(self._kept[0]):
            self._kept.popleft()
