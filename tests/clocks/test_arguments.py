"""The arguments of a clock: an error names the argument, the value and what to do."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import (
    ClockConfig,
    ClockError,
    ClockMode,
    ConfigError,
    RealtimeClock,
    Resources,
    Supervision,
    TickProcessor,
)
from chronopype_mp.launchers import SpawnLauncher
from chronopype_mp.testing import ManualClock

CONFIG = ClockConfig(clock_mode=ClockMode.REALTIME)


class HalfALauncher:
    """Has one of a launcher's methods."""

    def open_hub(self, queued: int) -> None:
        raise AssertionError


class BytesPath:
    """A path that is not text."""

    def __fspath__(self) -> bytes:
        return b"/tmp"


async def coroutine(processor: object, error: BaseException) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("config", {"clock_mode": 1}, r"config = \{'clock_mode': 1\}: must be a ClockConfig"),
        ("error_callback", 5, r"error_callback = 5: is not callable; pass a plain function"),
        ("error_callback", coroutine, r"error_callback = .* coroutine function.*plain function"),
        ("launcher", 5, r"launcher = 5: must be 'forkserver', 'spawn', 'inline', or a launcher$"),
        ("launcher", b"spawn", r"launcher = b'spawn': must be 'forkserver'"),
        ("launcher", "fork", r"launcher = 'fork': must be one of forkserver, spawn, inline"),
        ("launcher", SpawnLauncher, r"launcher = <class .*: is a class.*SpawnLauncher\(\.\.\.\)"),
        ("launcher", HalfALauncher(), r"launcher = .*a launcher; it has no close\(\), start\(\)"),
        ("timing", None, r"timing = None: must be a TimeSource$"),
        ("timing", ManualClock, r"timing = <class .*: is a class.*ManualClock\(\.\.\.\)"),
        (
            "timing",
            time,
            r"timing = <module .*TimeSource; it has no get\(\), sleep_until\(\), wall",
        ),
        ("name", 5, r"name = 5: must be a non-empty str"),
        ("name", "", r"name = '': must be a non-empty str"),
        ("name", "a\nb", r"name = 'a\\nb': must be .* printable"),
        ("groups", ["a"], r"groups = \['a'\].*dict of strategies"),
        ("groups", [], r"groups = \[\].*dict of strategies"),
        ("groups", {"a": "one_for_none"}, r"groups\['a'\] = 'one_for_none'.*'one_for_all'"),
        ("groups", {"a": None}, r"groups\['a'\] = None.*'one_for_all'"),
        ("groups", {1: "one_for_all"}, r"groups = 1.*keys are names"),
        ("restart_budget", 5, r"restart_budget = 5: must be a RestartBudget"),
        ("supervision", 5, r"supervision = 5: must be a Supervision"),
        ("supervision", {}, r"supervision = \{\}: must be a Supervision"),
        ("event_loop", "trio", r"event_loop = 'trio': must be 'asyncio' or 'uvloop'"),
        ("event_loop", 5, r"event_loop = 5: must be 'asyncio' or 'uvloop'"),
        ("event_loop", None, r"event_loop = None: must be 'asyncio' or 'uvloop'"),
        ("event_loop", [], r"event_loop = \[\]: must be 'asyncio' or 'uvloop'"),
        ("state_dir", "/proc/none", r"state_dir = '/proc/none': cannot be written to"),
        ("state_dir", "a\0b", r"state_dir = .*: cannot be written to: .*embedded null"),
        ("state_dir", 5, r"state_dir = 5: must be the path of a directory"),
        ("state_dir", "", r"state_dir = '': must be the path of a directory"),
        ("state_dir", BytesPath(), r"state_dir = .*: must be the path of a directory, a str"),
    ],
)
def test_an_invalid_argument_is_refused_by_the_constructor(
    argument: str, value: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^RealtimeClock\.{said}") as caught:
        RealtimeClock(**{"config": CONFIG, argument: value})
    assert caught.value.field.startswith(argument)


def test_a_policy_that_this_machine_cannot_apply_is_refused_by_the_constructor() -> None:
    missing = max(os.sched_getaffinity(0)) + 1
    policy = Supervision(resources=Resources(cpu_affinity=[missing]))
    with pytest.raises(ConfigError, match="the cores here are"):
        RealtimeClock(CONFIG, supervision=policy)


def test_a_refused_clock_leaves_no_directory_behind(tmp_path: Path) -> None:
    with pytest.raises(ClockError, match="requires REALTIME mode"):
        RealtimeClock(ClockConfig(clock_mode=ClockMode.BACKTEST), state_dir=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_event_loop_that_is_not_installed_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'chronopype-mp\[uvloop\]'"):
        RealtimeClock(CONFIG, event_loop="uvloop")


def test_a_state_dir_is_made_with_all_that_leads_to_it(tmp_path: Path) -> None:
    RealtimeClock(CONFIG, state_dir=tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("A=1", r"env = <class 'str'>: must be a dict"),
        ({"A": 1}, r"env = 'A': the value of A must be a str"),
        ({"A": "hunter2\0"}, r"env = 'A': the value of A must be a str without null characters"),
        ({"A=B": "hunter2"}, r"env = 'A=B': is not the name of an environment variable"),
        ({"": "hunter2"}, r"env = '': is not the name of an environment variable"),
        ({3: "hunter2"}, r"env = 3: is not the name of an environment variable"),
    ],
)
def test_invalid_variables_are_refused_without_their_values(env: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        RealtimeClock(CONFIG).add_processor(TickProcessor(), env=env)
    assert "hunter2" not in str(caught.value)


def test_workers_without_processes_take_no_variables() -> None:
    clock = RealtimeClock(CONFIG, launcher="inline")
    with pytest.raises(ConfigError, match=r"env = \['A'\]: the inline launcher"):
        clock.add_processor(TickProcessor(), env={"A": "1"})
    clock.add_processor(TickProcessor(), env={})
