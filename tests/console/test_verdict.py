"""The demo's verdict: healthy workers stay unaffected, faulty workers fail and recover."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp.console.verdict import TROUBLE_DUE, Death, Role, WorkerRecord, judge
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import DeathReason

CONNECTING = (NetworkStatus.NOT_CONNECTED, NetworkStatus.CONNECTING, NetworkStatus.CONNECTED)
LOST = (NetworkStatus.DISCONNECTING, NetworkStatus.NOT_CONNECTED)
SEGFAULT = Death(DeathReason.SIGNALLED, -11)
KILL = Death(DeathReason.SIGNALLED, -9)
STALL = Death(DeathReason.LOOP_BLOCKED, -9)


def healthy(**changes: Any) -> WorkerRecord:
    values: dict[str, Any] = {
        "worker": "w",
        "role": Role.HEALTHY,
        "due": 300,
        "run": 300,
        "readies": 1,
        "statuses": CONNECTING,
        "at_end": NetworkStatus.CONNECTED,
    }
    return WorkerRecord(**(values | changes))


def restarted(role: Role, death: Death, **changes: Any) -> WorkerRecord:
    values: dict[str, Any] = {
        "role": role,
        "run": 297,
        "lost": 3,
        "restarts": 1,
        "readies": 2,
        "deaths": (death,),
        "statuses": (*CONNECTING, NetworkStatus.STOPPED, *CONNECTING),
    }
    return healthy(**(values | changes))


def came_back(**changes: Any) -> WorkerRecord:
    values: dict[str, Any] = {
        "role": Role.EXCHANGE,
        "run": 230,
        "skipped": 70,
        "statuses": (*CONNECTING, *LOST, *CONNECTING),
    }
    return healthy(**(values | changes))


def problems(record: WorkerRecord, seconds: float = 30.0, complete: bool = True) -> str:
    verdict = judge([record], seconds, complete=complete)
    assert verdict.ok == (not verdict.judgements[0].problems)
    return "; ".join(verdict.judgements[0].problems)


@pytest.mark.parametrize(
    "record",
    [
        healthy(),
        restarted(Role.BLOCKS, STALL, run=280, missed=17),
        restarted(Role.CRASHES, SEGFAULT),
        restarted(Role.KILLED, KILL, statuses=()),
        came_back(),
        came_back(statuses=(*CONNECTING[:2], *CONNECTING)),
    ],
    ids=lambda record: record.role.name,
)
def test_a_worker_that_did_as_expected_is_good(record: WorkerRecord) -> None:
    """An intended fault is no problem."""
    assert problems(record) == ""


def test_ticks_skipped_before_the_first_connection_are_no_harm() -> None:
    """A healthy worker may take a moment to connect."""
    assert problems(healthy(run=297, skipped=3)) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": 299, "missed": 1}, "missed 1 tick"),
        ({"run": 298, "lost": 2}, "lost 2 ticks"),
        ({"restarts": 1, "deaths": (STALL,)}, "was restarted (loop_blocked)"),
        ({"restarts": 1}, "was restarted (no death seen)"),
        ({"deaths": (SEGFAULT,)}, "was restarted (signalled)"),
        ({"statuses": (*CONNECTING, *LOST, *CONNECTING)}, "lost its connection"),
        ({"at_end": NetworkStatus.CONNECTING, "statuses": ()}, "was CONNECTING at the end"),
        ({"due": 0, "run": 0}, "ran no tick"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_harm_to_a_healthy_worker_is_bad(changes: dict[str, Any], said: str) -> None:
    """Any harm to a healthy worker must come from the others."""
    assert problems(healthy(**changes)) == said


@pytest.mark.parametrize("role", list(Role))
def test_an_account_that_does_not_close_is_bad_for_every_worker(role: Role) -> None:
    """Every due tick is exactly one of run, missed, skipped and lost."""
    assert "1 tick not accounted for" in problems(healthy(role=role, run=299), seconds=1.0)
    assert "2 ticks accounted for twice" in problems(healthy(role=role, run=302), seconds=1.0)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (healthy(role=Role.BLOCKS), "was never killed for blocking its loop"),
        (restarted(Role.BLOCKS, SEGFAULT), "was never killed for blocking its loop"),
        (restarted(Role.BLOCKS, STALL, readies=1), "did not recover"),
        (healthy(role=Role.CRASHES), "never segfaulted"),
        (restarted(Role.CRASHES, Death(DeathReason.EXITED, 1)), "never segfaulted"),
        (restarted(Role.CRASHES, SEGFAULT, restarts=0), "did not recover"),
        (restarted(Role.KILLED, SEGFAULT), "was never killed"),
        (restarted(Role.KILLED, KILL, readies=1), "did not recover"),
        (restarted(Role.KILLED, KILL, problems=("missed 2 trades",)), "missed 2 trades"),
        (healthy(role=Role.EXCHANGE), "its exchange made no trouble"),
        (came_back(at_end=NetworkStatus.ERROR), "did not come back: ERROR at the end"),
        (came_back(run=0, skipped=300), "ran no tick"),
        (
            came_back(restarts=1, deaths=(STALL,)),
            "was restarted, although only its exchange made trouble",
        ),
    ],
)
def test_trouble_that_did_not_happen_or_was_not_overcome_is_bad(
    record: WorkerRecord, said: str
) -> None:
    """A demo without its faults shows nothing."""
    assert problems(record) == said


@pytest.mark.parametrize("role", [Role.BLOCKS, Role.CRASHES, Role.KILLED, Role.EXCHANGE])
@pytest.mark.parametrize(("seconds", "complete"), [(TROUBLE_DUE - 0.1, True), (30.0, False)])
def test_trouble_is_not_judged_in_a_run_too_short_for_it(
    role: Role, seconds: float, complete: bool
) -> None:
    """A short run, or one that was ended by Ctrl-C, may end before the faults happen."""
    record = healthy(role=role, at_end=NetworkStatus.NOT_CONNECTED)
    assert problems(record, seconds, complete) == ""
    assert not judge([record], seconds, complete=complete).trouble_due
    assert judge([healthy()], TROUBLE_DUE).trouble_due


def test_a_run_that_ctrl_c_ended_at_once_is_not_bad() -> None:
    """No tick was due and no worker was connected yet, which is fine."""
    record = healthy(due=0, run=0, readies=0, statuses=(), at_end=NetworkStatus.STOPPED)
    assert problems(record, complete=False) == ""
    assert problems(record) != ""


def test_harm_is_seen_in_a_run_that_ctrl_c_ended() -> None:
    """Harm that happened before Ctrl-C counts."""
    assert problems(healthy(run=299, missed=1), complete=False) == "missed 1 tick"


def test_one_bad_worker_makes_the_verdict_bad() -> None:
    """The judgements stay in the order of the records."""
    verdict = judge([healthy(worker="a"), healthy(worker="b", run=299, missed=1)], 30.0)
    assert not verdict.ok
    assert [bool(each.problems) for each in verdict.judgements] == [False, True]
    assert judge([healthy(worker="a"), healthy(worker="b")], 30.0).ok
