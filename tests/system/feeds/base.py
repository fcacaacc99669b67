"""What the feeds have in common: short times, and where their server is."""

from __future__ import annotations

import logging

from chronopype_mp import BackoffPolicy, NetworkProcessor

USER = "feed"
"""The name that servers know, where they want one."""

PATIENCE = 1.0
"""Seconds that a client waits for an answer."""


class Feed(NetworkProcessor):
    """A connection to a server on loopback."""

    LOGGER_NAME = "tests.feed"
    network_backoff = BackoffPolicy(minimum=0.05, factor=2.0, maximum=0.4, jitter=0.0)
    check_network_interval = 0.25
    check_network_timeout = PATIENCE
    start_network_timeout = 20.0  # far more than the clients' own timeouts

    def __init__(self, port: int, password: str) -> None:
        super().__init__()
        self.port, self.password = port, password

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger(cls.LOGGER_NAME)

    def tick(self, timestamp: float) -> None:
        """Have something to do while connected."""
