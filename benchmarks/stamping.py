"""A launcher whose hub records when the ticker thread publishes each tick."""

from __future__ import annotations

import time

from chronopype_mp.core.codec import TICK_TOPIC, decode_tick
from chronopype_mp.launchers import ForkserverLauncher
from chronopype_mp.transport.zeromq import ZmqHub

__all__ = ["StampingLauncher"]


class StampingLauncher(ForkserverLauncher):
    """Starts workers like the default launcher, and records when each tick is published."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[tuple[bytes, float]] = []

    def open_hub(self, queued: int) -> ZmqHub:
        """Return a hub that records the time before it publishes."""
        hub = super().open_hub(queued)
        publish = hub.publish

        def publish_and_note(frame: bytes) -> None:
            now = time.monotonic()
            publish(frame)
            self._noted.append((frame, now))

        hub.publish = publish_and_note  # type: ignore[method-assign]
        return hub

    @property
    def published(self) -> dict[float, float]:
        """The monotonic time, in seconds, at which each tick was published, by timestamp."""
        return {
            decode_tick(frame).timestamp: at
            for frame, at in self._noted
            if frame.startswith(TICK_TOPIC)
        }
