"""Keeps the retained messages of all processors, and answers subscribers.

Its pure part is `chronopype_mp.core.retained_values`; `chronopype_mp.core.subscriptions` says why
an answer begins with a mark that comes back here.
"""

from __future__ import annotations

from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.message_frames import (
    RETAINED,
    Mark,
    answer_topic,
    decode_answer,
    decode_messages,
    encode_answer,
)
from chronopype_mp.core.messages import AskRetained
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.core.retained_values import RETAINED_BYTES, RetainedValues
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic
from chronopype_mp.transport.base import REST, OwnerPort

__all__ = ["RetainedMessages"]

logger = GuardedLogger("chronopype_mp.coordinator")

BATCH = 10
"""Frames handled between two looks at the time."""

TURN = 0.001
"""Seconds spent on them in one turn of the event loop. The ticker thread waits for the interpreter
meanwhile."""

WARNINGS_PER_SECOND = 1 / 60


class RetainedMessages:
    """Keeps retained messages.

    Args:
        port: the owner's access to messages.

    Attributes:
        garbage: frames that did not decode.
    """

    def __init__(self, port: OwnerPort) -> None:
        self._port = port
        self._values = RetainedValues()
        self._warnings = TokenBucket(WARNINGS_PER_SECOND, monotonic(), 1)
        self._told_displaced = 0
        self.garbage = 0

    def ask(self, asked: AskRetained) -> None:
        """Begin to answer a subscriber: put the mark into the stream of messages."""
        topic = answer_topic(asked.worker, asked.incarnation, asked.request)
        self._port.publish(encode_answer(topic, Mark(asked.request, asked.patterns)))

    def on_readable(self) -> None:
        """Handle what fits into one turn; the port calls again while there is more."""
        end = monotonic() + TURN
        while len(frames := self._port.receive(BATCH)) == BATCH:
            self._take_all(frames)
            if monotonic() >= end:
                self._port.ask_again(REST)
                return
        self._take_all(frames)

    def _take_all(self, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                self._take(frame)
            except FrameError:
                self.garbage += 1
        if self._values.displaced > self._told_displaced and self._warnings.take(1, monotonic()):
            self._told_displaced = self._values.displaced
            logger.warning(
                "%d retained messages were dropped, those published least recently, since all "
                "together exceed %d bytes; use fewer topics with retain=True",
                self._told_displaced,
                RETAINED_BYTES,
            )

    def _take(self, frame: bytes) -> None:
        if frame.startswith(RETAINED):
            self._values.put(*decode_messages(frame))
            return
        topic, mark = decode_answer(frame)
        if isinstance(mark, Mark):  # the other answers are our own
            for values in self._values.answer(mark.request, mark.patterns):
                self._port.publish(encode_answer(topic, values))
