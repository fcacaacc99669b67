"""A Ray head node on this machine alone."""

from __future__ import annotations

import logging
import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported

import ray

__all__ = ["start"]

ADDRESS = "127.0.0.2"
"""Ray replaces 127.0.0.1 by the machine's own address; this is the loopback interface, too."""

STORE = 100 * 1024 * 1024
"""Bytes of the object store: ticks do not go through it."""


def start() -> None:
    """Start it, without a dashboard and without its logs on our output."""
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=STORE,
        _node_ip_address=ADDRESS,
    )
