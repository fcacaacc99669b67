"""A local Ray head node."""

from __future__ import annotations

import logging
import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported

import ray

__all__ = ["start"]

ADDRESS = "127.0.0.2"
"""Also a loopback address. Ray would replace 127.0.0.1 with the machine's own address."""

STORE = 100 * 1024 * 1024
"""Bytes of the object store, which ticks do not use."""


def start() -> None:
    """Start the node without a dashboard, and without logs in our output."""
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=STORE,
        _node_ip_address=ADDRESS,
    )
