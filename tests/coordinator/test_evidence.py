"""What is put together of a process that has ended."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chronopype_mp.coordinator.evidence import gather
from chronopype_mp.coordinator.incarnation import Incarnation
from chronopype_mp.coordinator.record import WorkerRecord
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.messages import Beat, Failure, Ready, Status
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.stimuli import Evidence
from chronopype_mp.launchers import ProcessEnd
from chronopype_mp.processors import TickProcessor

NOW = 1_000_000.0
COMMON: dict[str, Any] = {"worker": "a", "incarnation": 2, "token": 7}
FATAL = Failure(
    **COMMON,
    hook="start",
    serial=4,
    type_name="KeyError",
    message="'price'",
    traceback="Traceback …",
    fatal=True,
)


def incarnation(**values: Any) -> Incarnation:
    """Return what evidence looks at, of a worker that has beaten and was connected."""
    record = WorkerRecord("a", TickProcessor(), b"", Supervision(), lambda record: None)
    record.take(Ready(**COMMON, base=10), NOW)
    record.take(
        Status(**COMMON, network=NetworkStatus.ERROR, revision=1, error="reset by peer"), NOW
    )
    counters = TickCounters(last_timestamp=14.0)
    record.take(
        Beat(
            **COMMON,
            serial=1,
            account=TickAccount(10),
            counters=counters,
            largest_gap=0.0,
            lag=0.25,
        ),
        NOW,
    )
    standard: dict[str, Any] = {
        "record": record,
        "number": COMMON["incarnation"],
        "fatal": None,
        "pid": 77,
        "was_ready": True,
        "is_killed": False,
        "exception": lambda serial: None,
    }
    return cast(Incarnation, SimpleNamespace(**{**standard, **values}))


def test_all_that_was_reported_last_is_evidence() -> None:
    end = ProcessEnd(exitcode=3, stacks="File …")
    assert gather(incarnation(), end, ("one", "two"), 5) == Evidence(
        pid=77,
        exitcode=3,
        output=("one", "two"),
        stacks="File …",
        ticks_lost=5,
        last_tick=14.0,
        loop_lag=0.25,
        network_status=NetworkStatus.ERROR,
        network_error="reset by peer",
    )


def test_a_process_that_never_got_ready_has_no_last_tick_though_one_before_had() -> None:
    evidence = gather(incarnation(was_ready=False), ProcessEnd(exitcode=1), (), 0)
    assert (evidence.last_tick, evidence.loop_lag) == (None, 0.0)


def test_the_failure_that_ended_the_process_is_evidence_with_its_exception() -> None:
    kept = {4: KeyError("price")}
    evidence = gather(incarnation(fatal=FATAL, exception=kept.get), ProcessEnd(exitcode=1), (), 0)
    assert (evidence.error, evidence.error_type, evidence.error_message) == (
        "Traceback …",
        "KeyError",
        "'price'",
    )
    assert evidence.exception is kept[4]


def test_it_says_whether_the_coordinator_has_killed_the_process() -> None:
    evidence = gather(incarnation(is_killed=True), ProcessEnd(exitcode=-9), (), 0)
    assert evidence.killed


@pytest.mark.parametrize(
    ("exitcode", "name"),
    [
        (None, None),
        (0, None),
        (3, None),
        (-signal.SIGKILL, "SIGKILL"),
        (-signal.SIGSEGV, "SIGSEGV"),
        (-40, "signal 40"),
    ],
)
def test_a_signal_has_its_name(exitcode: int | None, name: str | None) -> None:
    evidence = gather(incarnation(), ProcessEnd(exitcode=exitcode), (), 0)
    assert (evidence.exitcode, evidence.signal) == (exitcode, name)
