"""What a clock refuses, at once, naming the argument, the value and what it may be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import ClockConfig, ClockMode, ConfigError, RealtimeClock

CONFIG = ClockConfig(clock_mode=ClockMode.REALTIME)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("groups", ["a"], r"groups = \['a'\].*dict of strategies"),
        ("groups", {"a": "one_for_none"}, r"groups\['a'\] = 'one_for_none'.*'one_for_all'"),
        ("groups", {1: "one_for_all"}, r"groups = 1.*keys are names"),
        ("restart_budget", 5, r"restart_budget = 5.*must be a RestartBudget"),
        ("supervision", 5, r"supervision = 5.*must be a Supervision"),
        ("event_loop", "trio", r"event_loop = 'trio'.*'asyncio' or 'uvloop'"),
        ("state_dir", "/proc/none", r"state_dir = '/proc/none'.*cannot be written to"),
    ],
)
def test_an_argument_that_is_none_of_its_kind(argument: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RealtimeClock(CONFIG, **{argument: value})


def test_an_event_loop_that_is_not_installed_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'chronopype-mp\[uvloop\]'"):
        RealtimeClock(CONFIG, event_loop="uvloop")


def test_a_state_dir_is_made_with_all_that_leads_to_it(tmp_path: Path) -> None:
    RealtimeClock(CONFIG, state_dir=tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
