"""The search for what workers have left behind."""

from __future__ import annotations

import threading

import pytest

from chronopype_mp.launchers import leftovers
from chronopype_mp.launchers.leftovers import Leftovers


def test_a_search_that_fails_is_repeated_whatever_it_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = threading.Semaphore(0)
    errors = [ValueError("boom"), OSError("no more descriptors")]

    def search(ended: set[bytes]) -> set[bytes]:
        searched.release()
        if errors:
            raise errors.pop()
        return set()

    monkeypatch.setattr(leftovers, "kill_marked", search)
    monkeypatch.setattr(leftovers, "RETRY", 0.01)
    left = Leftovers()
    left.of(1_000_000_000)
    for _ in range(3):
        assert searched.acquire(timeout=10.0)
    assert left.close(10.0)
