"""What a worker in tests starts with."""

from __future__ import annotations

from typing import Any

from chronopype_mp.core.boot import TickRules, WorkerBoot

__all__ = ["boot_of_a"]


def boot_of_a(*, processor_timeout: float = 5.0, **others: Any) -> WorkerBoot:
    """Return the boot of worker ``a`` in its second incarnation, over the in-memory transport.

    Args:
        processor_timeout: of its ticks, seconds.
        others: fields of `WorkerBoot` that differ.
    """
    standard: dict[str, Any] = {
        "worker": "a",
        "incarnation": 2,
        "token": 99,
        "payload": b"",
        "down": "memory",
        "up": "memory",
        "data_up": "memory",
        "messages_in": "memory",
        "messages_out": "memory",
        "rules": TickRules(
            processor_timeout=processor_timeout, max_retries=0, stats_window_size=50
        ),
        "beat_interval": 1.0,
        "stop_grace": 5.0,
    }
    return WorkerBoot(**{**standard, **others})
