"""The supervisor under any sequence of stimuli, while the coordinator does its duty."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.events import Event, WorkerBackingOff, WorkerDied, WorkerStatus
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import GroupStrategy, RestartType, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Added,
    Beaten,
    CheckDeadlines,
    Evidence,
    Exited,
    GotReady,
    GuardBeaten,
    Kill,
    Launch,
    LaunchFailed,
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import Supervisor

HAS_PROCESS = (WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING)
NAMES = ["a", "b", "c"]
names = st.sampled_from(NAMES)
MAX_RSS = 1000


class Process(msgspec.Struct):
    """One launched process, as the simulated coordinator knows it."""

    incarnation: int
    ready: bool = False
    killed: bool = False
    told_to_stop: bool = False
    probed: bool = False


class Record(msgspec.Struct):
    """What the test knows of one worker."""

    process: Process | None = None
    launches: int = 0
    stop_asked: bool = False
    charged: list[float] = []
    """When restarts were charged to the budget, since it was last made whole."""
    deaths: list[int] = []


class AnyHistory(RuleBasedStateMachine):
    """Random stimuli; each Launch ends in exactly one Exited or LaunchFailed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.known: dict[str, Record] = {}
        self.clock_restarts: list[float] = []
        self.group_launch = False

    @initialize(
        most=st.integers(min_value=0, max_value=4),
        clock_most=st.integers(min_value=1, max_value=3),
        healthy_after=st.sampled_from([5.0, 1e9]),
        probation=st.sampled_from([None, 50.0]),
        restart=st.sampled_from([RestartType.PERMANENT, RestartType.PERMANENT, *RestartType]),
        strategy=st.sampled_from(GroupStrategy),
    )
    def choose(
        self,
        most: int,
        clock_most: int,
        healthy_after: float,
        probation: float | None,
        restart: RestartType,
        strategy: GroupStrategy,
    ) -> None:
        self.strategy = strategy
        self.clock_budget = RestartBudget(max_restarts=clock_most, window=5.0)
        self.supervisor = Supervisor(self.clock_budget)
        self.policy = Supervision(
            restart=restart,
            start_timeout=30.0,
            loop_stall_timeout=10.0,
            stop_grace=5.0,
            backoff=BackoffPolicy(minimum=1.0, maximum=8.0),
            healthy_after=healthy_after,
            budget=RestartBudget(max_restarts=most, window=50.0),
            probation_interval=probation,
            limits=Limits(max_rss=MAX_RSS),
        )

    def tell(self, stimulus: Stimulus) -> list[Event]:
        """Hand a stimulus over, perform the actions, and judge what was said."""
        actions, events = self.supervisor.handle(stimulus, self.now)
        for action in actions:
            record = self.known[action.worker]
            process = record.process
            if isinstance(action, Launch):
                assert process is None, "two live incarnations"
                assert not record.stop_asked, "a launch after a stop was asked for"
                record.launches += 1
                assert action.incarnation == record.launches
                record.process = Process(action.incarnation)
                continue
            assert process is not None, "an action on what is gone"
            assert process.incarnation == action.incarnation
            match action:
                case Kill():
                    assert not process.killed, "a second kill"
                    process.killed = True
                case SendStop():
                    process.told_to_stop = True
                case Probe():
                    process.probed = True
        for event in events:
            match event:
                case WorkerDied():
                    deaths = self.known[event.worker].deaths
                    assert event.incarnation not in deaths, "two dossiers of one death"
                    deaths.append(event.incarnation)
                case WorkerBackingOff():
                    # Only a worker's own failures are announced so; followers are not.
                    self.charge(self.known[event.worker])
        return events

    def charge(self, record: Record) -> None:
        record.charged.append(self.now)
        if self.policy.healthy_after > 1e6:
            budget = self.policy.budget
            recent = [at for at in record.charged if at > self.now - budget.window]
            assert len(recent) <= budget.max_restarts, "restarts beyond the budget"

    def processes(self) -> list[str]:
        return [name for name, record in self.known.items() if record.process is not None]

    def process(self, name: str) -> Process:
        process = self.known[name].process
        assert process is not None
        return process

    @rule(name=names)
    def add(self, name: str) -> None:
        if name in self.known and self.supervisor.view(name).status is not WorkerStatus.STOPPED:
            return
        launches = self.known[name].launches if name in self.known else 0
        deaths = self.known[name].deaths if name in self.known else []
        self.known[name] = Record(launches=launches, deaths=deaths)
        group = None if name == "c" and self.strategy is GroupStrategy.ONE_FOR_ALL else "g"
        self.tell(Added(name, self.policy, name, group, self.strategy))
        assert self.known[name].process is not None

    @rule(
        seconds=st.sampled_from([0.01, 0.5, 1.0, 4.0, 11.0, 31.0]),
        lateness=st.sampled_from([0.0, 0.0, 20.0]),
    )
    def let_time_pass(self, seconds: float, lateness: float) -> None:
        self.now += seconds + lateness
        before = sum(record.launches for record in self.known.values())
        self.tell(CheckDeadlines(lateness))
        launched = sum(record.launches for record in self.known.values()) - before
        if self.strategy is GroupStrategy.ONE_FOR_ONE and self.policy.probation_interval is None:
            # Every launch in here is a restart out of a backoff.
            self.clock_restarts += [self.now] * launched
            assert launched <= self.clock_budget.max_restarts, "beyond the clock's budget"

    @precondition(lambda self: self.processes())
    @rule(data=st.data())
    def get_ready(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.processes()))
        self.process(name).ready = True
        self.tell(GotReady(name, self.process(name).incarnation, 1))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), rss=st.sampled_from([1, 1, 1, MAX_RSS + 1]))
    def beat(self, data: st.DataObject, rss: int) -> None:
        name = data.draw(st.sampled_from(self.processes()))
        self.tell(Beaten(name, self.process(name).incarnation, rss, 0.1))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), stalled=st.sampled_from([0.0, 5.0]))
    def guard_beats(self, data: st.DataObject, stalled: float) -> None:
        name = data.draw(st.sampled_from(self.processes()))
        events = self.tell(GuardBeaten(name, self.process(name).incarnation, stalled))
        assert events == []

    @precondition(lambda self: any(self.process(name).probed for name in self.processes()))
    @rule(data=st.data(), stopped=st.booleans(), written=st.booleans())
    def answer_a_probe(self, data: st.DataObject, stopped: bool, written: bool) -> None:
        name = data.draw(st.sampled_from([n for n in self.processes() if self.process(n).probed]))
        self.tell(Probed(name, self.process(name).incarnation, stopped, written))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), exitcode=st.sampled_from([0, 1, -9, None]))
    def exit(self, data: st.DataObject, exitcode: int | None) -> None:
        self.end(data.draw(st.sampled_from(self.processes())), exitcode)

    def end(self, name: str, exitcode: int | None) -> None:
        record = self.known[name]
        process, record.process = record.process, None
        assert process is not None
        asked_for = record.stop_asked or process.told_to_stop or process.killed
        events = self.tell(Exited(name, process.incarnation, Evidence(pid=1, exitcode=exitcode)))
        died = [event for event in events if isinstance(event, WorkerDied)]
        assert len(died) <= 1
        if not asked_for:
            assert len(died) == 1, "an unasked death without a dossier"

    @precondition(lambda self: any(not self.process(name).ready for name in self.processes()))
    @rule(data=st.data())
    def fail_to_launch(self, data: st.DataObject) -> None:
        name = data.draw(
            st.sampled_from([n for n in self.processes() if not self.process(n).ready])
        )
        record = self.known[name]
        process, record.process = record.process, None
        assert process is not None
        events = self.tell(LaunchFailed(name, process.incarnation, "no"))
        assert isinstance(events[0], WorkerDied)

    @rule(name=names)
    def ask_to_stop(self, name: str) -> None:
        if name in self.known:
            self.known[name].stop_asked = True
            self.tell(StopAsked(name))

    @rule(name=names)
    def ask_to_restart(self, name: str) -> None:
        if name not in self.known:
            return
        if self.supervisor.view(name).status in (WorkerStatus.BACKOFF, WorkerStatus.QUARANTINED):
            for record in self.known.values():
                record.charged.clear()
        self.tell(RestartAsked(name))

    @precondition(lambda self: any(record.launches > 1 for record in self.known.values()))
    @rule(data=st.data())
    def hear_of_an_earlier_incarnation(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n, r in self.known.items() if r.launches > 1]))
        old = data.draw(st.integers(min_value=1, max_value=self.known[name].launches - 1))
        before = self.supervisor.view(name)
        for stimulus in (
            GotReady(name, old, 1),
            Beaten(name, old, MAX_RSS + 1),
            GuardBeaten(name, old, 9.0),
            Probed(name, old, True, True),
            Exited(name, old, Evidence(pid=1, exitcode=1)),
            LaunchFailed(name, old, "no"),
        ):
            assert self.supervisor.handle(stimulus, self.now) == ([], [])
        assert self.supervisor.view(name) == before

    @invariant()
    def status_says_whether_there_is_a_process(self) -> None:
        for name, record in self.known.items():
            view = self.supervisor.view(name)
            assert (view.status in HAS_PROCESS) == (record.process is not None)
            assert view.incarnation == record.launches
            if record.stop_asked:
                assert view.status in (WorkerStatus.STOPPING, WorkerStatus.STOPPED)

    def reap(self) -> None:
        """End all processes that are to end, and those that are to end for it."""
        while doomed := [
            name
            for name in self.processes()
            if self.process(name).killed or self.process(name).told_to_stop
        ]:
            self.end(doomed[0], -9)

    def teardown(self) -> None:
        """Whatever has happened: nobody waits for ever, and a stop ends in STOPPED."""
        if not self.known:
            return
        for _ in range(40):
            self.now += 40.0
            self.tell(CheckDeadlines())
            self.reap()
        for name in self.known:
            if self.supervisor.view(name).status is WorkerStatus.BACKOFF:
                assert self.supervisor.next_deadline() is not None, "waits for ever"
        for name, record in self.known.items():
            record.stop_asked = True
            self.tell(StopAsked(name))
        for name in self.processes():
            self.end(name, -9)
        for name in self.known:
            assert self.supervisor.view(name).status is WorkerStatus.STOPPED
        assert self.supervisor.handle(CheckDeadlines(), self.now + 1e6) == ([], [])


class TestAnyHistory(AnyHistory.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
