"""Events, where they say more than their fields."""

from __future__ import annotations

from chronopype_mp.core.events import DeathReason, WorkerDied


def died(**values: object) -> WorkerDied:
    known = {
        "worker": "feed",
        "incarnation": 3,
        "pid": 4711,
        "reason": DeathReason.EXITED,
        "exitcode": 7,
        "uptime": 1.25,
    }
    return WorkerDied(**{**known, **values})  # type: ignore[arg-type]


def test_a_death_prints_who_when_why_and_the_last_that_was_heard() -> None:
    lines = str(died(error="Traceback\n  ValueError: no", output=("one", "two"))).splitlines()
    assert lines == [
        "worker 'feed' (incarnation 3, pid 4711) died after 1.2 s: exited, exit status 7",
        "  Traceback",
        "    ValueError: no",
        "  last output:",
        "  | one",
        "  | two",
    ]


def test_a_death_of_which_nothing_was_heard_is_one_line() -> None:
    text = str(died(reason=DeathReason.START_FAILED, pid=None, exitcode=None))
    assert text == "worker 'feed' (incarnation 3, pid None) died after 1.2 s: start_failed"
