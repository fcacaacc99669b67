"""The supervisor under any sequence of stimuli, while the coordinator does its duty."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import GroupStrategy, RestartType, Supervision
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
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    StartAsked,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import Supervisor
from chronopype_mp.core.worker_events import (
    Event,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStatus,
)

HAS_PROCESS = (WorkerStatus.STARTING, WorkerStatus.READY, WorkerStatus.STOPPING)
WAITS = (WorkerStatus.BACKOFF, WorkerStatus.QUARANTINED)
NAMES = ["a", "b", "c", "d", "e"]
GROUPS = {"a": "g", "b": "g", "c": "g", "d": "h", "e": "h"}
MAX_RSS = 1000
names = st.sampled_from(NAMES)
mostly_permanent = st.sampled_from([RestartType.PERMANENT, RestartType.PERMANENT, *RestartType])


class Process(msgspec.Struct):
    """One launched process, as the simulated coordinator knows it.

    Attributes:
        launched: its place in the order of all that happened.
        asked_for: the owner asked for this very process.
        condemned: the supervisor ends it on its own account, so that its end is a death.
        killed_on_request: it had nothing to put in order when it was to stop.
    """

    incarnation: int
    launched: int
    asked_for: bool
    ready: bool = False
    told_to_stop: bool = False
    killed: bool = False
    condemned: bool = False
    killed_on_request: bool = False
    probed: bool = False

    @property
    def is_to_end(self) -> bool:
        return self.told_to_stop or self.killed


class Record(msgspec.Struct):
    """What the test knows of one worker.

    Attributes:
        charged: when restarts were charged to its budget, since that was last made whole.
        died: when it last died to be restarted, as a place in the order of all that happened.
        launched_before: the same of the start of its last process that has ended.
        asked_for: the owner's request for a new process was not met yet.
    """

    policy: Supervision
    process: Process | None = None
    launches: int = 0
    stop_asked: bool = False
    asked_for: bool = True
    charged: list[float] = []
    ready_at: float | None = None
    died: int = 0
    launched_before: int = 0


class AnyHistory(RuleBasedStateMachine):
    """Random stimuli; each Launch ends in exactly one Exited or LaunchFailed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.order = 0
        self.known: dict[str, Record] = {}  # in the order of adding
        self.launches_before: dict[str, int] = {}
        self.clock_restarts: list[float] = []
        self.quarantined: set[str] = set()

    @initialize(
        most=st.integers(min_value=0, max_value=4),
        clock_most=st.integers(min_value=1, max_value=3),
        healthy_after=st.sampled_from([5.0, 1e9]),
        probation=st.sampled_from([None, 50.0, 2.0]),
        lifetime=st.sampled_from([None, None, 15.0]),
        restarts=st.tuples(*[mostly_permanent] * len(NAMES)),
        strategies=st.tuples(st.sampled_from(GroupStrategy), st.sampled_from(GroupStrategy)),
        settle_first=st.booleans(),
    )
    def choose(
        self,
        most: int,
        clock_most: int,
        healthy_after: float,
        probation: float | None,
        lifetime: float | None,
        restarts: tuple[RestartType, ...],
        strategies: tuple[GroupStrategy, GroupStrategy],
        settle_first: bool,
    ) -> None:
        self.settle_first = settle_first
        self.strategies = dict(zip("gh", strategies, strict=True))
        self.clock_budget = RestartBudget(max_restarts=clock_most, window=5.0)
        self.supervisor = Supervisor(self.clock_budget)
        self.policies = {
            name: Supervision(
                restart=restart,
                start_timeout=30.0,
                loop_stall_timeout=10.0,
                stop_grace=5.0,
                backoff=BackoffPolicy(minimum=1.0, maximum=8.0),
                healthy_after=healthy_after,
                budget=RestartBudget(max_restarts=most, window=50.0),
                probation_interval=probation,
                limits=Limits(max_rss=MAX_RSS, max_lifetime=lifetime),
                no_restart_exit_codes=(42,),
            )
            for name, restart in zip(NAMES, restarts, strict=True)
        }

    # What the coordinator does

    def tell(self, stimulus: Stimulus) -> list[Event]:
        """Hand a stimulus over, perform the actions, and judge what was said."""
        self.order += 1
        actions, events = self.supervisor.handle(stimulus, self.now)
        for event in events:
            self.note(event, events)
        launched = [self.perform(action, stimulus) for action in actions]
        if not isinstance(stimulus, Added | StartAsked | RestartAsked):
            self.charge_the_clock([name for name in launched if name is not None])
        return events

    def perform(self, action: Action, stimulus: Stimulus) -> str | None:
        """Do as the supervisor says; return the worker, if it was restarted unasked."""
        record = self.known[action.worker]
        process = record.process
        if isinstance(action, Launch):
            assert process is None, "two live incarnations"
            assert not record.stop_asked, "a launch after a stop was asked for"
            self.order += 1
            record.launches += 1
            assert action.incarnation == record.launches
            asked_for, record.asked_for = record.asked_for, False
            record.process = Process(action.incarnation, self.order, asked_for)
            record.ready_at = None
            return None if asked_for else action.worker
        assert process is not None, "an action on what is gone"
        assert process.incarnation == action.incarnation
        on_its_own_account = isinstance(stimulus, BeatReceived | Probed | CheckDeadlines)
        match action:
            case Kill():
                assert not process.killed, "a second kill"
                process.killed = True
                process.condemned |= on_its_own_account
                process.killed_on_request |= not on_its_own_account
            case SendStop():
                assert not process.is_to_end, "asked to stop twice"
                process.told_to_stop = True
                process.condemned |= on_its_own_account
            case Probe():
                process.probed = True
        return None

    def note(self, event: Event, events: list[Event]) -> None:
        match event:
            case WorkerReady():
                self.known[event.worker].ready_at = self.now
            case WorkerBackingOff():
                # Only a worker's own failures are announced so; followers are not.
                (death,) = [e for e in events if isinstance(e, WorkerDied)]
                assert death.worker == event.worker
                self.known[event.worker].died = self.order
                if "max_lifetime" not in (death.detail or ""):
                    self.charge(self.known[event.worker])
            case WorkerQuarantined():
                self.quarantined.add(GROUPS[event.worker])
                if event.worker in [e.worker for e in events if isinstance(e, WorkerDied)]:
                    self.known[event.worker].died = self.order

    def charge(self, record: Record) -> None:
        """Note a restart that counts against the worker's own budget."""
        if (
            record.ready_at is not None
            and self.now - record.ready_at >= record.policy.healthy_after
        ):
            record.charged.clear()
        record.charged.append(self.now)
        budget = record.policy.budget
        recent = [at for at in record.charged if at > self.now - budget.window]
        assert len(recent) <= budget.max_restarts, "restarts beyond the budget"

    def charge_the_clock(self, launched: list[str]) -> None:
        """Note restarts that count against the budget of all.

        A group that is larger than that starts together all the same, and takes all of it.
        """
        most = self.clock_budget.max_restarts
        grouped = {
            name: GROUPS[name]
            if self.strategies[GROUPS[name]] is not GroupStrategy.ONE_FOR_ONE
            else name
            for name in launched
        }
        for batch in set(grouped.values()):
            size = [grouped[name] for name in launched].count(batch)
            self.clock_restarts += [self.now] * min(size, most)
        recent = [at for at in self.clock_restarts if at > self.now - self.clock_budget.window]
        assert len(recent) <= most, "restarts beyond the clock's budget"

    def status(self, name: str) -> WorkerStatus:
        return self.supervisor.view(name).status

    def processes(self) -> list[str]:
        return [name for name, record in self.known.items() if record.process is not None]

    def unborn(self) -> list[str]:
        return [name for name in self.processes() if not self.process(name).ready]

    def process(self, name: str) -> Process:
        process = self.known[name].process
        assert process is not None
        return process

    def members_with(self, name: str) -> list[str]:
        return [other for other in self.known if GROUPS[other] == GROUPS[name]]

    # What happens

    @rule(name=names)
    def add(self, name: str) -> None:
        if name in self.known:
            if self.status(name) is not WorkerStatus.STOPPED:
                return
            self.launches_before[name] = self.known.pop(name).launches
        self.known[name] = Record(
            self.policies[name], launches=self.launches_before.get(name, 0), charged=[]
        )
        group = GROUPS[name]
        self.tell(Added(name, self.policies[name], name, group, self.strategies[group]))
        assert self.known[name].process is not None

    @rule(
        seconds=st.sampled_from([0.01, 0.5, 1.0, 4.0, 11.0, 31.0]),
        lateness=st.sampled_from([0.0, 0.0, 20.0]),
    )
    def let_time_pass(self, seconds: float, lateness: float) -> None:
        self.now += seconds + lateness
        self.check_deadlines(lateness)

    @rule()
    def wait_for_the_next_deadline(self) -> None:
        deadline = self.supervisor.next_deadline()
        if deadline is None or deadline <= self.now:
            return
        self.now = (self.now + deadline) / 2
        assert self.tell(CheckDeadlines()) == [], "nothing is due before the next deadline"
        self.now = deadline
        self.check_deadlines()

    def check_deadlines(self, lateness: float = 0.0) -> None:
        self.tell(CheckDeadlines(lateness))
        deadline = self.supervisor.next_deadline()
        assert deadline is None or deadline > self.now, "what was due is still due"

    @precondition(lambda self: self.unborn())
    @rule(data=st.data(), later=st.booleans())
    def defer_a_start(self, data: st.DataObject, later: bool) -> None:
        name = data.draw(st.sampled_from(self.unborn()))
        process = self.process(name)
        assert self.tell(Deferred(name, process.incarnation)) == []
        if later:
            self.let_time_pass(11.0, 0.0)
        if self.known[name].process is process:
            assert self.tell(Begun(name, process.incarnation)) == []

    @precondition(lambda self: self.processes())
    @rule(data=st.data())
    def get_ready(self, data: st.DataObject) -> None:
        self.make_ready(data.draw(st.sampled_from(self.processes())))

    def make_ready(self, name: str) -> None:
        self.process(name).ready = True
        self.tell(Launched(name, self.process(name).incarnation, 1))
        self.tell(GotReady(name, self.process(name).incarnation))

    @rule()
    def all_get_ready(self) -> None:
        for name in self.processes():
            self.make_ready(name)

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), rss=st.sampled_from([1, 1, 1, MAX_RSS + 1]))
    def beat(self, data: st.DataObject, rss: int) -> None:
        name = data.draw(st.sampled_from(self.processes()))
        self.tell(BeatReceived(name, self.process(name).incarnation, rss, 0.1))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), stalled=st.sampled_from([0.0, 5.0]))
    def guard_beats(self, data: st.DataObject, stalled: float) -> None:
        name = data.draw(st.sampled_from(self.processes()))
        events = self.tell(GuardBeatReceived(name, self.process(name).incarnation, stalled))
        assert events == []

    @precondition(lambda self: any(self.process(name).probed for name in self.processes()))
    @rule(data=st.data(), stopped=st.booleans(), written=st.booleans(), runs=st.booleans())
    def answer_a_probe(self, data: st.DataObject, stopped: bool, written: bool, runs: bool) -> None:
        name = data.draw(st.sampled_from([n for n in self.processes() if self.process(n).probed]))
        self.tell(Probed(name, self.process(name).incarnation, stopped, written, runs))

    @precondition(lambda self: self.processes())
    @rule(data=st.data(), exitcode=st.sampled_from([0, 1, 1, -9, 42, None]))
    def exit(self, data: st.DataObject, exitcode: int | None) -> None:
        self.end(data.draw(st.sampled_from(self.processes())), exitcode)

    @precondition(lambda self: any(self.process(name).is_to_end for name in self.processes()))
    @rule(data=st.data())
    def end_as_asked(self, data: st.DataObject) -> None:
        doomed = [name for name in self.processes() if self.process(name).is_to_end]
        name = data.draw(st.sampled_from(doomed))
        self.end(name, -9 if self.process(name).killed else 0)

    def bury(self, name: str) -> Process:
        record = self.known[name]
        process, record.process = self.process(name), None
        record.launched_before = process.launched
        return process

    def end(self, name: str, exitcode: int | None) -> None:
        process = self.bury(name)
        events = self.tell(Exited(name, process.incarnation, Evidence(pid=1, exitcode=exitcode)))
        died = [event for event in events if isinstance(event, WorkerDied)]
        if process.condemned:
            expected = 1
        elif process.killed_on_request:
            expected = 0
        else:
            expected = 0 if process.told_to_stop and exitcode == 0 else 1
        assert len(died) == expected, "one dossier of each death that nobody asked for"

    @precondition(lambda self: self.unborn())
    @rule(data=st.data())
    def fail_to_launch(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.unborn()))
        process = self.bury(name)
        events = self.tell(LaunchFailed(name, process.incarnation, "no"))
        died = [event for event in events if isinstance(event, WorkerDied)]
        assert died == ([] if process.killed_on_request else events[:1])

    @rule(name=names)
    def ask_to_stop(self, name: str) -> None:
        if name in self.known:
            self.known[name].stop_asked = True
            self.tell(StopAsked(name))

    @rule(name=names)
    def ask_to_start(self, name: str) -> None:
        if name not in self.known:
            return
        status, record = self.status(name), self.known[name]
        is_down = status in (WorkerStatus.STOPPED, WorkerStatus.QUARANTINED)
        is_ending = record.process is not None and record.process.is_to_end
        for_good = record.stop_asked or record.policy.restart is RestartType.TEMPORARY
        if is_down or (is_ending and for_good):
            record.asked_for = True
            for other in self.members_with(name):
                self.known[other].charged.clear()
        record.stop_asked = False
        self.tell(StartAsked(name))
        assert self.status(name) not in (WorkerStatus.STOPPED, WorkerStatus.QUARANTINED)

    @rule(name=names)
    def ask_to_restart(self, name: str) -> None:
        if name not in self.known:
            return
        status, record = self.status(name), self.known[name]
        if status is not WorkerStatus.STARTING and not record.stop_asked:
            record.asked_for = True
        if status in WAITS or status is WorkerStatus.STOPPING:
            for other in self.members_with(name):
                self.known[other].charged.clear()
        self.tell(RestartAsked(name))
        if status is not WorkerStatus.STARTING and not record.stop_asked:
            assert self.status(name) is not WorkerStatus.QUARANTINED, "the request was lost"

    @precondition(lambda self: any(record.launches > 1 for record in self.known.values()))
    @rule(data=st.data())
    def hear_of_an_earlier_incarnation(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n, r in self.known.items() if r.launches > 1]))
        old = data.draw(st.integers(min_value=1, max_value=self.known[name].launches - 1))
        before = self.supervisor.view(name)
        for stimulus in (
            Launched(name, old, 5),
            GotReady(name, old),
            BeatReceived(name, old, MAX_RSS + 1),
            GuardBeatReceived(name, old, 9.0),
            Probed(name, old, True, True, True),
            Exited(name, old, Evidence(pid=1, exitcode=1)),
            LaunchFailed(name, old, "no"),
        ):
            assert self.supervisor.handle(stimulus, self.now) == ([], [])
        assert self.supervisor.view(name) == before

    # What holds always

    @invariant()
    def status_says_whether_there_is_a_process(self) -> None:
        for name, record in self.known.items():
            view = self.supervisor.view(name)
            assert (view.status in HAS_PROCESS) == (record.process is not None)
            assert view.incarnation == record.launches
            if record.stop_asked:
                assert view.status in (WorkerStatus.STOPPING, WorkerStatus.STOPPED)

    @invariant()
    def nobody_runs_on_with_what_it_depended_on_replaced(self) -> None:
        for position, name in enumerate(self.known):
            for other in list(self.known)[position + 1 :]:
                if GROUPS[name] != GROUPS[other]:
                    continue
                strategy = self.strategies[GROUPS[name]]
                if strategy is not GroupStrategy.ONE_FOR_ONE:
                    self.check_follower(leader=name, follower=other)
                if strategy is GroupStrategy.ONE_FOR_ALL:
                    self.check_follower(leader=other, follower=name)

    def check_follower(self, leader: str, follower: str) -> None:
        process, died = self.known[follower].process, self.known[leader].died
        if process is None or process.is_to_end or process.asked_for:
            return
        assert process.launched > died, "it was to be restarted with the one that died"
        was_there = 0 < self.known[follower].launched_before < died
        if was_there and GROUPS[leader] not in self.quarantined:
            # From its quarantine a member comes back by itself, whoever runs by then.
            assert self.status(leader) not in WAITS, "it started before the one that died"

    @invariant()
    def a_temporary_worker_is_never_restarted_unasked(self) -> None:
        for name in self.processes():
            if self.known[name].policy.restart is RestartType.TEMPORARY:
                assert self.process(name).asked_for

    # How it ends

    def teardown(self) -> None:
        """Whatever has happened: nobody waits for ever, and a stop ends in STOPPED."""
        if not self.known:
            return
        if self.settle_first:
            self.settle()
        for name, record in self.known.items():
            record.stop_asked = True
            self.tell(StopAsked(name))
        for name in self.processes():
            self.end(name, -9)
        for name in self.known:
            assert self.status(name) is WorkerStatus.STOPPED
        assert self.supervisor.next_deadline() is None
        assert self.supervisor.handle(CheckDeadlines(), self.now + 1e6) == ([], [])

    def settle(self) -> None:
        """Let time pass in which nothing goes wrong any more; everybody gets READY again."""
        unsettled = set(self.known)
        for _ in range(60):
            self.now += 2.0
            self.check_deadlines()
            for name in self.processes():
                process = self.known[name].process
                if process is None:
                    continue
                if process.is_to_end:
                    self.end(name, -9 if process.killed else 0)
                elif not process.ready:
                    self.make_ready(name)
                else:
                    self.tell(BeatReceived(name, process.incarnation, 1, 0.1))
            unsettled -= {name for name in unsettled if self.is_settled(name)}
        assert not unsettled, "waits for ever"

    def is_settled(self, name: str) -> bool:
        status = self.status(name)
        if status is WorkerStatus.QUARANTINED:
            return self.known[name].policy.probation_interval is None
        return status in (WorkerStatus.READY, WorkerStatus.STOPPED)


class TestAnyHistory(AnyHistory.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
