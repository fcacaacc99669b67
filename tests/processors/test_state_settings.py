"""Settings of snapshots and of mirrored attributes that cannot work are refused."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp.exceptions import ConfigError, HookError
from chronopype_mp.processors import TickProcessor
from chronopype_mp.processors.hook_checks import check_hooks


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"snapshot_interval": 0.0}, r"P\.snapshot_interval = 0\.0: must be at least 0\.01"),
        ({"snapshot_interval": None}, "must be a number"),
        ({"snapshot_version": "1"}, "must be a whole number"),
        ({"mirrored": "price"}, r"P\.mirrored = 'price': must be a tuple of up to 100 names"),
        ({"mirrored": ("a b",)}, "must be the name of a public attribute"),
        ({"mirrored": ("_own_state",)}, "must be the name of a public attribute"),
        ({"mirrored": tuple(f"a{n}" for n in range(101))}, "up to 100 names"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_hooks(type("P", (TickProcessor,), values)())


def test_settings_may_be_the_objects_own() -> None:
    one = TickProcessor()
    one.snapshot_interval, one.mirrored = 2, ("price",)
    assert check_hooks(one) == []
    one.snapshot_interval = -1
    with pytest.raises(ConfigError):
        check_hooks(one)


class Snaps(TickProcessor):
    def snapshot(self) -> int:
        return 1


class Restores(TickProcessor):
    def restore(self, state: int) -> None:
        pass


class Awaits(Restores):
    async def snapshot(self) -> int:  # type: ignore[override]
        return 1


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Snaps, r"^Snaps overrides snapshot, but not restore; add `def restore\(self, state\)`"),
        (Restores, r"^Restores overrides restore, but not snapshot; add `def snapshot\(self\)`"),
        (Awaits, r"^Awaits\.snapshot is `async def`, but nobody awaits it"),
    ],
)
def test_half_of_the_hooks_is_refused(kind: type[TickProcessor], problem: str) -> None:
    with pytest.raises(HookError, match=problem):
        check_hooks(kind())
