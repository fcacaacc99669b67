"""What a worker tells of itself."""

from __future__ import annotations

import mmap

import psutil
import pytest

from chronopype_mp.worker.process_limits import Usage


def test_the_usage_is_that_of_this_process_now() -> None:
    usage, me = Usage(), psutil.Process()
    rss, cpu = usage()
    assert rss == pytest.approx(me.memory_info().rss, rel=0.1)
    # A mapping of its own: malloc may serve as much from memory that it freed and still holds.
    with mmap.mmap(-1, 50_000_000) as held:
        held.write(b"x" * len(held))
        more_rss, more_cpu = usage()
    assert more_rss - rss > 0.9 * 50_000_000
    times = me.cpu_times()
    assert cpu <= more_cpu <= times.user + times.system + 0.5
