"""Events, where they say more than their fields."""

from __future__ import annotations

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import DeathReason, WorkerDied


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


def test_a_death_prints_all_that_is_known_for_people() -> None:
    death = died(
        exitcode=-9,
        signal="SIGKILL",
        reason=DeathReason.LOOP_BLOCKED,
        detail="the event loop did not turn",
        last_tick=12.5,
        ticks_lost=3,
        loop_lag=0.25,
        rss=31_400_000,
        cpu=4.02,
        network_status=NetworkStatus.CONNECTED,
        network_error="check_network: no",
        error="Traceback\n  ValueError: no",
        stacks="Thread 1:\n  File x",
        output=("one", "two"),
    )
    assert str(death).splitlines() == [
        "worker 'feed' (incarnation 3, pid 4711) died after 1.2 s: loop_blocked, SIGKILL",
        "  the event loop did not turn",
        "  last tick 12.5, 3 ticks lost, loop lag 0.250 s, RSS 31.4 MB, CPU 4.02 s",
        "  network CONNECTED, last error: check_network: no",
        "  traceback:",
        "  | Traceback",
        "  |   ValueError: no",
        "  stacks:",
        "  | Thread 1:",
        "  |   File x",
        "  last output:",
        "  | one",
        "  | two",
    ]


def test_a_death_tells_an_exit_status_where_no_signal_came() -> None:
    assert str(died()).endswith("died after 1.2 s: exited, exit status 7")


def test_a_death_of_which_nothing_was_heard_is_one_line() -> None:
    text = str(died(reason=DeathReason.START_FAILED, pid=None, exitcode=None))
    assert text == "worker 'feed' (incarnation 3, pid None) died after 1.2 s: start_failed"
