"""The supervisor: who is restarted with a member of a group that died, when, and in which order."""

from __future__ import annotations

import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.limits import Limits
from chronopype_mp.core.policy import GroupStrategy, RestartType, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.core.stimuli import (
    Action,
    Added,
    BeatReceived,
    CheckDeadlines,
    Evidence,
    Exited,
    GotReady,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Probe,
    Probed,
    RestartAsked,
    SendStop,
    Stimulus,
    StopAsked,
)
from chronopype_mp.core.supervisor import Supervisor
from chronopype_mp.core.worker_events import (
    DeathReason,
    Event,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerStopped,
)

POLICY = Supervision(
    start_timeout=30.0,
    loop_stall_timeout=10.0,
    stop_grace=5.0,
    backoff=BackoffPolicy(minimum=4.0, maximum=4.0, jitter=0.0),
    budget=RestartBudget(max_restarts=3, window=100.0),
)
NO_RESTARTS = POLICY.model_copy(update={"budget": RestartBudget(max_restarts=0)})
ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE = GroupStrategy
GROUP = ("a", "b", "c")


class Family:
    """A supervisor of a READY group of a, b and c, of x outside it, and what it said last."""

    def __init__(
        self,
        strategy: GroupStrategy,
        policy: Supervision = POLICY,
        *,
        budget: RestartBudget | None = None,
        **policies: Supervision,
    ) -> None:
        self.supervisor = Supervisor() if budget is None else Supervisor(budget)
        self.strategy = strategy
        self.policy = policy
        for name in (*GROUP, "x"):
            self.add(name, policies.get(name, policy))
        for name in (*GROUP, "x"):
            self.ready(name, 1.0)

    def tell(self, stimulus: Stimulus, now: float) -> list[Action]:
        self.actions, self.events = self.supervisor.handle(stimulus, now)
        return self.actions

    def add(self, name: str, policy: Supervision, now: float = 0.0) -> None:
        group = None if name == "x" else "g"
        self.tell(Added(name, policy, group=group, strategy=self.strategy), now)

    def incarnation(self, name: str) -> int:
        return self.supervisor.view(name).incarnation

    def ready(self, name: str, now: float) -> None:
        self.tell(Launched(name, self.incarnation(name), 1), now)
        self.tell(GotReady(name, self.incarnation(name)), now)

    def dies(self, name: str, now: float) -> list[Action]:
        return self.ends(name, now, -9)

    def ends(self, name: str, now: float, exitcode: int = 0) -> list[Action]:
        evidence = Evidence(pid=1, exitcode=exitcode)
        return self.tell(Exited(name, self.incarnation(name), evidence), now)

    def passes(self, now: float) -> list[Action]:
        return self.tell(CheckDeadlines(), now)

    def die_together(self, name: str, now: float) -> None:
        """Let a member die, and the others end as they are asked to."""
        asked = [action.worker for action in self.dies(name, now)]
        for other in asked:
            self.ends(other, now)

    def of(self, kind: type[Event]) -> list[str]:
        return [event.worker for event in self.events if isinstance(event, kind)]  # type: ignore[attr-defined]

    def status(self, name: str) -> str:
        return self.supervisor.view(name).status.name

    @property
    def statuses(self) -> list[str]:
        return [self.status(name) for name in (*GROUP, "x")]


def test_one_for_all_stops_the_others_and_starts_all_together_once_the_last_has_ended() -> None:
    family = Family(ONE_FOR_ALL)
    assert family.dies("b", 2.0) == [SendStop("a", 1), SendStop("c", 1)]
    assert family.statuses == ["STOPPING", "BACKOFF", "STOPPING", "READY"]
    assert family.ends("c", 2.5) == []
    assert family.passes(3.0) == []
    assert family.ends("a", 3.5) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]
    assert family.of(WorkerDied) == []
    assert [family.supervisor.view(name).restarts for name in (*GROUP, "x")] == [1, 1, 1, 0]


def test_rest_for_one_takes_those_along_that_were_added_later() -> None:
    family = Family(REST_FOR_ONE)
    assert family.dies("b", 2.0) == [SendStop("c", 1)]
    assert family.ends("c", 2.5) == [Launch("b", 2), Launch("c", 2)]
    assert family.statuses == ["READY", "STARTING", "STARTING", "READY"]


def test_rest_for_one_takes_nobody_along_with_the_last() -> None:
    family = Family(REST_FOR_ONE)
    assert family.dies("c", 2.0) == [Launch("c", 2)]


def test_one_for_one_takes_nobody_along() -> None:
    family = Family(ONE_FOR_ONE)
    assert family.dies("b", 2.0) == [Launch("b", 2)]
    assert family.statuses == ["READY", "STARTING", "READY", "READY"]


def test_a_worker_without_a_group_takes_nobody_along() -> None:
    family = Family(ONE_FOR_ALL)
    assert family.dies("x", 2.0) == [Launch("x", 2)]


def test_a_member_added_again_is_the_last_of_its_group() -> None:
    family = Family(REST_FOR_ONE)
    family.tell(StopAsked("a"), 2.0)
    family.ends("a", 2.1)
    family.add("a", POLICY, 3.0)
    family.ready("a", 3.5)
    assert family.dies("b", 4.0) == [SendStop("c", 1), SendStop("a", 2)]
    family.ends("a", 4.1)
    assert family.ends("c", 4.2) == [Launch("b", 2), Launch("c", 2), Launch("a", 3)]


def test_the_others_share_the_backoff_of_the_one_that_died() -> None:
    family = Family(ONE_FOR_ALL)
    family.die_together("b", 2.0)
    assert family.dies("b", 2.3) == [Kill("a", 2), Kill("c", 2)], "these were starting"
    assert [e.delay for e in family.events if isinstance(e, WorkerBackingOff)] == [4.0]
    for name in ("a", "c"):
        family.dies(name, 2.4)
        assert family.events == [], "killed on request"
    assert family.statuses == ["BACKOFF", "BACKOFF", "BACKOFF", "READY"]
    assert family.supervisor.next_deadline() == 6.3
    assert family.passes(6.2) == []
    assert family.passes(6.3) == [Launch("a", 3), Launch("b", 3), Launch("c", 3)]


def test_a_follower_that_ends_after_the_backoff_is_still_waited_for() -> None:
    slow = POLICY.model_copy(update={"stop_grace": 60.0})
    family = Family(REST_FOR_ONE, c=slow)
    family.dies("b", 2.0)
    for now in (3.0, 10.0, 50.0):
        family.tell(BeatReceived("a", 1), now)
        family.tell(BeatReceived("x", 1), now)
        assert family.passes(now) == []
    assert family.status("b") == "BACKOFF"
    assert family.ends("c", 50.5) == [Launch("b", 2), Launch("c", 2)]


def test_a_follower_that_does_not_stop_is_killed_and_holds_up_its_group_no_longer() -> None:
    family = Family(REST_FOR_ONE)
    family.dies("b", 2.0)
    assert family.passes(7.0) == [Probe("c", 1)]
    assert family.tell(Probed("c", 1, False, False, True), 7.0) == [Kill("c", 1)]
    assert family.dies("c", 7.1) == [Launch("b", 2), Launch("c", 2)]
    death = family.events[0]
    assert isinstance(death, WorkerDied)
    assert death.reason is DeathReason.STOP_TIMEOUT


def test_a_follower_that_fails_while_it_stops_has_died_and_is_not_charged_for_it() -> None:
    family = Family(REST_FOR_ONE, c=NO_RESTARTS)
    family.dies("b", 2.0)
    assert family.ends("c", 2.5, exitcode=70) == [Launch("b", 2), Launch("c", 2)]
    assert family.of(WorkerDied) == ["c"]


def test_a_follower_of_which_no_process_came_to_be_is_started_with_its_leader() -> None:
    family = Family(REST_FOR_ONE)
    family.tell(RestartAsked("c"), 1.5)
    family.ends("c", 1.6)
    assert family.dies("b", 2.0) == [Kill("c", 2)]
    assert family.tell(LaunchFailed("c", 2, "no"), 2.1) == [Launch("b", 2), Launch("c", 3)]


def test_a_member_that_is_being_stopped_for_a_limit_joins_its_group() -> None:
    """It would start while others of the group still run otherwise, and a second time with them."""
    limited = POLICY.model_copy(update={"limits": Limits(max_rss=1000)})
    family = Family(ONE_FOR_ALL, limited)
    assert family.tell(BeatReceived("a", 1, rss=1001), 2.0) == [SendStop("a", 1)]
    assert family.dies("b", 2.1) == [SendStop("c", 1)]
    assert family.ends("a", 2.2) == []
    assert family.of(WorkerDied) == ["a"]
    assert family.ends("c", 2.3) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]


def test_a_member_that_the_owner_is_restarting_joins_its_group() -> None:
    family = Family(ONE_FOR_ALL)
    family.tell(RestartAsked("a"), 2.0)
    assert family.dies("b", 2.1) == [SendStop("c", 1)]
    assert family.ends("a", 2.2) == []
    assert family.ends("c", 2.3) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]


def test_a_member_that_the_owner_was_restarting_takes_nobody_away_from_the_first() -> None:
    family = Family(REST_FOR_ONE)
    family.die_together("a", 1.5)
    family.ready("b", 1.6)
    family.tell(RestartAsked("b"), 2.0)
    family.dies("a", 2.0)
    family.dies("b", 2.1)
    family.dies("c", 2.1)
    assert family.statuses == ["BACKOFF", "BACKOFF", "BACKOFF", "READY"]
    assert family.passes(6.0) == [Launch("a", 3), Launch("b", 3), Launch("c", 3)]


def test_a_member_that_the_owner_is_stopping_is_left_alone() -> None:
    family = Family(ONE_FOR_ALL)
    family.tell(StopAsked("a"), 2.0)
    family.dies("b", 2.1)
    assert family.ends("c", 2.2) == [Launch("b", 2), Launch("c", 2)]
    assert family.ends("a", 2.3) == []
    assert family.statuses == ["STOPPED", "STARTING", "STARTING", "READY"]


def test_a_member_that_waits_to_start_waits_for_one_before_it_that_dies_meanwhile() -> None:
    """In rest_for_one nobody starts before the one it depends on."""
    family = Family(REST_FOR_ONE)
    family.dies("a", 1.5)
    family.ends("b", 1.5)
    family.ends("c", 1.5)
    family.dies("b", 2.0)
    family.dies("c", 2.0)
    family.dies("b", 2.0)
    family.dies("c", 2.0)
    assert family.statuses == ["STARTING", "BACKOFF", "BACKOFF", "READY"]
    family.dies("a", 4.0)
    assert family.statuses == ["BACKOFF", "BACKOFF", "BACKOFF", "READY"]
    assert family.passes(6.0) == [], "the backoff of b alone is over"
    assert family.passes(8.0) == [Launch("a", 3), Launch("b", 4), Launch("c", 4)]


def test_followers_of_one_that_becomes_a_follower_follow_too() -> None:
    family = Family(REST_FOR_ONE)
    family.dies("b", 2.0)
    family.dies("a", 2.1)
    assert family.actions == [], "b has ended, c is being stopped already"
    assert family.ends("c", 2.2) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]


# Who is not restarted


def test_a_member_that_its_restart_type_does_not_restart_takes_nobody_along() -> None:
    family = Family(ONE_FOR_ALL, POLICY.model_copy(update={"restart": RestartType.TRANSIENT}))
    assert family.ends("b", 2.0, exitcode=0) == []
    assert family.statuses == ["READY", "STOPPED", "READY", "READY"]
    family.die_together("a", 3.0)
    assert family.statuses == ["STARTING", "STOPPED", "STARTING", "READY"], "nor is it taken along"


def test_a_temporary_member_is_stopped_with_its_group_and_not_started_again() -> None:
    """OTP: temporary children are not restarted, whoever's death ended them."""
    temporary = POLICY.model_copy(update={"restart": RestartType.TEMPORARY})
    family = Family(ONE_FOR_ALL, c=temporary)
    assert family.dies("b", 2.0) == [SendStop("a", 1), SendStop("c", 1)]
    family.ends("a", 2.1)
    assert family.ends("c", 2.2) == [Launch("a", 2), Launch("b", 2)]
    assert family.of(WorkerStopped) == ["c"]


def test_a_transient_member_that_its_group_stopped_is_started_again() -> None:
    transient = POLICY.model_copy(update={"restart": RestartType.TRANSIENT})
    family = Family(ONE_FOR_ALL, transient)
    family.dies("b", 2.0)
    family.ends("a", 2.1, exitcode=0)
    assert family.ends("c", 2.2, exitcode=0) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]


# Quarantine


def quarantined(policy: Supervision = NO_RESTARTS) -> Family:
    """Return a group that is QUARANTINED for the deaths of b."""
    family = Family(ONE_FOR_ALL, policy)
    for _ in range(policy.budget.max_restarts):
        family.die_together("b", 2.0)
    family.dies("b", 2.0)
    assert family.of(WorkerQuarantined) == ["b"]
    family.ends("a", 2.1)
    assert family.of(WorkerQuarantined) == ["a"]
    family.ends("c", 2.2)
    assert family.statuses == ["QUARANTINED"] * 3 + ["READY"]
    return family


@pytest.mark.parametrize("asked_for", GROUP)
def test_members_whose_member_is_quarantined_are_so_too_and_come_back_with_any(
    asked_for: str,
) -> None:
    family = quarantined()
    actions = family.tell(RestartAsked(asked_for), 3.0)
    assert actions == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]


def test_a_probation_is_a_try_of_the_whole_group() -> None:
    family = quarantined(NO_RESTARTS.model_copy(update={"probation_interval": 100.0}))
    family.tell(BeatReceived("x", 1), 101.0)
    assert family.passes(101.9) == []
    assert family.passes(102.0) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]
    assert family.dies("b", 103.0) == [Kill("a", 2), Kill("c", 2)]
    assert family.status("b") == "QUARANTINED"


def test_members_that_wait_to_start_share_the_quarantine_of_one_before_them() -> None:
    family = Family(REST_FOR_ONE, a=NO_RESTARTS)
    family.dies("b", 2.0)
    family.dies("a", 2.1)
    family.ends("c", 2.2)
    assert family.statuses == ["QUARANTINED"] * 3 + ["READY"]


def test_a_quarantined_member_is_not_brought_back_by_the_death_of_another() -> None:
    family = Family(REST_FOR_ONE, b=NO_RESTARTS)
    family.dies("b", 2.0)
    assert family.dies("a", 2.1) == [Launch("a", 2)], "c, still stopping, is to be quarantined"
    family.ends("c", 2.2)
    assert family.statuses == ["STARTING", "QUARANTINED", "QUARANTINED", "READY"]


def test_a_probation_does_not_start_while_a_follower_still_stops() -> None:
    policy = NO_RESTARTS.model_copy(update={"probation_interval": 2.0})
    family = Family(REST_FOR_ONE, policy)
    family.dies("b", 2.0)
    assert family.passes(4.0) == []
    assert family.ends("c", 4.5) == [Launch("b", 2), Launch("c", 2)]


@pytest.mark.parametrize("asked_for", ["b", "c"])
def test_a_restart_asked_for_while_a_follower_still_stops_is_not_lost(asked_for: str) -> None:
    family = Family(REST_FOR_ONE, NO_RESTARTS)
    family.dies("b", 2.0)
    assert family.tell(RestartAsked(asked_for), 2.1) == []
    assert family.status("b") == "BACKOFF"
    assert family.ends("c", 2.2) == [Launch("b", 2), Launch("c", 2)]


def test_a_restart_asked_for_spares_a_group_the_rest_of_its_backoff() -> None:
    family = Family(REST_FOR_ONE)
    family.die_together("b", 2.0)
    family.dies("b", 2.1)
    family.tell(RestartAsked("b"), 2.2)
    assert family.dies("c", 2.3) == [Launch("b", 3), Launch("c", 3)]


def test_a_temporary_member_is_started_with_its_group_if_the_owner_asks_for_that() -> None:
    temporary = POLICY.model_copy(update={"restart": RestartType.TEMPORARY})
    family = Family(REST_FOR_ONE, c=temporary)
    family.dies("b", 2.0)
    family.tell(RestartAsked("c"), 2.1)
    assert family.ends("c", 2.2) == [Launch("b", 2), Launch("c", 2)]


def test_a_restart_asked_for_makes_the_budget_of_the_one_that_died_whole() -> None:
    family = quarantined(POLICY.model_copy(update={"budget": RestartBudget(max_restarts=1)}))
    family.tell(RestartAsked("a"), 3.0)
    family.dies("b", 3.1)
    assert family.status("b") == "BACKOFF"


# What the owner does to a member meanwhile


@pytest.mark.parametrize("policy", [POLICY, NO_RESTARTS], ids=["backoff", "quarantine"])
def test_the_followers_of_a_leader_that_the_owner_stops_start_without_it(
    policy: Supervision,
) -> None:
    family = Family(REST_FOR_ONE, policy)
    family.dies("a", 2.0)
    family.ends("c", 2.1)
    assert family.tell(StopAsked("a"), 2.2) == [], "a clock that stops all must not start any"
    assert family.passes(2.3) == []
    family.ends("b", 2.4)
    assert family.of(WorkerQuarantined) == []
    assert family.actions == [Launch("b", 2), Launch("c", 2)]
    assert family.statuses == ["STOPPED", "STARTING", "STARTING", "READY"]


def test_followers_that_have_ended_start_when_the_owner_stops_the_leader() -> None:
    family = quarantined()
    family.tell(StopAsked("b"), 3.0)
    assert family.passes(3.1) == [Launch("a", 2), Launch("c", 2)]


def test_a_stop_of_all_starts_none() -> None:
    family = quarantined()
    for name in ("b", "a", "c"):
        assert family.tell(StopAsked(name), 3.0) == []
    assert family.passes(4.0) == []
    assert family.statuses == ["STOPPED"] * 3 + ["READY"]


def test_a_leader_goes_on_without_a_follower_that_the_owner_stops() -> None:
    family = Family(REST_FOR_ONE)
    family.dies("b", 2.0)
    family.tell(StopAsked("c"), 2.1)
    assert family.status("b") == "BACKOFF", "its process is still waited for"
    assert family.ends("c", 2.2) == [Launch("b", 2)]
    assert family.status("c") == "STOPPED"


def test_a_follower_that_the_owner_stops_after_its_end_is_not_started() -> None:
    family = Family(ONE_FOR_ALL)
    family.dies("b", 2.0)
    family.ends("c", 2.1)
    family.tell(StopAsked("c"), 2.2)
    assert family.of(WorkerStopped) == ["c"]
    assert family.ends("a", 2.3) == [Launch("a", 2), Launch("b", 2)]


def test_a_leader_added_again_leaves_no_follower_waiting_for_ever() -> None:
    """The one that it followed has gone; another that goes by its name is not that."""
    family = Family(REST_FOR_ONE)
    family.die_together("a", 1.5)
    for name in GROUP:
        family.ready(name, 1.6)
    family.dies("b", 2.0)  # c follows, and takes its time
    family.tell(StopAsked("b"), 2.1)
    family.add("b", POLICY, 2.2)
    family.ready("b", 2.3)
    family.dies("a", 2.4)  # takes b along, which is the last of the group now
    family.ends("b", 2.5)
    family.ends("c", 2.6)
    assert family.passes(6.4) == [Launch("a", 3), Launch("c", 3), Launch("b", 4)]


# The budget of the whole clock


def test_a_restart_of_a_group_takes_as_much_of_the_clocks_budget_as_it_has_members() -> None:
    family = Family(ONE_FOR_ALL, budget=RestartBudget(max_restarts=3, window=10.0))
    family.dies("x", 2.0)
    assert family.actions == [Launch("x", 2)]
    family.dies("b", 2.1)
    family.ends("a", 2.2)
    assert family.ends("c", 2.3) == [], "put off: one of three is taken"
    assert family.passes(11.9) == []
    assert family.passes(13.1) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]
    family.dies("x", 14.0)
    assert family.status("x") == "BACKOFF", "the group has taken all"


def test_a_group_larger_than_the_clocks_budget_starts_together_when_nobody_else_did() -> None:
    family = Family(ONE_FOR_ALL, budget=RestartBudget(max_restarts=2, window=10.0))
    family.dies("b", 2.0)
    family.ends("a", 2.1)
    assert family.ends("c", 2.2) == [Launch("a", 2), Launch("b", 2), Launch("c", 2)]
    family.dies("x", 3.0)
    assert family.status("x") == "BACKOFF"
    assert family.passes(13.3) == [Launch("x", 2)]
