"""Which events are worth a notification."""

from __future__ import annotations

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    NetworkChanged,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStopped,
)
from chronopype_mp.fleet.alerts import Alerts

UP, DOWN = NetworkStatus.CONNECTED, NetworkStatus.NOT_CONNECTED


def died(worker: str = "a") -> Event:
    return WorkerDied(
        worker=worker, incarnation=1, pid=7, reason=DeathReason.EXITED, exitcode=3, uptime=2.0
    )


def ready(worker: str = "a") -> Event:
    return WorkerReady(worker=worker, incarnation=2, pid=8, seconds=0.1)


def network(after: NetworkStatus, worker: str = "a") -> Event:
    return NetworkChanged(worker=worker, incarnation=1, before=DOWN, after=after)


def test_a_death_and_a_quarantine_are_followed_by_one_recovery() -> None:
    """A first READY is none."""
    alerts = Alerts(None, 100, 0.0)
    quarantined = WorkerQuarantined(worker="a", restarts=3)
    events = [ready(), died(), quarantined, ready(), ready(), died(), WorkerStopped(worker="a")]
    notices = [notice for event in [*events, ready()] for notice in alerts.take(event, 1.0)]
    assert [(notice.kind, notice.text) for notice in notices] == [
        ("death", "worker 'a' (incarnation 1, pid 7) died after 2.0 s: exited, exit status 3"),
        ("quarantine", "worker 'a' is quarantined after 3 restarts"),
        ("recovery", "worker 'a' is ready again"),
        ("death", "worker 'a' (incarnation 1, pid 7) died after 2.0 s: exited, exit status 3"),
    ]


def test_a_connection_that_is_lost_for_long_is_reported_once() -> None:
    """And its return; a short loss is not."""
    alerts = Alerts(10.0, 100, 0.0)
    alerts.take(network(DOWN), 0.0)
    assert alerts.take(network(UP), 9.0) == []
    assert alerts.next_deadline() is None
    alerts.take(network(DOWN), 20.0)
    alerts.take(network(DOWN), 25.0)
    assert alerts.next_deadline() == 30.0
    assert alerts.overdue(29.0) == []
    (lost,) = alerts.overdue(31.0)
    assert (lost.kind, lost.text) == ("disconnected", "worker 'a' has not been connected for 11 s")
    assert alerts.overdue(99.0) == []
    assert alerts.next_deadline() is None
    (back,) = alerts.take(network(UP), 100.0)
    assert (back.kind, back.text) == ("recovery", "worker 'a' is connected again")


def test_a_dead_worker_is_not_connected_and_a_stopped_one_is_not_missed() -> None:
    """Only those with a network are."""
    alerts = Alerts(10.0, 100, 0.0)
    alerts.take(network(UP), 0.0)
    alerts.take(died("a"), 5.0)
    alerts.take(died("b"), 5.0)
    assert [notice.worker for notice in alerts.overdue(15.0)] == ["a"]
    alerts.take(network(DOWN, "c"), 15.0)
    alerts.take(WorkerStopped(worker="c"), 16.0)
    assert alerts.overdue(99.0) == []


def test_too_many_are_counted_in_the_next() -> None:
    """What could not be queued, too."""
    alerts = Alerts(None, 2, 0.0)
    sent = [notice for _ in range(5) for notice in alerts.take(died(), 1.0)]
    assert [notice.suppressed for notice in sent] == [0, 0]
    (later,) = alerts.take(died(), 40.0)
    assert later.suppressed == 3
    alerts.suppress(later)
    (last,) = alerts.take(died(), 99.0)
    assert last.suppressed == 4
