"""The checks of ``snapshot_interval``, ``snapshot_version`` and ``mirrored``."""

from __future__ import annotations

from chronopype_mp.core.checks import at_least, whole
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors.base import TickProcessor

__all__ = ["MOST_MIRRORED", "SHORTEST_INTERVAL", "check_state_settings"]

SHORTEST_INTERVAL = 0.01
"""Seconds between two snapshots."""

MOST_MIRRORED = 100
"""Names in ``mirrored``."""


def check_state_settings(processor: TickProcessor) -> None:
    """Check the settings of a processor's snapshots and mirrored attributes.

    Raises:
        ConfigError: one is invalid.
    """
    owner = type(processor).__name__
    at_least(owner, "snapshot_interval", processor.snapshot_interval, SHORTEST_INTERVAL)
    whole(owner, "snapshot_version", processor.snapshot_version, 0)
    mirrored: object = processor.mirrored
    if not isinstance(mirrored, tuple | list) or len(mirrored) > MOST_MIRRORED:
        problem = f"must be a tuple of up to {MOST_MIRRORED} names of attributes"
        raise ConfigError(owner, "mirrored", mirrored, problem)
    for name in mirrored:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ConfigError(owner, "mirrored", name, "must be the name of a public attribute")
