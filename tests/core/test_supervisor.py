"""The supervisor: each transition by example, then any sequence of them by property."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.events import (
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
)
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.supervisor import (
    Action,
    Added,
    Beaten,
    CheckDeadlines,
    Exited,
    GotReady,
    Kill,
    Launch,
    LaunchFailed,
    RestartAsked,
    SendStop,
    Stimulus,
    StopAsked,
    Supervisor,
)

POLICY = Supervision(
    start_timeout=30.0,
    loop_stall_timeout=10.0,
    stop_grace=5.0,
    backoff=BackoffPolicy(minimum=1.0, maximum=8.0, jitter=0.0),
    healthy_after=60.0,
    budget=RestartBudget(max_restarts=3, window=100.0),
)


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
        self.tell(GotReady("a", incarnation, 4000 + incarnation), now)

    def exited(self, now: float, incarnation: int = 1, exitcode: int | None = 1) -> None:
        self.tell(Exited("a", incarnation, 4000 + incarnation, exitcode), now)

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


@pytest.mark.parametrize("was_ready", [False, True])
@pytest.mark.parametrize(
    ("exitcode", "reason"),
    [
        (1, DeathReason.EXITED),
        (0, DeathReason.EXITED),
        (None, DeathReason.EXITED),
        (-9, DeathReason.SIGNALLED),
    ],
)
def test_a_worker_that_dies_unasked_is_started_again_after_the_backoff(
    was_ready: bool, exitcode: int | None, reason: DeathReason
) -> None:
    told = Told()
    if was_ready:
        told.ready(1.0)
    told.tell(Exited("a", 1, 4001, exitcode, ("last words",), "Traceback", 7), 2.0)
    assert told.actions == []
    assert told.events == [
        WorkerDied(
            worker="a",
            incarnation=1,
            pid=4001,
            reason=reason,
            exitcode=exitcode,
            uptime=2.0,
            output=("last words",),
            error="Traceback",
            ticks_lost=7,
        ),
        WorkerBackingOff(worker="a", delay=1.0, restarts=0),
    ]
    assert told.status is WorkerStatus.BACKOFF
    told.tell(CheckDeadlines(), 2.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 3.0)
    assert told.actions == [Launch("a", 2)]
    view = told.supervisor.view("a")
    assert (view.status, view.restarts, view.pid) == (WorkerStatus.STARTING, 1, None)


def test_a_process_that_could_not_be_launched_is_tried_again_after_the_backoff() -> None:
    told = Told()
    told.tell(LaunchFailed("a", 1, "no memory"), 0.5)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert (death.reason, death.pid, death.exitcode) == (DeathReason.START_FAILED, None, None)
    assert death.error == "no memory"
    assert told.status is WorkerStatus.BACKOFF
    told.tell(CheckDeadlines(), 1.5)
    assert told.actions == [Launch("a", 2)]


def test_a_worker_that_does_not_get_ready_in_time_is_killed_and_its_exit_is_its_death() -> None:
    told = Told()
    told.tell(CheckDeadlines(), 29.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 30.0)
    assert told.actions == [Kill("a", 1)]
    assert told.events == []
    assert told.status is WorkerStatus.STARTING
    told.tell(CheckDeadlines(), 1000.0)
    assert told.nothing_happened
    told.exited(1000.0, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.START_TIMEOUT
    assert told.status is WorkerStatus.BACKOFF


def test_a_ready_that_comes_after_the_kill_does_not_make_the_worker_ready() -> None:
    told = Told()
    told.tell(CheckDeadlines(), 30.0)
    told.ready(30.1)
    assert told.nothing_happened
    assert told.status is WorkerStatus.STARTING
    told.exited(30.2, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.START_TIMEOUT


def test_a_worker_whose_loop_does_not_turn_is_killed() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(CheckDeadlines(), 10.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 11.0)
    assert told.actions == [Kill("a", 1)]
    assert told.status is WorkerStatus.READY
    told.tell(Beaten("a", 1), 11.1)
    told.tell(CheckDeadlines(), 100.0)
    assert told.nothing_happened, "what is killed already is not killed again"
    told.exited(100.0, exitcode=-9)
    death = told.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.LOOP_STALLED


def test_every_beat_puts_the_stall_off() -> None:
    told = Told()
    told.ready(0.0)
    for now in range(5, 200, 5):
        told.tell(Beaten("a", 1), float(now))
        told.tell(CheckDeadlines(), now + 4.9)
        assert told.nothing_happened
    told.tell(CheckDeadlines(), 195.0 + 10.0)
    assert told.actions == [Kill("a", 1)]


def test_time_that_the_coordinator_slept_through_counts_against_nobody() -> None:
    told = Told()
    told.ready(0.0)
    told.tell(CheckDeadlines(lateness=60.0), 61.0)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 69.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 70.0)
    assert told.actions == [Kill("a", 1)]


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
    told.tell(Beaten("a", 1), 6.0)
    told.tell(CheckDeadlines(), 6.9)
    assert told.nothing_happened
    told.tell(CheckDeadlines(), 7.0)
    assert told.actions == [Kill("a", 1)]
    assert told.status is WorkerStatus.STOPPING
    told.exited(7.5, exitcode=-9)
    death, stopped = told.events
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.STOP_TIMEOUT
    assert stopped == WorkerStopped(worker="a")


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
    assert told.events[-1] == WorkerStopped(worker="a")
    assert told.status is WorkerStatus.STOPPED


def test_a_stop_asked_for_during_the_backoff_is_done_at_once_and_nothing_starts_later() -> None:
    told = Told()
    told.exited(1.0)
    told.tell(StopAsked("a"), 1.5)
    assert told.actions == []
    assert told.events == [WorkerStopped(worker="a")]
    told.tell(CheckDeadlines(), 1e6)
    assert told.nothing_happened
    told.tell(StopAsked("a"), 1e6)
    assert told.nothing_happened
    told.tell(RestartAsked("a"), 1e6)
    assert told.nothing_happened, "STOPPED is for good"


def test_a_stop_asked_for_while_a_stalled_worker_is_killed_waits_for_its_end() -> None:
    told = Told()
    told.ready(0.0)
    told.tell(CheckDeadlines(), 10.0)
    told.tell(StopAsked("a"), 10.1)
    assert told.actions == []
    told.exited(10.2, exitcode=-9)
    death, stopped = told.events
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.LOOP_STALLED
    assert stopped == WorkerStopped(worker="a")


def spend_the_budget(told: Told) -> float:
    """Let the worker die until it is QUARANTINED; return the time."""
    now, incarnation = 0.0, 1
    while told.status is not WorkerStatus.QUARANTINED:
        told.exited(now, incarnation)
        now += 8.0
        told.tell(CheckDeadlines(), now)
        incarnation += 1
        assert incarnation < 10
    return now


def test_a_worker_that_exhausts_its_restart_budget_is_quarantined() -> None:
    told = Told()
    for incarnation in (1, 2, 3):
        told.exited(10.0 * incarnation, incarnation)
        told.tell(CheckDeadlines(), 10.0 * incarnation + 8)
        assert told.actions == [Launch("a", incarnation + 1)]
    told.exited(40.0, 4)
    assert told.events[1:] == [WorkerQuarantined(worker="a", restarts=3)]
    assert told.status is WorkerStatus.QUARANTINED
    told.tell(CheckDeadlines(), 1e6)
    assert told.nothing_happened


def test_a_quarantined_worker_asked_to_stop_is_stopped_at_once() -> None:
    told = Told()
    now = spend_the_budget(told)
    told.tell(StopAsked("a"), now)
    assert told.events == [WorkerStopped(worker="a")]


def test_a_restart_asked_for_ends_the_quarantine_with_a_whole_budget_and_the_shortest_wait() -> (
    None
):
    told = Told()
    now = spend_the_budget(told)
    told.tell(RestartAsked("a"), now)
    assert told.actions == [Launch("a", 5)]
    assert told.status is WorkerStatus.STARTING
    for incarnation, delay in ((5, 1.0), (6, 2.0), (7, 4.0)):
        told.exited(now, incarnation)
        assert told.events[1:] == [
            WorkerBackingOff(worker="a", delay=delay, restarts=incarnation - 1)
        ]
        now += delay
        told.tell(CheckDeadlines(), now)
    told.exited(now, 8)
    assert told.status is WorkerStatus.QUARANTINED


def test_the_budget_is_whole_again_after_its_window() -> None:
    told = Told()
    for incarnation in range(1, 20):
        now = 40.0 * incarnation
        told.exited(now, incarnation)
        assert told.status is WorkerStatus.BACKOFF
        told.tell(CheckDeadlines(), now + 8)


def test_a_restart_asked_for_during_the_backoff_does_not_wait() -> None:
    told = Told()
    told.exited(1.0)
    told.tell(RestartAsked("a"), 1.1)
    assert told.actions == [Launch("a", 2)]
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
    assert delays_after(Told(policy), ready_for=59.0, deaths=6) == [1, 2, 4, 8, 8, 8]


def test_a_healthy_stretch_sets_the_wait_back() -> None:
    assert delays_after(Told(), ready_for=60.0, deaths=4) == [1, 1, 1, 1]


def test_workers_that_die_together_come_back_apart() -> None:
    supervisor = Supervisor()
    policy = POLICY.model_copy(update={"backoff": BackoffPolicy(jitter=0.1)})
    delays = set()
    for name in ("a", "b", "c"):
        supervisor.handle(Added(name, policy, seed=name), 0.0)
        _, events = supervisor.handle(Exited(name, 1, 1, 1), 1.0)
        assert isinstance(events[1], WorkerBackingOff)
        delays.add(events[1].delay)
    assert len(delays) == 3


@pytest.mark.parametrize(
    "stimulus",
    [
        GotReady("a", 1, 9),
        Beaten("a", 1),
        Exited("a", 1, 9, 1),
        LaunchFailed("a", 1, ""),
        GotReady("ghost", 2, 9),
        Exited("ghost", 2, 9, 1),
        StopAsked("ghost"),
    ],
)
def test_what_comes_from_an_earlier_incarnation_or_from_nobody_changes_nothing(
    stimulus: Stimulus,
) -> None:
    told = Told()
    told.exited(1.0)
    told.tell(CheckDeadlines(), 2.0)
    before = told.supervisor.view("a")
    told.tell(stimulus, 3.0)
    assert told.nothing_happened
    assert told.supervisor.view("a") == before


def test_a_late_beat_of_an_earlier_incarnation_keeps_no_stalled_loop_alive() -> None:
    told = Told()
    told.exited(0.0)
    told.tell(CheckDeadlines(), 1.0)
    told.ready(1.0, incarnation=2)
    told.tell(Beaten("a", 1), 10.0)
    told.tell(CheckDeadlines(), 11.0)
    assert told.actions == [Kill("a", 2)]


def test_the_death_of_one_worker_is_nothing_to_another() -> None:
    told = Told()
    told.ready(1.0)
    told.tell(Added("b", POLICY), 1.0)
    before = told.supervisor.view("a")
    told.tell(Exited("b", 1, 5, 1), 2.0)
    told.tell(CheckDeadlines(), 3.0)
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


class Process(msgspec.Struct):
    """One launched process, as the simulated coordinator knows it."""

    incarnation: int
    ready: bool = False
    killed: bool = False
    asked_to_stop: bool = False
    """A stop or a restart was asked for while it lived."""
    killed_on_request: bool = False


class Record(msgspec.Struct):
    """What the test knows of one worker."""

    process: Process | None = None
    launches: int = 0
    launches_before: int = 0
    """Those from before it was stopped and added again."""
    stop_asked: bool = False
    charged: list[float] = []
    """When restarts were charged to the budget, since the owner last asked for one."""
    deaths: list[int] = []


HAS_PROCESS = (WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING)
NAMES = st.sampled_from(["a", "b"])
EXIT_CODES = st.sampled_from([0, 1, -9, None])


class AnyHistory(RuleBasedStateMachine):
    """Random stimuli, while the coordinator does its duty: each Launch ends exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.supervisor = Supervisor()
        self.now = 1000.0
        self.known: dict[str, Record] = {}
        self.policy = POLICY

    @initialize(
        most=st.integers(min_value=0, max_value=4),
        window=st.sampled_from([1.0, 20.0, 500.0]),
        healthy_after=st.sampled_from([0.0, 30.0]),
    )
    def choose_policy(self, most: int, window: float, healthy_after: float) -> None:
        budget = RestartBudget(max_restarts=most, window=window)
        self.policy = POLICY.model_copy(update={"budget": budget, "healthy_after": healthy_after})

    def with_process(self, ready: bool | None = None) -> list[str]:
        return [
            name
            for name, record in self.known.items()
            if record.process is not None and ready in (None, record.process.ready)
        ]

    def tell(self, stimulus: Stimulus) -> list[Event]:
        """Hand a stimulus over, perform the actions, and judge what was said."""
        actions, events = self.supervisor.handle(stimulus, self.now)
        for action in actions:
            record = self.known[action.worker]
            match action:
                case Launch():
                    assert record.process is None, "two live incarnations"
                    assert not record.stop_asked, "a launch after a stop was asked for"
                    record.launches += 1
                    assert action.incarnation == record.launches
                    record.process = Process(action.incarnation)
                case Kill():
                    assert record.process is not None, "a kill of what is gone"
                    assert record.process.incarnation == action.incarnation
                    assert not record.process.killed, "a second kill"
                    record.process.killed = True
                case SendStop():
                    assert record.process is not None
                    assert record.process.incarnation == action.incarnation
        for event in events:
            match event:
                case WorkerDied():
                    assert event.incarnation not in self.known[event.worker].deaths, "died twice"
                    self.known[event.worker].deaths.append(event.incarnation)
                case WorkerBackingOff():
                    self.charge(self.known[event.worker])
        return events

    def charge(self, record: Record) -> None:
        record.charged.append(self.now)
        budget = self.policy.budget
        recent = [at for at in record.charged if at > self.now - budget.window]
        assert len(recent) <= budget.max_restarts, "restarts beyond the budget"

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        if name in self.known and self.supervisor.view(name).status is not WorkerStatus.STOPPED:
            with pytest.raises(ValueError, match="there already"):
                self.supervisor.handle(Added(name, self.policy), self.now)
            return
        launches = self.known[name].launches if name in self.known else 0
        self.known[name] = Record(launches=launches, launches_before=launches)
        self.tell(Added(name, self.policy, seed=name))
        assert self.known[name].process is not None

    @rule(
        seconds=st.sampled_from([0.01, 1.0, 4.0, 11.0, 31.0]),
        lateness=st.sampled_from([0.0, 0.0, 20.0]),
    )
    def let_time_pass(self, seconds: float, lateness: float) -> None:
        self.now += seconds + lateness
        killed_before = {n for n in self.known if (p := self.known[n].process) and p.killed}
        before = {name: record.launches for name, record in self.known.items()}
        self.tell(CheckDeadlines(lateness))
        for name, record in self.known.items():
            assert record.launches - before[name] <= 1
            if name in killed_before:
                assert record.launches == before[name]

    @precondition(lambda self: self.with_process(ready=False))
    @rule(data=st.data())
    def get_ready(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.with_process(ready=False)))
        process = self.known[name].process
        assert process is not None
        process.ready = True
        events = self.tell(GotReady(name, process.incarnation, 1))
        doomed = process.killed or process.asked_to_stop
        assert [type(event) for event in events] == [WorkerReady] * (not doomed)

    @precondition(lambda self: self.with_process(ready=True))
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.with_process(ready=True)))
        process = self.known[name].process
        assert process is not None
        assert self.tell(Beaten(name, process.incarnation)) == []

    @precondition(lambda self: self.with_process())
    @rule(data=st.data(), exitcode=EXIT_CODES)
    def exit(self, data: st.DataObject, exitcode: int | None) -> None:
        self.end(data.draw(st.sampled_from(self.with_process())), exitcode)

    def end(self, name: str, exitcode: int | None) -> None:
        record = self.known[name]
        process, record.process = record.process, None
        assert process is not None
        events = self.tell(Exited(name, process.incarnation, 1, exitcode))
        died = any(isinstance(event, WorkerDied) for event in events)
        in_order = process.asked_to_stop and exitcode == 0
        assert died == (not in_order and not process.killed_on_request)

    @precondition(lambda self: self.with_process(ready=False))
    @rule(data=st.data())
    def fail_to_launch(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.with_process(ready=False)))
        record = self.known[name]
        process, record.process = record.process, None
        assert process is not None
        events = self.tell(LaunchFailed(name, process.incarnation, "no"))
        assert isinstance(events[0], WorkerDied)

    @rule(name=NAMES)
    def ask_to_stop(self, name: str) -> None:
        if name in self.known:
            record = self.known[name]
            record.stop_asked = True
            process = record.process
            killed_before = process is not None and process.killed
            self.tell(StopAsked(name))
            if process is not None:
                process.asked_to_stop = True
                process.killed_on_request |= process.killed and not killed_before

    @rule(name=NAMES)
    def ask_to_restart(self, name: str) -> None:
        if name not in self.known:
            return
        record = self.known[name]
        status = self.supervisor.view(name).status
        if status in (WorkerStatus.BACKOFF, WorkerStatus.QUARANTINED):
            record.charged.clear()
        elif status is WorkerStatus.READY and record.process is not None:
            record.process.asked_to_stop = True
        self.tell(RestartAsked(name))
        if status in (WorkerStatus.BACKOFF, WorkerStatus.QUARANTINED):
            assert record.process is not None, "a restart asked for that never came"

    @precondition(lambda self: any(record.launches > 1 for record in self.known.values()))
    @rule(
        data=st.data(),
        kind=st.sampled_from(["ready", "beat", "exited", "launch failed"]),
    )
    def hear_of_an_earlier_incarnation(self, data: st.DataObject, kind: str) -> None:
        names = [name for name, record in self.known.items() if record.launches > 1]
        name = data.draw(st.sampled_from(names))
        old = data.draw(st.integers(min_value=1, max_value=self.known[name].launches - 1))
        stimuli: dict[str, Stimulus] = {
            "ready": GotReady(name, old, 1),
            "beat": Beaten(name, old),
            "exited": Exited(name, old, 1, 1),
            "launch failed": LaunchFailed(name, old, "no"),
        }
        before = self.supervisor.view(name)
        assert self.supervisor.handle(stimuli[kind], self.now) == ([], [])
        assert self.supervisor.view(name) == before

    @invariant()
    def status_says_whether_there_is_a_process(self) -> None:
        for name, record in self.known.items():
            view = self.supervisor.view(name)
            assert (view.status in HAS_PROCESS) == (record.process is not None)
            assert view.incarnation == record.launches
            assert view.restarts == record.launches - record.launches_before - 1
            if view.status is WorkerStatus.STOPPED:
                assert record.stop_asked, "stopped without having been asked to"
            if record.stop_asked:
                assert view.status in (WorkerStatus.STOPPING, WorkerStatus.STOPPED)

    def teardown(self) -> None:
        """Whatever has happened: silence ends every process, and a stop ends in STOPPED."""
        self.now += 1e6
        self.tell(CheckDeadlines())
        self.now += 1e6
        self.tell(CheckDeadlines())
        for name, record in self.known.items():
            assert record.process is None or record.process.killed, "a silent process lives on"
            assert self.supervisor.view(name).status is not WorkerStatus.BACKOFF
            self.ask_to_stop(name)
            if record.process is not None:
                self.end(name, -9)
            assert self.supervisor.view(name).status is WorkerStatus.STOPPED
            assert self.supervisor.handle(CheckDeadlines(), self.now + 1e6) == ([], [])


class TestAnyHistory(AnyHistory.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
