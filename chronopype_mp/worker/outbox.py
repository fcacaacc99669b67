"""Sends reports to the coordinator. Nothing here ever blocks the worker."""

from __future__ import annotations

from collections import deque

from chronopype_mp.core.codec import MAX_FRAME, encode_report
from chronopype_mp.core.messages import Uplink
from chronopype_mp.transport.base import Sender

__all__ = ["Outbox"]

BYTES_KEPT = 4_000_000
"""Bytes of reports kept while the coordinator does not read."""


class Outbox:
    """Sends reports in order, and keeps up to `BYTES_KEPT` of them while the socket is full.

    A report that does not fit into a frame is dropped: it would cost the connection.

    Args:
        sender: where to.

    Attributes:
        lost: reports dropped so far, here or by who limits their rate.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self.lost = 0

    def post(self, report: Uplink) -> None:
        """Send a report, or keep it. If too many are kept, the oldest are dropped."""
        self.flush()
        frame = encode_report(report)
        if len(frame) > MAX_FRAME:
            self.lost += 1
        elif self._kept or not self._sender.send(frame):
            self._kept.append(frame)
            self._bytes += len(frame)
            while self._bytes > BYTES_KEPT and len(self._kept) > 1:
                self._bytes -= len(self._kept.popleft())
                self.lost += 1

    def post_if_free(self, report: Uplink) -> bool:
        """Send an expendable report (a beat, a log line), or drop and count it.

        Returns:
            Whether it was sent.
        """
        self.flush()
        is_sent = not self._kept and self._sends(encode_report(report))
        self.lost += not is_sent
        return is_sent

    def _sends(self, frame: bytes) -> bool:
        return len(frame) <= MAX_FRAME and self._sender.send(frame)

    def flush(self) -> None:
        """Send kept reports until the socket is full."""
        while self._kept and self._sender.send(self._kept[0]):
            self._bytes -= len(self._kept.popleft())
