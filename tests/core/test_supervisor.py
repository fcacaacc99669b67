"""The supervisor: each transition of one worker by example."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import RestartType, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    BeatReceived,
    Begun,
    CheckDeadlines,
    Deferred,
    Evidence,
    Exited,
    GotReady,
    GuardBeatReceived,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    PolicyChanged,
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    StartAsked,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import REAP_TIMEOUT, Supervisor
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStatus,
    WorkerStopped,
    WorkerStopping,
    WorkerUnkillable,
)

POLICY = Supervision(
    start_timeout=30.0,
    loop_stall_timeout=10.0,
    stop_grace=5.0,
    backoff=BackoffPolicy(minimum=1.0, maximum=8.0, jitter=0.0),
    healthy_after=60.0,
    budget=RestartBudget(max_restarts=3, window=100.0),
)


def exit_of(name: str, incarnation: int, exitcode: int | None) -> Exited:
    return Exited(name, incarnation, Evidence(pid=4000 + incarnation, exitcode=exitcode))


class Told:
    """A supervisor of one worker ``a``, and what it said last."""

    def __init__(self, policy: Supervision = POLICY) -> None:
        self.supervisor = Supervisor()
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.tell(Added("a", policy), 0.0)

    def tell(self, stimulus: Stimulus, now: float) -> None:
        self.actions, self.events = self.supervisor.handle(stimulus, now)

    def ready(self, now: float, incarnation: int = 1) -> None:
        self.tell(Launched("a", incarnation, 4000 + incarnation), now)
        self.tell(GotReady("a", incarnation), now)

    def exited(self, now: float, incarnation: int = 1, exitcode: int | None = 1) -> None:
        self.tell(exit_of("a", incarnation, exitcode), now)

    def overdue(self, now: float, stopped: bool = False) -> None:
        """Let a start or a stop take too long, which ends in a kill after a probe."""
        self.tell(CheckDeadlines(), now)
        assert self.actions == [Probe("a", 1)]
        self.tell(Probed("a", 1, stopped, False, True), now)
        assert self.actions == [Kill("a", 1)]

    def restarted_after_a_death(self) -> bool:
        """Return which of the two ends a death just had."""
        assert isinstance(self.events[0], WorkerDied)
        if self.actions == [Launch("a", 2)]:
            assert self.events[-1] == WorkerStarting(worker="a", incarnation=2)
            return True
        assert self.actions == []
        assert self.events[1:] == [WorkerStopped(worker="a")]
        assert self.status is WorkerStatus.STOPPED
        return False

    @property
    def status(self) -> WorkerStatus:
        return self.supervisor.view("a").status

    @property
    def nothing_happened(self) -> bool:
        return not self.actions and not self.events


def test_an_added_worker_is_launched_at_once() -> None:
    told = Told()
    assert told.actions == [Launch("a", 1)]
    assert told.events == [WorkerStarting(worker="a", incarnation=1)]
    view = told.supervisor.view("a")
    assert (view.status, view.incarnation, view.pid) == (WorkerStatus.STARTING, 1, None)


def test_a_worker_that_reports_ready_is_ready() -> None:
    told = Told()
    told.ready(1.5)
    assert told.actions == []
    assert told.events == [WorkerReady(worker="a", incarnation=1, pid=4001, seconds=1.5)]
    view = told.supervisor.view("a")
    assert (view.status, view.pid) == (WorkerStatus.READY, 4001)


def test_a_second_ready_changes_nothing() -> None:
    told = Told()
    told.ready(1.0)
    told.ready(2.0)
    assert told.nothing_happened


@pytest.mark.parametrize(
    ("exitcode", "reason"),
    [
        (1, DeathReason.EXITED),
        (0, DeathReason.EXITED),
        (-9, DeathReason.SIGNALLED),
    ],
)
def test_a_worker_that_dies_unasked_is_started_again_at_once_the_first_time(
    exitcode: int, reason: DeathReason
) -> None:
    told = Told()
    told.ready(1.0)
    told.tell(BeatReceived("a", 1, rss=5, cpu=0.5), 1.5)
    evidence = Evidence(
        pid=4001, exitcode=exitcode, output=("last words",), error="Traceback", ticks_lost=7
    )
    told.tell(Exited("a", 1, evidence), 2.0)
    assert told.actions == [Launch("a", 2)]
    assert told.events == [
        WorkerDied(
            worker="a",
            incarnation=1,
            pid=4001,
            reason=reason,
            exitcode=exitcode,
            uptime=2.0,
            rss=5,
            cpu=0.5,
            output=("last words",),
            error="Traceback",
            ticks_lost=7,
        ),
        WorkerBackingOff(worker="a", delay=0.0, restarts=0),
        WorkerStarting(worker="a", incarnation=2),
    ]
    view = told.supervisor.view("a")
    assert (view.status, view.restarts, view.pid) == (WorkerStatus.STARTING, 1, None)


def test_all_that_the_coordinator_knows_of_an_end_is_in_the_dossier() -> None:
    fields = set(Evidence.__struct_fields__) - {"killed", "unloadable", "trouble"}
    assert fields <= set(WorkerDied.__struct_fields__)
    known = {name: f"the {name}" for name in fields} | {"exitcode": 3}
    told = Told()
    told.ready(1.0)
    told.tell(Exited("a", 1, Evidence(**known)), 2.0)  # type: ignore[arg-type]
    assert {name: getattr(told.events[0], name) for name in known} == known


def test_an_end_of_which_nobody_knows_the_exit_status_says_why() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(Exited("a", 1, Evidence(pid=1, exitcode=None)), 2.0)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.EXITED
    assert "the forkserver has died" in (death.detail or "")


def test_what_the_launcher_failed_in_is_in_the_detail() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(Exited("a", 1, Evidence(pid=1, exitcode=None, trouble="wait() failed: E")), 2.0)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.detail == "wait() failed: E"


def test_a_stop_that_the_shutdown_of_the_clock_cut_short_is_a_stop_timeout() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    told.tell(Exited("a", 1, Evidence(pid=1, exitcode=-9, killed=True)), 3.0)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.STOP_TIMEOUT
    assert "shut down" in (death.detail or "")
    assert told.status is WorkerStatus.STOPPED


def test_the_second_failure_in_a_row_waits_for_the_backoff() -> None:
    told = Told()
    told.exited(1.0)
    told.exited(2.0, 2)
    assert told.actions == []
    assert told.events[1] == WorkerBackingOff(worker="a", delay=1.0, restarts=1)
    assert told.status is WorkerStatus.BACKOFF
    assert told.supervisor.next_deadline() == 3.0
    told.tell(CheckDeadlines(), 2.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 3.0)
    assert told.actions == [Launch("a", 3)]


def test_an_end_before_ready_is_a_failed_start() -> None:
    told = Told()
    told.exited(1.0, exitcode=1)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.START_FAILED


def test_a_process_that_could_not_be_launched_is_tried_again() -> None:
    told = Told()
    told.tell(LaunchFailed("a", 1, "no memory"), 0.5)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert (death.reason, death.pid, death.exitcode) == (DeathReason.START_FAILED, None, None)
    assert death.error == "no memory"
    assert told.actions == [Launch("a", 2)]


def test_a_worker_that_does_not_get_ready_in_time_is_killed_and_its_exit_is_its_death() -> None:
    told = Told()
    told.tell(CheckDeadlines(), 29.9)
    assert told.nothing_happened
    told.overdue(30.0)
    assert told.events == []
    assert told.status is WorkerStatus.STARTING
    told.ready(30.1)
    assert told.nothing_happened, "too late"
    told.exited(30.2, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.START_FAILED
    assert death.detail == "not ready within the start_timeout of 30 s"


TURNS = Probed("a", 1, process_stopped=False, stacks_written=False, python_runs=True)
WRITTEN = Probed("a", 1, process_stopped=False, stacks_written=True, python_runs=True)
SILENT = Probed("a", 1, process_stopped=False, stacks_written=False, python_runs=False)


def stalled(signs: Probed, guard: GuardBeatReceived | None = None) -> Told:
    """Return a supervisor whose worker was not heard of and has been probed."""
    told = Told()
    told.ready(1.0)
    if guard is not None:
        told.tell(guard, 10.8)
    told.tell(CheckDeadlines(), 10.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 11.0)
    assert told.actions == [Probe("a", 1)]
    told.tell(signs, 11.0)
    return told


BLOCKED = GuardBeatReceived("a", 1, stalled=9.0)
TURNING = GuardBeatReceived("a", 1, stalled=0.0)


@pytest.mark.parametrize(
    ("signs", "guard", "reason"),
    [
        (Probed("a", 1, True, False, False), None, DeathReason.STOPPED),
        (Probed("a", 1, True, True, True), BLOCKED, DeathReason.STOPPED),
        (WRITTEN, BLOCKED, DeathReason.LOOP_BLOCKED),
        (WRITTEN, None, DeathReason.LOOP_BLOCKED),
        (SILENT, None, DeathReason.GIL_STUCK),
    ],
)
def test_a_worker_that_hangs_is_killed_for_what_the_probe_found(
    signs: Probed, guard: GuardBeatReceived | None, reason: DeathReason
) -> None:
    told = stalled(signs, guard)
    # Without Python the process writes its stacks only when it is asked to.
    assert told.actions == [Kill("a", 1, stacks=reason is DeathReason.GIL_STUCK)]
    assert told.status is WorkerStatus.READY
    told.tell(BeatReceived("a", 1), 11.1)
    told.exited(11.2, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is reason
    assert death.detail
    assert told.actions == [Launch("a", 2)]


@pytest.mark.parametrize("guard", [None, TURNING])
def test_a_worker_that_lives_but_is_not_heard_of_is_stopped_in_order_first(
    guard: GuardBeatReceived | None,
) -> None:
    told = stalled(TURNS, guard)
    assert told.actions == [SendStop("a", 1)]
    assert told.status is WorkerStatus.STOPPING
    told.exited(12.0, exitcode=0)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.UNREACHABLE
    assert told.actions == [Launch("a", 2)]


def test_an_unreachable_worker_that_does_not_stop_is_killed_at_its_grace() -> None:
    told = stalled(TURNS)
    told.overdue(16.0)
    told.exited(16.1, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.UNREACHABLE


def test_a_beat_during_the_probe_saves_the_worker() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(CheckDeadlines(), 11.0)
    told.tell(BeatReceived("a", 1), 11.1)
    told.tell(WRITTEN, 11.2)
    told.tell(CheckDeadlines(), 20.0)
    assert told.nothing_happened
    assert told.status is WorkerStatus.READY


def test_a_probe_without_an_answer_ends_in_a_kill() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(CheckDeadlines(), 11.0)
    told.tell(CheckDeadlines(), 12.0)
    assert told.actions == [Kill("a", 1)]


def test_a_beat_of_a_killed_worker_does_not_put_off_that_it_is_unkillable() -> None:
    told = stalled(WRITTEN, BLOCKED)
    told.tell(BeatReceived("a", 1), 11.5)
    told.tell(CheckDeadlines(), 11.0 + REAP_TIMEOUT)
    assert told.events == [WorkerUnkillable(worker="a", incarnation=1, pid=4001)]
    assert told.status is WorkerStatus.STOPPING, "it is not READY without a process"


def test_the_answer_to_a_probe_is_nothing_to_a_worker_that_is_being_stopped() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(CheckDeadlines(), 11.0)
    told.tell(StopAsked("a"), 11.0)
    told.tell(Probed("a", 1, True, True, True), 11.1)
    assert told.nothing_happened


def test_a_probe_answered_twice_kills_once() -> None:
    told = stalled(WRITTEN, BLOCKED)
    told.tell(WRITTEN, 11.1)
    assert told.nothing_happened


def test_a_process_that_does_not_die_is_told_of_once_and_waited_for() -> None:
    told = Told()
    told.tell(Launched("a", 1, 4001), 0.5)
    told.overdue(30.0)
    told.tell(CheckDeadlines(), 30.0 + REAP_TIMEOUT)
    assert told.events == [WorkerUnkillable(worker="a", incarnation=1, pid=4001)]
    told.tell(CheckDeadlines(), 1000.0)
    assert told.nothing_happened
    told.exited(1001.0, exitcode=-9)
    assert told.actions == [Launch("a", 2)]


def test_a_limit_exceeded_restarts_the_worker_in_order_with_the_reason() -> None:
    told = Told(POLICY.model_copy(update={"limits": Limits(max_rss=1000)}))
    told.ready(0.0)
    told.tell(BeatReceived("a", 1, rss=1000), 1.0)
    assert told.nothing_happened
    told.tell(BeatReceived("a", 1, rss=1001), 2.0)
    assert told.actions == [SendStop("a", 1)]
    told.exited(3.0, exitcode=0)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.LIMIT_EXCEEDED
    assert death.detail == "RSS of 1,001 bytes is above max_rss = 1,000"
    assert told.actions == [Launch("a", 2)]


def test_new_limits_hold_for_the_process_that_runs() -> None:
    """A lifetime counts from its READY, and not from the change."""
    told = Told()
    told.ready(0.0)
    limits = Limits(max_rss=1000, max_lifetime=50.0, lifetime_jitter=0.0)
    told.tell(PolicyChanged("a", POLICY.model_copy(update={"limits": limits})), 40.0)
    assert told.nothing_happened
    told.tell(BeatReceived("a", 1, rss=1000), 49.0)
    assert told.nothing_happened
    told.tell(BeatReceived("a", 1, rss=1000), 50.0)
    assert told.actions == [SendStop("a", 1)]


def test_a_new_budget_holds_for_the_next_death() -> None:
    """Here no restart is allowed any more."""
    told = Told()
    told.ready(0.0)
    once = POLICY.model_copy(update={"budget": RestartBudget(max_restarts=0)})
    told.tell(PolicyChanged("a", once), 1.0)
    told.exited(2.0)
    assert told.status is WorkerStatus.QUARANTINED
    told.tell(PolicyChanged("unknown", once), 3.0)
    assert told.nothing_happened


@pytest.mark.parametrize(
    ("setting", "within", "beyond", "detail"),
    [
        (
            {"max_downtime": 60.0},
            {"downtime": 60.0},
            {"downtime": 60.5},
            "not connected for 60.5 s, max_downtime = 60",
        ),
        (
            {"max_check_timeouts": 3},
            {"check_timeouts": 2},
            {"check_timeouts": 3},
            "3 checks timed out in a row, max_check_timeouts = 3",
        ),
    ],
)
def test_a_worker_that_cannot_connect_may_get_a_new_process_which_is_not_charged(
    setting: dict[str, Any], within: dict[str, Any], beyond: dict[str, Any], detail: str
) -> None:
    told = Told(POLICY.model_copy(update={**setting, "budget": RestartBudget(max_restarts=0)}))
    for incarnation in (1, 2):
        now = 100.0 * incarnation
        told.ready(now, incarnation)
        told.tell(BeatReceived("a", incarnation, **within), now + 1.0)
        assert told.nothing_happened
        told.tell(BeatReceived("a", incarnation, **beyond), now + 2.0)
        assert told.actions == [SendStop("a", incarnation)]
        told.exited(now + 3.0, incarnation, exitcode=0)
        death = told.events[0]
        assert isinstance(death, WorkerDied)
        assert (death.reason, death.detail) == (DeathReason.LIMIT_EXCEEDED, detail)
        assert told.actions == [Launch("a", incarnation + 1)]


def test_without_those_settings_a_worker_may_be_down_for_ever() -> None:
    told = Told()
    told.ready(0.0)
    told.tell(BeatReceived("a", 1, downtime=1e9, check_timeouts=10**6), 1.0)
    assert told.nothing_happened


def test_the_end_of_a_lifetime_is_not_charged() -> None:
    limits = Limits(max_lifetime=10.0, lifetime_jitter=0.0)
    budget = RestartBudget(max_restarts=0)
    told = Told(POLICY.model_copy(update={"limits": limits, "budget": budget}))
    for incarnation in (1, 2, 3):
        now = 20.0 * incarnation
        told.ready(now, incarnation)
        told.tell(BeatReceived("a", incarnation), now + 9.9)
        assert told.nothing_happened
        told.tell(BeatReceived("a", incarnation), now + 10.0)
        assert told.actions == [SendStop("a", incarnation)]
        told.exited(now + 10.1, incarnation, exitcode=0)
        assert told.actions == [Launch("a", incarnation + 1)]


ALWAYS, ABNORMAL = {RestartType.PERMANENT}, {RestartType.PERMANENT, RestartType.TRANSIENT}


@pytest.mark.parametrize(
    ("exitcode", "ready", "restarted"),
    [
        (0, True, ALWAYS),
        (3, True, ABNORMAL),
        (-11, True, ABNORMAL),
        (None, True, ABNORMAL),
        (1, False, ABNORMAL),
        pytest.param(0, False, ABNORMAL, id="an end before READY is never normal"),
        (42, True, set()),
        (42, False, set()),
    ],
)
@pytest.mark.parametrize("restart", RestartType)
def test_the_restart_matrix(
    restart: RestartType, exitcode: int | None, ready: bool, restarted: set[RestartType]
) -> None:
    told = Told(POLICY.model_copy(update={"restart": restart, "no_restart_exit_codes": (42,)}))
    if ready:
        told.ready(1.0)
    told.exited(2.0, exitcode=exitcode)
    assert told.restarted_after_a_death() == (restart in restarted)


@pytest.mark.parametrize("restart", RestartType)
def test_a_failed_launch_is_an_abnormal_end(restart: RestartType) -> None:
    told = Told(POLICY.model_copy(update={"restart": restart}))
    told.tell(LaunchFailed("a", 1, "no memory"), 1.0)
    assert told.restarted_after_a_death() == (restart in ABNORMAL)


@pytest.mark.parametrize("restart", RestartType)
@pytest.mark.parametrize("exitcode", [0, 42, -9])
def test_an_end_that_the_supervisor_brought_about_is_abnormal_whatever_the_exit_status(
    restart: RestartType, exitcode: int
) -> None:
    policy = POLICY.model_copy(update={"restart": restart, "no_restart_exit_codes": (42,)})
    told = Told(policy.model_copy(update={"limits": Limits(max_rss=1000)}))
    told.ready(1.0)
    told.tell(BeatReceived("a", 1, rss=1001), 2.0)
    told.exited(2.1, exitcode=exitcode)
    assert told.restarted_after_a_death() == (restart in ABNORMAL)


@pytest.mark.parametrize("restart", RestartType)
def test_a_restart_that_the_owner_asks_for_needs_no_leave_of_the_restart_type(
    restart: RestartType,
) -> None:
    told = Told(POLICY.model_copy(update={"restart": restart}))
    told.ready(1.0)
    told.tell(RestartAsked("a"), 2.0)
    told.exited(2.1, exitcode=0)
    assert told.actions == [Launch("a", 2)]


def test_a_restart_that_is_not_charged_does_not_wait_either() -> None:
    """Whatever went wrong before: the end of a lifetime is no failure."""
    told = Told(
        POLICY.model_copy(update={"limits": Limits(max_lifetime=10.0, lifetime_jitter=0.0)})
    )
    for incarnation in (1, 2, 3):
        told.exited(0.0, incarnation)
        told.tell(CheckDeadlines(), 10.0)
    told.ready(10.0, 4)
    told.tell(BeatReceived("a", 4), 20.0)
    told.exited(20.1, 4, exitcode=0)
    assert told.actions == [Launch("a", 5)]


def test_every_beat_puts_the_stall_off() -> None:
    told = Told()
    told.ready(0.0)
    for now in range(5, 200, 5):
        told.tell(BeatReceived("a", 1), float(now))
        told.tell(CheckDeadlines(), now + 4.9)
        assert told.nothing_happened
    told.tell(CheckDeadlines(), 195.0 + 10.0)
    assert told.actions == [Probe("a", 1)]


def test_time_that_the_coordinator_slept_through_counts_against_nobody() -> None:
    told = Told()
    told.ready(0.0)
    told.tell(CheckDeadlines(lateness=60.0), 61.0)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 69.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 70.0)
    assert told.actions == [Probe("a", 1)]


def test_a_ready_worker_is_asked_to_stop_and_its_orderly_end_is_no_death() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    assert told.actions == [SendStop("a", 1)]
    assert told.events == [WorkerStopping(worker="a", incarnation=1)]
    assert told.status is WorkerStatus.STOPPING
    told.exited(3.0, exitcode=0)
    assert told.actions == []
    assert told.events == [WorkerStopped(worker="a")]
    view = told.supervisor.view("a")
    assert (view.status, view.pid) == (WorkerStatus.STOPPED, None)


def test_a_worker_that_fails_while_it_stops_has_died_and_is_stopped() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    told.exited(3.0, exitcode=70)
    death, stopped = told.events
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.EXITED
    assert stopped == WorkerStopped(worker="a")


def test_a_worker_that_does_not_stop_within_its_grace_is_killed() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    told.tell(BeatReceived("a", 1), 6.0)
    told.tell(CheckDeadlines(), 6.9)
    assert told.nothing_happened
    told.overdue(7.0)
    assert told.status is WorkerStatus.STOPPING
    told.exited(7.5, exitcode=-9)
    death, stopped = told.events
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.STOP_TIMEOUT
    assert stopped == WorkerStopped(worker="a")


def test_a_start_that_is_deferred_has_its_time_from_when_it_begins() -> None:
    told = Told()
    told.tell(Deferred("a", 1), 0.0)
    told.tell(CheckDeadlines(), 100.0)
    assert told.nothing_happened
    assert told.supervisor.next_deadline() is None
    told.tell(Begun("a", 1), 100.0)
    assert told.supervisor.next_deadline() == 130.0
    told.ready(101.5)
    assert told.events == [WorkerReady(worker="a", incarnation=1, pid=4001, seconds=1.5)]


def test_a_stop_asked_for_while_the_start_is_deferred_is_no_death() -> None:
    told = Told()
    told.tell(Deferred("a", 1), 0.0)
    told.tell(StopAsked("a"), 1.0)
    assert told.actions == [Kill("a", 1)]
    told.tell(Begun("a", 1), 1.0)
    assert told.nothing_happened
    assert told.supervisor.next_deadline() == 1.0 + REAP_TIMEOUT
    told.tell(Exited("a", 1, Evidence(pid=None, exitcode=None)), 1.1)
    assert told.events == [WorkerStopped(worker="a")]


@pytest.mark.parametrize("stop", [False, True])
def test_a_process_that_was_stopped_while_it_starts_or_stops_is_told_apart(stop: bool) -> None:
    told = Told()
    if stop:
        told.ready(1.0)
        told.tell(StopAsked("a"), 25.0)
    told.overdue(30.0, stopped=True)
    told.exited(30.1, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.STOPPED
    assert (death.detail or "").endswith("; the process was stopped (SIGSTOP, or a debugger)")


def test_a_worker_that_gets_ready_during_the_probe_of_its_start_is_saved() -> None:
    told = Told()
    told.tell(CheckDeadlines(), 30.0)
    told.ready(30.1)
    told.tell(TURNS, 30.2)
    assert told.nothing_happened
    assert told.status is WorkerStatus.READY


@pytest.mark.parametrize("stop", [False, True])
def test_a_start_or_stop_of_which_nothing_can_be_found_out_ends_in_a_kill(stop: bool) -> None:
    told = Told()
    if stop:
        told.ready(1.0)
        told.tell(StopAsked("a"), 25.0)
    told.tell(CheckDeadlines(), 30.0)
    told.tell(CheckDeadlines(), 31.0)
    assert told.actions == [Kill("a", 1)]


def test_a_worker_that_is_starting_is_killed_when_a_stop_is_asked_for() -> None:
    told = Told()
    told.tell(StopAsked("a"), 1.0)
    assert told.actions == [Kill("a", 1)]
    assert told.status is WorkerStatus.STOPPING
    told.ready(1.1)
    assert told.nothing_happened
    told.exited(1.2, exitcode=-9)
    assert told.events == [WorkerStopped(worker="a")]
    assert told.status is WorkerStatus.STOPPED


def test_a_launch_that_fails_while_a_stop_is_asked_for_ends_in_stopped() -> None:
    told = Told()
    told.tell(StopAsked("a"), 1.0)
    told.tell(LaunchFailed("a", 1, "no memory"), 1.1)
    assert told.actions == []
    assert told.events == [WorkerStopped(worker="a")], "nobody died"
    assert told.status is WorkerStatus.STOPPED


def test_a_stop_asked_for_during_the_backoff_is_done_at_once_and_nothing_starts_later() -> None:
    told = Told()
    told.exited(0.5)
    told.exited(1.0, 2)
    told.tell(StopAsked("a"), 1.5)
    assert told.actions == []
    assert told.events == [WorkerStopped(worker="a")]
    told.tell(CheckDeadlines(), 1e6)
    assert told.nothing_happened
    told.tell(StopAsked("a"), 1e6)
    assert told.nothing_happened
    told.tell(RestartAsked("a"), 1e6)
    assert told.nothing_happened, "only a start ends STOPPED"


def test_a_stop_asked_for_while_a_stalled_worker_is_killed_waits_for_its_end() -> None:
    told = stalled(WRITTEN, BLOCKED)
    told.tell(StopAsked("a"), 11.1)
    assert told.actions == []
    told.exited(11.2, exitcode=-9)
    death, stopped = told.events
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.LOOP_BLOCKED
    assert stopped == WorkerStopped(worker="a")


def spend_the_budget(told: Told, now: float = 0.0) -> float:
    """Let the worker die until it is QUARANTINED; return the time."""
    for _ in range(10):
        told.exited(now, told.supervisor.view("a").incarnation)
        if told.status is WorkerStatus.QUARANTINED:
            return now
        now += 8.0
        told.tell(CheckDeadlines(), now)
    raise AssertionError("never quarantined")


def test_a_worker_that_exhausts_its_restart_budget_is_quarantined() -> None:
    told = Told()
    now = spend_the_budget(told)
    assert told.events[1:] == [WorkerQuarantined(worker="a", restarts=3)]
    told.tell(CheckDeadlines(), now + 1e6)
    assert told.nothing_happened


def test_a_quarantined_worker_on_probation_gets_one_try_each_until_it_is_healthy() -> None:
    told = Told(POLICY.model_copy(update={"probation_interval": 1000.0}))
    now = spend_the_budget(told)
    told.tell(CheckDeadlines(), now + 999.0)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), now + 1000.0)
    assert told.actions == [Launch("a", 5)]
    told.exited(now + 1001.0, 5)
    assert told.status is WorkerStatus.QUARANTINED, "one try"
    now += 2001.0
    told.tell(CheckDeadlines(), now)
    told.ready(now, 6)
    told.exited(now + 60.0, 6)
    assert told.actions == [Launch("a", 7)], "healthy again: all counters are reset"
    for incarnation in (7, 8):
        told.exited(now + 70.0, incarnation)
        told.tell(CheckDeadlines(), now + 80.0)
    assert told.status is WorkerStatus.STARTING


def test_a_quarantined_worker_asked_to_stop_is_stopped_at_once() -> None:
    told = Told()
    now = spend_the_budget(told)
    told.tell(StopAsked("a"), now)
    assert told.events == [WorkerStopped(worker="a")]


def test_a_restart_asked_for_ends_the_quarantine_with_a_whole_budget() -> None:
    told = Told()
    now = spend_the_budget(told)
    told.tell(RestartAsked("a"), now)
    assert told.actions == [Launch("a", 5)]
    for incarnation, delay in ((5, 0.0), (6, 1.0), (7, 2.0)):
        told.exited(now, incarnation)
        assert told.events[1] == WorkerBackingOff(worker="a", delay=delay, restarts=incarnation - 1)
        now += delay
        told.tell(CheckDeadlines(), now)
    told.exited(now, 8)
    assert told.status is WorkerStatus.QUARANTINED


def test_the_budget_is_whole_again_after_its_window() -> None:
    told = Told()
    for incarnation in range(1, 20):
        now = 40.0 * incarnation
        told.exited(now, incarnation)
        told.tell(CheckDeadlines(), now + 8)
        assert told.status is WorkerStatus.STARTING


def test_a_restart_asked_for_during_the_backoff_does_not_wait() -> None:
    told = Told()
    told.exited(1.0)
    told.exited(1.0, 2)
    told.tell(RestartAsked("a"), 1.1)
    assert told.actions == [Launch("a", 3)]
    told.tell(CheckDeadlines(), 5.0)
    assert told.nothing_happened, "the backoff's own launch does not come on top"


def test_a_restart_asked_for_while_ready_stops_in_order_and_launches_at_no_charge() -> None:
    told = Told(POLICY.model_copy(update={"budget": RestartBudget(max_restarts=0)}))
    told.ready(1.0)
    told.tell(RestartAsked("a"), 2.0)
    assert told.actions == [SendStop("a", 1)]
    assert told.status is WorkerStatus.STOPPING
    told.exited(3.0, exitcode=0)
    assert told.actions == [Launch("a", 2)]
    assert told.events == [WorkerStarting(worker="a", incarnation=2)]
    assert told.supervisor.view("a").restarts == 1


def test_a_stop_asked_for_during_a_restart_wins() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(RestartAsked("a"), 2.0)
    told.tell(StopAsked("a"), 2.1)
    told.tell(RestartAsked("a"), 2.2)
    told.exited(3.0, exitcode=0)
    assert told.actions == []
    assert told.status is WorkerStatus.STOPPED


def test_a_restart_asked_for_while_a_worker_is_being_stopped_for_a_limit_is_not_charged() -> None:
    policy = POLICY.model_copy(update={"limits": Limits(max_rss=1000)})
    told = Told(policy.model_copy(update={"budget": RestartBudget(max_restarts=0)}))
    told.ready(1.0)
    told.tell(BeatReceived("a", 1, rss=1001), 2.0)
    told.tell(RestartAsked("a"), 2.1)
    assert told.nothing_happened, "it is being stopped already"
    told.exited(2.2, exitcode=0)
    assert isinstance(told.events[0], WorkerDied)
    assert told.actions == [Launch("a", 2)]


@pytest.mark.parametrize("restart", RestartType)
def test_a_stopped_worker_is_started_with_a_whole_budget(restart: RestartType) -> None:
    told = Told(POLICY.model_copy(update={"restart": restart}))
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    told.exited(3.0, exitcode=0)
    assert told.status is WorkerStatus.STOPPED
    told.tell(StartAsked("a"), 4.0)
    assert told.actions == [Launch("a", 2)]
    assert told.events == [WorkerStarting(worker="a", incarnation=2)]
    assert told.supervisor.view("a").restarts == 1
    told.tell(StartAsked("a"), 4.1)
    assert told.nothing_happened, "it is starting"
    told.ready(5.0, 2)
    told.tell(StartAsked("a"), 5.1)
    assert told.nothing_happened, "it runs"


def test_a_start_of_a_stopped_worker_is_not_charged() -> None:
    told = Told(POLICY.model_copy(update={"budget": RestartBudget(max_restarts=1)}))
    told.exited(0.5)
    told.tell(StopAsked("a"), 0.6)
    told.exited(0.7, 2, exitcode=-9)
    told.tell(StartAsked("a"), 1.0)
    told.exited(1.5, 3)
    assert told.actions == [Launch("a", 4)], "the first failure since it was started"


def test_a_start_asked_for_while_a_worker_is_being_stopped_follows_the_stop() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(StopAsked("a"), 2.0)
    told.tell(StartAsked("a"), 2.1)
    assert told.nothing_happened
    told.exited(3.0, exitcode=0)
    assert told.actions == [Launch("a", 2)]
    assert told.events == [WorkerStarting(worker="a", incarnation=2)]


def test_of_a_stop_and_a_start_the_last_one_wins() -> None:
    told = Told()
    told.ready(1.0)
    for stimulus in (StopAsked("a"), StartAsked("a"), StopAsked("a")):
        told.tell(stimulus, 2.0)
    told.exited(3.0, exitcode=0)
    assert told.events == [WorkerStopped(worker="a")]


def test_a_start_of_a_worker_that_will_not_be_restarted_is_not_forgotten_while_it_ends() -> None:
    told = Told(POLICY.model_copy(update={"restart": RestartType.TEMPORARY}))
    told.overdue(31.0)
    told.tell(StartAsked("a"), 31.5)
    told.exited(32.0, exitcode=-9)
    assert told.actions == [Launch("a", 2)]


def test_a_start_ends_the_quarantine_and_leaves_a_backoff_alone() -> None:
    told = Told()
    told.exited(0.5)
    told.exited(1.0, 2)
    assert told.status is WorkerStatus.BACKOFF
    told.tell(StartAsked("a"), 1.5)
    assert told.nothing_happened
    told = Told()
    now = spend_the_budget(told)
    told.tell(StartAsked("a"), now)
    assert told.actions == [Launch("a", 5)]


def test_a_restart_asked_for_while_starting_changes_nothing() -> None:
    told = Told()
    told.tell(RestartAsked("a"), 1.0)
    assert told.nothing_happened


def delays_after(told: Told, ready_for: float, deaths: int) -> list[float]:
    """Return the backoffs of a worker that is READY for a while before each of its deaths."""
    now, delays = 0.0, []
    for incarnation in range(1, deaths + 1):
        told.ready(now, incarnation)
        now += ready_for
        told.exited(now, incarnation)
        backing_off = told.events[1]
        assert isinstance(backing_off, WorkerBackingOff)
        delays.append(backing_off.delay)
        now += backing_off.delay
        told.tell(CheckDeadlines(), now)
    return delays


def test_the_wait_doubles_up_to_its_maximum_as_long_as_the_worker_keeps_dying() -> None:
    policy = POLICY.model_copy(update={"budget": RestartBudget(max_restarts=99)})
    assert delays_after(Told(policy), ready_for=59.0, deaths=7) == [0, 1, 2, 4, 8, 8, 8]


def test_a_healthy_stretch_sets_the_wait_back() -> None:
    assert delays_after(Told(), ready_for=60.0, deaths=4) == [0, 0, 0, 0]


def test_workers_that_die_together_again_come_back_apart() -> None:
    supervisor = Supervisor()
    policy = POLICY.model_copy(update={"backoff": BackoffPolicy(jitter=0.1)})
    delays = set()
    for name in ("a", "b", "c"):
        supervisor.handle(Added(name, policy, seed=name), 0.0)
        supervisor.handle(exit_of(name, 1, 1), 1.0)
        _, events = supervisor.handle(exit_of(name, 2, 1), 1.0)
        assert isinstance(events[1], WorkerBackingOff)
        delays.add(events[1].delay)
    assert len(delays) == 3


def test_restarts_beyond_the_clocks_budget_are_put_off_and_not_refused() -> None:
    supervisor = Supervisor(RestartBudget(max_restarts=2, window=1.0))
    names = [f"w{n}" for n in range(5)]
    for name in names:
        supervisor.handle(Added(name, POLICY), 0.0)
    launched: dict[str, float] = {}
    for name in names:
        for action in supervisor.handle(exit_of(name, 1, -9), 10.0)[0]:
            launched[action.worker] = 10.0
    for tenth in range(1, 60):
        now = 10.0 + tenth / 10
        for action in supervisor.handle(CheckDeadlines(), now)[0]:
            launched[action.worker] = now
    assert sorted(launched) == names
    times = sorted(launched.values())
    assert times[1] == 10.0
    assert times[-1] < 13.0, "put off no longer than need be"
    assert all(b - a >= 1.0 for a, b in zip(times, times[2:], strict=False))


@pytest.mark.parametrize(
    "stimulus",
    [
        GotReady("a", 1),
        BeatReceived("a", 1),
        exit_of("a", 1, 1),
        LaunchFailed("a", 1, ""),
        GotReady("ghost", 2),
        exit_of("ghost", 2, 1),
        StopAsked("ghost"),
    ],
)
def test_what_comes_from_an_earlier_incarnation_or_from_nobody_changes_nothing(
    stimulus: Stimulus,
) -> None:
    told = Told()
    told.exited(1.0)
    before = told.supervisor.view("a")
    told.tell(stimulus, 3.0)
    assert told.nothing_happened
    assert told.supervisor.view("a") == before


def test_a_probation_spends_the_clocks_budget_like_any_restart() -> None:
    """One outage quarantines all workers in the same second, so that their tries coincide too."""
    supervisor = Supervisor(RestartBudget(max_restarts=2, window=1.0))
    update = {"probation_interval": 100.0, "budget": RestartBudget(max_restarts=0)}
    names = [f"w{n}" for n in range(5)]
    for name in names:
        supervisor.handle(Added(name, POLICY.model_copy(update=update)), 0.0)
    for name in names:
        supervisor.handle(exit_of(name, 1, -9), 10.0)
    assert len(supervisor.handle(CheckDeadlines(), 110.0)[0]) == 2
    deadline = supervisor.next_deadline()
    assert deadline is not None
    assert 111.0 < deadline < 111.2, "a window later, spread"
    assert supervisor.view("w4").status is WorkerStatus.QUARANTINED
    launched = 2
    for tenth in range(1, 40):
        launched += len(supervisor.handle(CheckDeadlines(), 110.0 + tenth / 10)[0])
    assert launched == 5


def test_what_cannot_come_from_a_worker_in_its_state_changes_nothing() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(LaunchFailed("a", 1, "no"), 1.1)
    assert told.nothing_happened, "it runs"
    told.exited(2.0)
    told.exited(2.1, incarnation=2)
    for stimulus in (exit_of("a", 2, 1), LaunchFailed("a", 2, ""), GotReady("a", 2)):
        told.tell(stimulus, 2.2)
        assert told.nothing_happened, "it has ended"


def test_a_late_beat_of_an_earlier_incarnation_keeps_no_stalled_loop_alive() -> None:
    told = Told()
    told.exited(0.0)
    told.tell(CheckDeadlines(), 1.0)
    told.ready(1.0, incarnation=2)
    told.tell(BeatReceived("a", 1), 10.0)
    told.tell(CheckDeadlines(), 11.0)
    assert told.actions == [Probe("a", 2)]


def test_the_death_of_one_worker_is_nothing_to_another() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(Added("b", POLICY), 1.0)
    before = told.supervisor.view("a")
    told.tell(exit_of("b", 1, 1), 2.0)
    assert told.actions == [Launch("b", 2)]
    assert told.supervisor.view("a") == before


def test_a_worker_cannot_be_added_twice_but_again_when_it_is_stopped() -> None:
    """Its incarnations count on, so that what the earlier one sent is still old."""
    told = Told()
    with pytest.raises(ValueError, match="'a' is there already"):
        told.tell(Added("a", POLICY), 1.0)
    told.tell(StopAsked("a"), 1.0)
    told.exited(1.1, exitcode=-9)
    told.tell(Added("a", POLICY), 2.0)
    assert told.actions == [Launch("a", 2)]
    told.ready(2.1, incarnation=1)
    assert told.nothing_happened


def test_only_a_stopped_worker_can_be_forgotten() -> None:
    told = Told()
    with pytest.raises(ValueError, match="STARTING"):
        told.supervisor.forget("a")
    told.tell(StopAsked("a"), 1.0)
    told.exited(1.1)
    told.supervisor.forget("a")
    with pytest.raises(KeyError):
        told.supervisor.view("a")
    with pytest.raises(KeyError):
        told.supervisor.forget("a")


def test_a_worker_that_cannot_load_its_payload_is_quarantined_at_once_without_probation() -> None:
    told = Told(POLICY.model_copy(update={"probation_interval": 5.0}))
    evidence = Evidence(pid=4001, exitcode=1, unloadable=True, error="Traceback …")
    told.tell(Exited("a", 1, evidence), 1.0)
    died, quarantined = told.events
    assert isinstance(died, WorkerDied)
    assert (died.reason, died.error) == (DeathReason.START_FAILED, "Traceback …")
    assert isinstance(quarantined, WorkerQuarantined)
    assert quarantined.detail is not None
    assert "cannot load its processor" in quarantined.detail
    assert told.actions == []
    assert told.supervisor.next_deadline() is None
    told.tell(RestartAsked("a"), 100.0)
    assert told.actions == [Launch("a", 2)]
    # The next process may fail for another reason, which is tried again.
    told.exited(101.0, incarnation=2)
    assert told.actions == [Launch("a", 3)]
