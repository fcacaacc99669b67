"""How many descriptors are left, while the limit changes."""

from __future__ import annotations

import os
import resource

import pytest

from chronopype_mp.transport import descriptors


def test_a_limit_that_is_lowered_during_the_look_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 128
    limits = [low * 3, low * 2, low]
    monkeypatch.setattr(
        descriptors, "soft_limit", lambda: limits.pop(0) if len(limits) > 1 else limits[0]
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        used = sum(int(name) < low for name in os.listdir("/dev/fd")) - 1
        assert descriptors.spare_descriptors() == low - used
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == [low]
