"""The network loop's state machine."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.connection import (
    CLOSEST_CHECKS,
    Connection,
    ConnectionPolicy,
    NetworkStatus,
    StartWhen,
)
from chronopype_mp.core.operations import (
    Check,
    Failed,
    Interrupted,
    NotifyConnected,
    NotifyDisconnected,
    Operation,
    Outcome,
    Returned,
    Start,
    Stop,
    Stopped,
    TimedOut,
    Wait,
)

UP = Returned(NetworkStatus.CONNECTED)
DOWN = Returned(NetworkStatus.NOT_CONNECTED)
DONE = Returned()
CLOSED, BAN, LONG_BAN = Failed("closed"), Failed("429", retry_after=5.0), Failed("long", False, 9.0)
WRONG_KEY = Failed("wrong key", permanent=True)


class Driven(Connection):
    """A connection with a clock, which moves to the end of every wait that is not interrupted."""

    now = 0.0

    def handle(self, outcome: Outcome, now: float | None = None) -> Operation:
        if now is not None:
            self.now = now
        elif isinstance(self.operation, Wait) and not isinstance(outcome, Interrupted):
            assert self.operation.until < math.inf, "it waits for ever"
            self.now = max(self.now, self.operation.until)
        return super().handle(outcome, self.now)

    def go(self, outcome: Outcome) -> Operation:
        """Handle an outcome; a wait that has no end is looked at again instead."""
        return self.handle(Interrupted() if self.operation == Wait(math.inf) else outcome)

    def begin(self, now: float | None = None) -> Operation:
        return super().begin(self.now)

    def lose(self, cause: Failed, now: float | None = None) -> bool:
        return super().lose(cause, self.now)

    @property
    def wait(self) -> float:
        """For how long it waits now."""
        assert isinstance(self.operation, Wait)
        return self.operation.until - self.now


def make(**settings: object) -> Driven:
    return Driven(ConnectionPolicy(**settings), random.Random(1))  # type: ignore[arg-type]


def drive(connection: Driven, *outcomes: Outcome) -> list[Operation]:
    assert connection.begin() == Wait(0.0)
    assert connection.status is NetworkStatus.NOT_CONNECTED
    return [connection.handle(outcome) for outcome in (DONE, *outcomes)]


def test_a_check_that_needs_what_start_makes_can_connect() -> None:
    connection = make()
    operations = drive(connection, DOWN, DONE, UP, DONE)
    assert operations == [Check(), Start(), Check(), NotifyConnected(), Wait(10.0)]
    assert connection.ready


def test_a_check_that_raises_before_the_start_is_tried_again_after_it() -> None:
    connection = make()
    assert drive(connection, Failed(), DONE, UP, DONE)[-1] == Wait(10.0)
    assert connection.ready


def test_with_start_when_connected_the_start_waits_for_a_successful_check() -> None:
    connection = make(start_when=StartWhen.CONNECTED)
    operations = drive(connection, DOWN)
    assert isinstance(operations[1], Wait)
    assert connection.status is NetworkStatus.NOT_CONNECTED
    assert connection.handle(DONE) == Check()
    assert connection.handle(UP) == Start()
    assert connection.status is NetworkStatus.CONNECTED
    assert not connection.ready
    assert connection.handle(DONE) == NotifyConnected()
    assert not connection.ready
    assert isinstance(connection.handle(DONE), Wait)
    assert connection.wait == 10.0
    assert connection.ready


@pytest.mark.parametrize(
    ("outcome", "status", "shortest", "longest"),
    [
        (Failed(expected=True), NetworkStatus.NOT_CONNECTED, 0.9, 1.1),
        (TimedOut(), NetworkStatus.ERROR, 0.9, 1.1),
        (Failed(), NetworkStatus.ERROR, 60.0, 60.0),
    ],
)
def test_a_start_that_fails_is_cleared_away_and_tried_again_later(
    outcome: Outcome, status: NetworkStatus, shortest: float, longest: float
) -> None:
    connection = make()
    operations = drive(connection, DOWN, outcome, DONE)
    assert operations[:3] == [Check(), Start(), Stop()]
    assert shortest <= connection.wait <= longest
    assert connection.status is status
    assert connection.handle(DONE) == Check()
    assert connection.status is NetworkStatus.CONNECTING


def test_a_lost_connection_is_taken_down_in_order_and_waits_about_a_second() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE)
    assert connection.handle(DONE) == Check()
    assert connection.status is NetworkStatus.CONNECTED
    assert connection.handle(DOWN) == NotifyDisconnected()
    assert connection.status is NetworkStatus.DISCONNECTING
    assert connection.handle(DONE) == Stop()
    connection.handle(DONE)
    assert 0.9 <= connection.wait <= 1.1
    assert connection.status is NetworkStatus.NOT_CONNECTED


def test_a_check_that_raises_while_connected_shows_error_and_waits_the_error_wait() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE, DONE)
    assert connection.handle(Failed()) == NotifyDisconnected()
    assert connection.handle(DONE) == Stop()
    connection.handle(DONE)
    assert connection.wait == 60.0
    assert connection.status is NetworkStatus.ERROR


def test_a_timeout_while_connected_is_a_lost_connection() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE, DONE)
    assert connection.handle(TimedOut()) == NotifyDisconnected()


def test_a_hook_that_raises_in_on_connected_ends_in_error_not_in_connected() -> None:
    connection = make()
    operations = drive(connection, DOWN, DONE, UP, Failed(), DONE, DONE)
    assert operations[3:6] == [NotifyConnected(), NotifyDisconnected(), Stop()]
    assert connection.status is NetworkStatus.ERROR


def test_ending_while_connected_runs_the_hook_and_the_stop() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE)
    assert connection.end()
    assert not connection.ready
    assert connection.handle(Interrupted()) == NotifyDisconnected()
    assert connection.handle(Failed()) == Stop()
    assert connection.handle(TimedOut()) == Stopped()
    assert connection.status is NetworkStatus.STOPPED
    assert connection.next_attempt is None
    assert not connection.ending


TO_CHECK = ()
TO_START = (DOWN,)
TO_CONNECTED = (DOWN, DONE, UP)
TO_WAIT = (DOWN, DONE, UP, DONE)
TO_LOST = (*TO_WAIT, DONE, DOWN)
TO_STOP = (*TO_LOST, DONE)
TO_STOP_AFTER_A_FAILED_START = (DOWN, Failed())


@pytest.mark.parametrize(
    ("outcomes", "interrupts", "outcome", "rest"),
    [
        (TO_CHECK, True, Interrupted(), [Stop(), Stopped()]),
        (TO_CHECK, True, UP, [Stop(), Stopped()]),
        (TO_START, True, Interrupted(), [Stop(), Stopped()]),
        (TO_START, True, DONE, [Stop(), Stopped()]),
        (TO_CONNECTED, True, DONE, [NotifyDisconnected(), Stop(), Stopped()]),
        (TO_CONNECTED, True, Failed(), [NotifyDisconnected(), Stop(), Stopped()]),
        (TO_WAIT, True, Interrupted(), [NotifyDisconnected(), Stop(), Stopped()]),
        (TO_LOST, False, DONE, [Stop(), Stopped()]),
        (TO_LOST, False, Failed(), [Stop(), Stopped()]),
        (TO_STOP, False, DONE, [Stopped()]),
        (TO_STOP, False, TimedOut(), [Stopped()]),
        (TO_STOP_AFTER_A_FAILED_START, False, DONE, [Stopped()]),
    ],
)
def test_an_end_runs_every_hook_once_whatever_is_under_way(
    outcomes: tuple[Outcome, ...], interrupts: bool, outcome: Outcome, rest: list[Operation]
) -> None:
    connection = make()
    drive(connection, *outcomes)
    assert connection.end() is interrupts
    assert connection.end() is interrupts, "a second end changes nothing"
    ways = [connection.handle(outcome)]
    while ways[-1] != Stopped():
        connection.end()
        ways.append(connection.handle(DONE))
    assert ways == rest


@pytest.mark.parametrize("outcomes", [TO_CHECK, TO_START, TO_CONNECTED, TO_WAIT, TO_LOST, TO_STOP])
def test_a_begin_changes_nothing_unless_the_loop_is_stopped_or_ending(
    outcomes: tuple[Outcome, ...],
) -> None:
    connection, undisturbed = make(), make()
    drive(connection, *outcomes)
    drive(undisturbed, *outcomes)
    status = connection.status
    connection.begin()
    assert connection.status is status
    assert connection.handle(DONE) == undisturbed.handle(DONE)


@pytest.mark.parametrize("outcomes", [TO_CHECK, TO_START, TO_CONNECTED, TO_WAIT, TO_LOST, TO_STOP])
def test_a_begin_while_it_ends_begins_again_after_the_whole_end(
    outcomes: tuple[Outcome, ...],
) -> None:
    connection = make()
    drive(connection, *outcomes)
    connection.end()
    connection.begin()
    assert connection.ending
    operation = connection.handle(DONE)
    while connection.ending:
        assert operation in (NotifyDisconnected(), Stop())
        operation = connection.handle(DONE)
    assert connection.wait == 0.0
    assert connection.status is NetworkStatus.NOT_CONNECTED
    assert not connection.started
    assert connection.handle(DONE) == Check()


def test_an_end_takes_back_the_begin_before_it() -> None:
    connection = make()
    drive(connection, *TO_WAIT)
    connection.end()
    connection.begin()
    connection.end()
    assert [connection.handle(DONE) for _ in range(3)] == [NotifyDisconnected(), Stop(), Stopped()]


def test_it_can_begin_again_after_it_ended() -> None:
    connection = make()
    connection.begin()
    connection.end()
    assert connection.handle(Interrupted()) == Stop()
    assert connection.handle(DONE) == Stopped()
    assert not connection.end(), "there is nothing to interrupt"
    with pytest.raises(RuntimeError, match="stopped"):
        connection.handle(DONE)
    assert connection.begin() == Wait(0.0)


OUTCOMES = st.one_of(
    st.builds(Returned, st.sampled_from(NetworkStatus)),
    st.just(TimedOut()),
    st.builds(
        Failed,
        expected=st.booleans(),
        retry_after=st.none() | st.floats(min_value=0.0, max_value=100.0),
        permanent=st.booleans(),
    ),
)
LOSSES = st.sampled_from([(CLOSED,), (BAN,), (WRONG_KEY,)])
"""What a program reports with ``connection_lost``, told from the outcomes of hooks."""


@given(st.lists(OUTCOMES, max_size=60), st.sampled_from(StartWhen), st.booleans())
def test_whatever_happens_starts_and_stops_pair_and_the_way_to_stopped_is_short(
    outcomes: list[Outcome], start_when: StartWhen, end_early: bool
) -> None:
    connection = make(start_when=start_when)
    operation = connection.begin()
    begun = 0
    hooked = False
    for outcome in outcomes:
        if isinstance(operation, Start):
            begun += 1
            assert begun == 1, "started twice without a stop between"
        if isinstance(operation, Stop):
            begun = 0
        if isinstance(operation, NotifyConnected):
            assert not hooked
            hooked = True
        if isinstance(operation, NotifyDisconnected):
            assert hooked
            hooked = False
        if isinstance(operation, Wait):
            assert connection.wait > 0 or connection.status is NetworkStatus.NOT_CONNECTED
            assert connection.status not in (
                NetworkStatus.CONNECTING,
                NetworkStatus.DISCONNECTING,
                NetworkStatus.STOPPED,
            )
            assert connection.ready == (connection.status is NetworkStatus.CONNECTED)
            if operation == Wait(math.inf):
                assert connection.status is NetworkStatus.ERROR
                connection.reconnect(connection.now)
        operation = connection.go(outcome)
    steps = 0
    connection.end()
    while not isinstance(operation, Stopped):
        operation = connection.go(Failed() if end_early else DONE)
        steps += 1
        assert steps <= 3
    assert connection.status is NetworkStatus.STOPPED
    assert not connection.ready


@given(st.lists(st.one_of(OUTCOMES, st.sampled_from(["begin", "end"])), max_size=60))
def test_hooks_pair_whenever_the_loop_is_ended_and_begun(steps: list[Outcome | str]) -> None:
    connection = make()
    operation = connection.begin()
    history: list[Operation] = []
    for step in steps:
        if step == "begin":
            before = operation
            operation = connection.begin()
            if not isinstance(before, Stopped):
                assert operation is before
        elif step == "end":
            connection.end()
        elif not isinstance(operation, Stopped):
            assert not isinstance(step, str)
            operation = connection.go(step)
            history.append(operation)
    hooks = [op for op in history if isinstance(op, NotifyConnected | NotifyDisconnected)]
    for before, after in itertools.pairwise(hooks):
        assert type(before) is not type(after)
    assert not hooks or hooks[0] == NotifyConnected()
    for before, after in itertools.pairwise(history):
        if before == NotifyDisconnected():
            assert after == Stop()
        if before == Stop():
            assert isinstance(after, Wait | Stopped)


@given(st.integers(min_value=1, max_value=2000))
def test_a_network_that_never_comes_is_tried_for_ever_with_bounded_waits(attempts: int) -> None:
    connection = make(start_when=StartWhen.CONNECTED)
    connection.begin()
    connection.handle(DONE)
    for _ in range(attempts):
        connection.handle(DOWN)
        assert connection.wait <= 330.0
        connection.handle(DONE)
    assert connection.failures == attempts


# Losses


def test_a_loss_takes_the_connection_down_and_the_backoff_counts_from_it() -> None:
    connection = make()
    drive(connection, *TO_WAIT)
    assert connection.lose(Failed("reader ended"))
    assert not connection.ready
    assert connection.handle(Interrupted(), 3.0) == NotifyDisconnected()
    assert connection.reason == "reader ended"
    assert connection.handle(DONE, 3.5) == Stop()
    connection.handle(DONE, 3.7)
    assert connection.status is NetworkStatus.NOT_CONNECTED
    assert connection.next_attempt is not None
    assert 3.9 <= connection.next_attempt <= 4.1
    assert connection.operation == Wait(connection.next_attempt)


@pytest.mark.parametrize("outcome", [UP, DOWN, TimedOut(), Failed(), Interrupted()])
def test_a_loss_during_a_check_is_not_forgotten_whatever_the_check_says(outcome: Outcome) -> None:
    connection = make()
    drive(connection, *TO_WAIT, DONE)
    assert connection.operation == Check()
    assert connection.lose(Failed("reader ended"))
    assert connection.handle(outcome) == NotifyDisconnected()
    assert connection.reason == "reader ended"


@pytest.mark.parametrize("outcome", [DONE, TimedOut(), Failed(), Interrupted()])
def test_a_loss_during_a_start_makes_the_attempt_vain(outcome: Outcome) -> None:
    connection = make()
    drive(connection, *TO_START)
    assert connection.lose(Failed("closed"))
    assert connection.handle(outcome) == Stop()
    connection.handle(DONE)
    assert connection.status is NetworkStatus.NOT_CONNECTED
    assert 0.9 <= connection.wait <= 1.1


def test_a_loss_during_on_connected_ends_the_connection() -> None:
    connection = make()
    drive(connection, *TO_CONNECTED)
    assert connection.lose(Failed("closed"))
    assert connection.handle(DONE) == NotifyDisconnected()


def test_a_loss_before_the_start_leaves_the_start_to_be_made() -> None:
    connection = make()
    drive(connection, *TO_CHECK)
    connection.lose(Failed("closed"))
    assert connection.handle(UP) == Start()
    assert connection.status is NetworkStatus.CONNECTING
    assert connection.handle(DONE) == Check()
    assert connection.handle(UP) == NotifyConnected()


@pytest.mark.parametrize("outcomes", [TO_LOST, TO_STOP, (*TO_STOP, DONE)])
def test_without_a_connection_there_is_nothing_to_lose(outcomes: tuple[Outcome, ...]) -> None:
    connection, undisturbed = make(), make()
    drive(connection, *outcomes)
    drive(undisturbed, *outcomes)
    assert not connection.lose(Failed("late"))
    assert connection.handle(DONE) == undisturbed.handle(DONE)
    assert connection.reason == undisturbed.reason


# Who says when to try again


def at(connection: Driven, operation: type[Operation], outcome: Outcome) -> None:
    """Give every hook a good outcome until ``operation`` is to be done, and that one this."""
    while not isinstance(connection.operation, operation):
        connection.handle(UP)
    connection.handle(outcome)
    while not isinstance(connection.operation, Wait):
        connection.handle(DONE)


@pytest.mark.parametrize("operation", [Check, Start, NotifyConnected])
def test_a_retry_after_is_waited_for_exactly_and_nothing_but_a_reconnect_shortens_it(
    operation: type[Operation],
) -> None:
    connection = make()
    connection.begin()
    at(connection, operation, Failed("429", retry_after=6.0))
    assert connection.status is NetworkStatus.NOT_CONNECTED
    assert connection.reason == "429"
    assert connection.next_attempt == connection.now + 6.0
    due = connection.operation
    connection.check_now()
    connection.pause()
    connection.resume(connection.now)
    connection.policy = ConnectionPolicy(check_interval=0.5, error_wait=0.5)
    assert connection.handle(Interrupted(), connection.now + 5.9) == due
    assert connection.reconnect(connection.now)
    assert connection.handle(Interrupted()) == Check()


@pytest.mark.parametrize("operation", [Check, Start, NotifyConnected])
def test_after_a_permanent_failure_the_network_is_stopped_and_only_a_reconnect_tries_again(
    operation: type[Operation],
) -> None:
    connection = make()
    connection.begin()
    at(connection, operation, Failed("wrong key", permanent=True))
    assert connection.status is NetworkStatus.ERROR
    assert connection.reason == "wrong key"
    assert connection.next_attempt is None
    assert connection.operation == Wait(math.inf)
    assert connection.downtime(1e9) == 0.0
    connection.check_now()
    connection.pause()
    connection.resume(1e9)
    assert connection.handle(Interrupted(), 1e9) == Wait(math.inf)
    assert connection.reason == "wrong key"
    assert connection.reconnect(1e9)
    assert connection.handle(Interrupted(), 1e9) == Check()
    assert connection.downtime(1e9 + 5.0) == 5.0


def test_a_permanent_failure_stops_the_network_though_it_was_not_started() -> None:
    connection = make()
    assert drive(connection, Failed("wrong key", permanent=True)) == [Check(), Stop()]


def test_a_permanent_failure_may_be_tried_again_after_a_time() -> None:
    connection = make(retry_permanent_after=100.0)
    connection.begin()
    at(connection, Start, Failed("wrong key", permanent=True))
    assert connection.wait == 100.0
    assert connection.handle(DONE) == Check()
    assert connection.status is NetworkStatus.CONNECTING


def test_a_time_after_which_to_try_again_may_be_set_once_there_is_a_permanent_failure() -> None:
    connection = make()
    drive(connection, BAN)
    due = connection.next_attempt
    assert due is not None
    assert connection.lose(WRONG_KEY)
    assert connection.handle(Interrupted()) == Wait(math.inf)
    assert connection.next_attempt is None
    failed_at = connection.now
    for after, at_last in ((100.0, failed_at + 100.0), (0.5, due), (None, math.inf)):
        connection.policy = ConnectionPolicy(retry_permanent_after=after)
        assert connection.handle(Interrupted(), failed_at + 1.0) == Wait(at_last)
        assert connection.status is NetworkStatus.ERROR
    connection.policy = ConnectionPolicy(retry_permanent_after=10.0)
    assert connection.handle(Interrupted(), failed_at + 11.0) == Check()


@pytest.mark.parametrize("operation", [NotifyDisconnected, Stop])
def test_what_takes_the_connection_down_may_say_when_to_try_again(
    operation: type[Operation],
) -> None:
    for cause, due in ((Failed(retry_after=30.0), 40.0), (Failed(permanent=True), math.inf)):
        connection = make()
        drive(connection, *TO_WAIT, DONE, DOWN)
        at(connection, operation, cause)
        assert connection.operation == Wait(due)


def test_the_graver_of_a_loss_and_an_outcome_decides() -> None:
    for loss, outcome, reason in (
        (CLOSED, BAN, "429"),
        (BAN, CLOSED, "429"),
        (WRONG_KEY, BAN, "wrong key"),
        (BAN, WRONG_KEY, "wrong key"),
        (BAN, LONG_BAN, "long"),
        (LONG_BAN, BAN, "long"),
    ):
        connection = make()
        drive(connection, *TO_START)
        connection.lose(loss)
        connection.handle(outcome)
        assert connection.reason == reason


@pytest.mark.parametrize(("cause", "due"), [(BAN, 5.0), (WRONG_KEY, math.inf)])
@pytest.mark.parametrize("outcomes", [TO_LOST, TO_STOP, (*TO_STOP, DONE)])
def test_a_loss_that_says_when_to_try_again_counts_though_there_is_no_connection(
    outcomes: tuple[Outcome, ...], cause: Failed, due: float
) -> None:
    connection = make()
    drive(connection, *outcomes)
    waited = connection.waits
    due += connection.now
    assert connection.lose(cause) is waited
    while not connection.waits:
        connection.handle(DONE)
    if waited:
        assert connection.status is (NetworkStatus.ERROR if cause.permanent else connection.status)
        connection.handle(Interrupted())
    assert connection.operation == Wait(due)
    assert connection.reason == cause.reason


def test_a_server_that_asks_for_no_wait_is_not_hammered() -> None:
    connection = make()
    connection.begin()
    for _ in range(3):
        at(connection, Check, Failed("429", retry_after=0.0))
        assert connection.wait == pytest.approx(CLOSEST_CHECKS)


def test_no_cause_shortens_a_wait_that_is_longer() -> None:
    connection = make(retry_permanent_after=3.0)
    drive(connection, *TO_STOP, DONE)
    assert connection.lose(LONG_BAN)
    assert not connection.lose(BAN)
    assert connection.reason == "long"
    assert connection.handle(Interrupted()) == Wait(connection.now + 9.0)
    assert connection.lose(WRONG_KEY)
    assert connection.handle(Interrupted()) == Wait(connection.now + 9.0)
    assert (connection.status, connection.reason) == (NetworkStatus.ERROR, "wrong key")
    assert not connection.lose(LONG_BAN)


def test_a_stopped_loop_takes_no_cause() -> None:
    connection = make()
    for _ in range(2):
        assert not connection.lose(WRONG_KEY)
        assert connection.reason in ("not started", "stopped")
        connection.begin()
        connection.end()
        assert not connection.lose(WRONG_KEY)
        assert connection.handle(Interrupted()) == Stop()
        assert not connection.lose(WRONG_KEY)
        assert connection.handle(DONE) == Stopped()
        assert connection.reason == "stopped"


# How long a connection holds


def test_only_a_connection_that_held_resets_the_backoff() -> None:
    connection = make(stable_after=10.0, backoff=BackoffPolicy(jitter=0.0))
    connection.begin()
    waits = []
    for held in (0.0, 1.0, 9.9, 10.0, 0.0):
        at(connection, NotifyConnected, DONE)
        connection.lose(Failed("dropped"))
        connection.handle(Interrupted(), connection.now + held)
        while not isinstance(connection.operation, Wait):
            connection.handle(DONE)
        waits.append(connection.wait)
    assert waits == pytest.approx([1.0, 2.0, 4.0, 1.0, 2.0])


@pytest.mark.parametrize("start_when", StartWhen)
def test_a_hook_that_hangs_before_it_fails_is_no_connection_that_held(
    start_when: StartWhen,
) -> None:
    connection = make(start_when=start_when, backoff=BackoffPolicy(jitter=0.0))
    connection.begin()
    waits = []
    hangs = Start if start_when is StartWhen.CONNECTED else NotifyConnected
    for _ in range(3):
        while not isinstance(connection.operation, hangs):
            is_up = start_when is StartWhen.CONNECTED or connection.started
            connection.handle(UP if is_up else DOWN)
        connection.handle(Failed(expected=True), connection.now + 3600.0)
        while not isinstance(connection.operation, Wait):
            connection.handle(DONE)
        waits.append(connection.wait)
    assert waits == pytest.approx([1.0, 2.0, 4.0])


def test_a_silent_connection_is_lost() -> None:
    connection = make(stale_after=3.0)
    drive(connection, *TO_WAIT)
    assert connection.wait == 3.0
    connection.heard(2.0)
    assert connection.handle(DONE) == Wait(5.0)
    assert connection.handle(DONE) == NotifyDisconnected()
    assert connection.reason == "silent for 3 s"


def test_a_connection_that_was_never_heard_of_says_so() -> None:
    connection = make(stale_after=3.0)
    drive(connection, *TO_WAIT)
    assert connection.handle(DONE) == NotifyDisconnected()
    assert connection.reason == "silent for 3 s; heard() was not called since it was connected"


def test_a_paused_connection_may_be_silent() -> None:
    connection = make(stale_after=3.0)
    drive(connection, *TO_WAIT)
    connection.pause()
    assert connection.handle(DONE) == Wait(math.inf)
    assert connection.resume(100.0)
    assert connection.handle(Interrupted(), 100.0) == Check()
    assert connection.handle(UP) == Wait(103.0)


# Checks and waits


def test_a_check_that_is_asked_for_comes_at_once_or_after_the_one_under_way() -> None:
    connection = make()
    drive(connection, *TO_WAIT)
    assert connection.check_now()
    assert connection.handle(Interrupted(), 1.0) == Check()
    assert not connection.check_now(), "a check goes on"
    connection.handle(UP, 1.0)
    assert connection.wait == pytest.approx(CLOSEST_CHECKS)
    assert connection.handle(DONE) == Check()
    connection.handle(UP)
    assert connection.wait == 10.0


def test_a_check_that_is_asked_for_does_not_shorten_a_backoff() -> None:
    connection = make()
    drive(connection, *TO_STOP, DONE)
    before = connection.operation
    connection.check_now()
    assert connection.handle(Interrupted()) == before
    assert connection.handle(DONE) == Check()
    assert connection.status is NetworkStatus.CONNECTING


def test_a_new_interval_shortens_and_lengthens_the_wait_for_a_check_but_no_backoff() -> None:
    connection = make()
    drive(connection, *TO_WAIT)
    connection.policy = ConnectionPolicy(check_interval=20.0)
    assert connection.handle(Interrupted(), 5.0) == Wait(20.0)
    connection.policy = ConnectionPolicy(check_interval=6.0)
    assert connection.handle(Interrupted(), 5.0) == Wait(6.0)
    connection.policy = ConnectionPolicy(check_interval=2.0)
    assert connection.handle(Interrupted(), 5.0) == Check()
    drive(connection := make(), *TO_STOP, DONE)
    before = connection.operation
    connection.policy = ConnectionPolicy(check_interval=0.1, error_wait=0.1)
    assert connection.handle(Interrupted()) == before


def test_a_new_backoff_holds_from_the_next_failure() -> None:
    connection = make()
    drive(connection, *TO_WAIT, DONE, DOWN)
    connection.policy = ConnectionPolicy(backoff=BackoffPolicy(minimum=50.0, jitter=0.0))
    at(connection, Start, Failed(expected=True))
    assert connection.wait == 100.0, "the second failure in a row"


def test_a_reconnect_gives_up_the_connection_and_connects_at_once() -> None:
    connection = make()
    drive(connection, *TO_WAIT)
    assert connection.reconnect(connection.now)
    assert connection.handle(Interrupted()) == NotifyDisconnected()
    assert connection.reason == "reconnect requested"
    assert connection.handle(DONE) == Stop()
    assert connection.handle(DONE) == Wait(connection.now)
    assert connection.handle(DONE) == Check()


@pytest.mark.parametrize("outcomes", [TO_LOST, TO_STOP])
def test_a_reconnect_while_the_connection_is_taken_down_skips_the_wait(
    outcomes: tuple[Outcome, ...],
) -> None:
    connection = make()
    drive(connection, *outcomes)
    assert not connection.reconnect(connection.now)
    while not isinstance(connection.operation, Wait):
        connection.handle(DONE)
    assert connection.wait == 0.0


@pytest.mark.parametrize("cause", [CLOSED, BAN, WRONG_KEY])
@pytest.mark.parametrize("operation", [Check, NotifyDisconnected, Stop, Wait])
def test_a_reconnect_is_not_forgotten_for_what_is_raised_meanwhile(
    operation: type[Operation], cause: Failed
) -> None:
    for reports in (False, True):
        connection = make()
        drive(connection, *(TO_WAIT if operation in (Check, Wait) else TO_LOST))
        while not isinstance(connection.operation, operation):
            connection.handle(DONE)
        if operation is Wait:
            connection = make()
            drive(connection, *TO_STOP, DONE)
            connection.pause()
        connection.reconnect(connection.now)
        if reports:
            connection.lose(cause)
            connection.handle(Interrupted())
        else:
            connection.handle(Interrupted() if operation is Wait else cause)
        connection.resume(connection.now)
        while not isinstance(connection.operation, Wait | Check):
            connection.handle(DONE)
        now = connection.now
        if isinstance(connection.operation, Wait):
            connection.handle(Interrupted())
        assert connection.operation == Check()
        assert connection.now == now


def test_a_reconnect_leaves_an_attempt_alone_and_a_stopped_loop_too() -> None:
    connection = make()
    assert not connection.reconnect(0.0)
    drive(connection, *TO_START)
    assert not connection.reconnect(0.0)
    assert connection.handle(DONE) == Check()
    connection.end()
    assert not connection.reconnect(0.0)


# What supervision watches


def test_check_timeouts_in_a_row_are_counted() -> None:
    connection = make()
    drive(connection, TimedOut(), DONE, TimedOut(), DONE)
    assert connection.check_timeouts == 2
    connection.handle(DONE)
    connection.handle(DOWN)
    assert connection.check_timeouts == 0


def test_a_check_that_times_out_beside_a_loss_counts() -> None:
    connection = make()
    drive(connection, *TO_WAIT, DONE)
    connection.lose(CLOSED)
    connection.handle(TimedOut())
    assert connection.check_timeouts == 1


def test_the_downtime_counts_from_the_start_or_the_loss_and_not_what_a_server_asked_for() -> None:
    connection = make()
    drive(connection)
    assert connection.downtime(5.0) == 5.0
    for outcome in (DOWN, DONE, UP, DONE):
        connection.handle(outcome)
    assert connection.downtime(5.0) == 0.0
    connection.lose(Failed("429", retry_after=30.0))
    connection.handle(Interrupted(), 100.0)
    connection.handle(DONE)
    connection.handle(DONE)
    assert connection.downtime(129.0) == 0.0
    assert connection.downtime(135.0) == 5.0
    connection.pause()
    assert connection.downtime(140.0) == 0.0
    connection.resume(150.0)
    assert connection.downtime(151.0) == 1.0


def test_a_connection_that_does_not_become_ready_is_downtime() -> None:
    connection = make(start_when=StartWhen.CONNECTED)
    connection.begin()
    while connection.now < 100.0:
        while not isinstance(connection.operation, Start):
            connection.handle(UP)
        assert connection.status is NetworkStatus.CONNECTED
        connection.handle(TimedOut(), connection.now + 30.0)
        assert connection.downtime(connection.now) == connection.now
        connection.handle(DONE)


# Any history


STEPS = st.one_of(
    OUTCOMES,
    st.just(Interrupted()),
    LOSSES,
    st.sampled_from(["check", "pause", "resume", "reconnect", "begin", "end"]),
)


@given(st.lists(STEPS, max_size=80), st.sampled_from(StartWhen), st.booleans())
def test_from_every_history_it_comes_to_connected_once_the_network_is_well(
    steps: list[Outcome | tuple[Failed] | str], start_when: StartWhen, stale: bool
) -> None:
    connection = make(start_when=start_when, stale_after=5.0 if stale else None)
    connection.begin()
    for step in steps:
        match step:
            case (loss,):
                could_be_lost = connection.ready
                connection.lose(loss)
                assert not connection.ready
                if could_be_lost and isinstance(connection.operation, Check | Wait):
                    assert connection.handle(Interrupted()) == NotifyDisconnected()
            case "check":
                connection.check_now()
            case "pause":
                connection.pause()
            case "resume":
                connection.resume(connection.now)
            case "reconnect":
                connection.reconnect(connection.now)
            case "begin":
                connection.begin()
            case "end":
                connection.end()
            case _:
                assert not isinstance(step, str | tuple)
                if not isinstance(connection.operation, Stopped):
                    connection.go(step)
    connection.resume(connection.now)
    connection.begin()
    for _ in range(14):
        if connection.ready:
            break
        if connection.operation == Wait(math.inf) and connection.next_attempt is None:
            connection.go(Interrupted())
            if connection.operation == Wait(math.inf):
                assert connection.status is NetworkStatus.ERROR, "a permanent failure"
                connection.reconnect(connection.now)
        well = UP if connection.started or start_when is StartWhen.CONNECTED else DOWN
        connection.go(well)
    assert connection.ready
    assert connection.status is NetworkStatus.CONNECTED


@given(
    st.lists(
        st.one_of(OUTCOMES, LOSSES, st.sampled_from(["check", "interrupt", "reconnect"])),
        max_size=80,
    ),
    st.sampled_from(StartWhen),
)
def test_attempts_are_never_closer_than_the_backoff_or_the_server_allows(
    steps: list[Outcome | tuple[Failed] | str], start_when: StartWhen
) -> None:
    backoff = BackoffPolicy(jitter=0.0)
    # An unexpected error waits for error_wait instead; it is as long as the longest backoff here.
    connection = make(backoff=backoff, error_wait=backoff.maximum, start_when=start_when)
    connection.begin()
    earliest = -math.inf
    began = 0.0
    is_asked_for = False
    for step in steps:
        before, failures = connection.operation, connection.failures
        cause = None
        match step:
            case (cause,):
                connection.lose(cause)
            case "check":
                connection.check_now()
            case "interrupt":
                connection.handle(Interrupted(), connection.now + 0.1)
            case "reconnect":
                under_way = connection.status is NetworkStatus.CONNECTING and not connection.is_down
                is_asked_for = is_asked_for or not under_way
                if is_asked_for:
                    earliest = -math.inf
                connection.reconnect(connection.now)
            case _:
                assert not isinstance(step, str | tuple)
                connection.go(step)
                if isinstance(step, Failed) and not isinstance(before, Wait):
                    cause = step
        if is_asked_for:
            pass  # the operator's word counts until the attempt
        elif cause is not None and cause.permanent:
            earliest = math.inf
        elif cause is not None and cause.retry_after is not None:
            earliest = max(earliest, connection.now + cause.retry_after)
        elif connection.failures > failures:
            earliest = max(earliest, began + backoff.base_delay(connection.failures))
        is_attempt = connection.status is NetworkStatus.CONNECTING
        if is_attempt and isinstance(before, Wait) and connection.operation == Check():
            assert connection.now >= earliest
            began, earliest, is_asked_for = connection.now, -math.inf, False


@given(st.lists(OUTCOMES, max_size=40))
def test_after_a_permanent_failure_no_history_makes_an_attempt(outcomes: list[Outcome]) -> None:
    connection = make()
    connection.begin()
    at(connection, Start, Failed("wrong key", permanent=True))
    for outcome in outcomes:
        connection.check_now()
        connection.lose(CLOSED)
        connection.lose(BAN)
        connection.pause()
        connection.resume(connection.now)
        connection.handle(outcome, connection.now + 1000.0)
        assert connection.operation == Wait(math.inf)
        assert (connection.status, connection.reason) == (NetworkStatus.ERROR, "wrong key")


STEPS = st.one_of(OUTCOMES, st.just(UP), st.just(Interrupted()), st.sampled_from(["begin", "end"]))


@given(st.lists(st.tuples(STEPS, st.integers(min_value=0, max_value=80)), max_size=60))
def test_every_check_and_every_connection_is_counted_once_whatever_happens(
    steps: list[tuple[Outcome | str, int]],
) -> None:
    connection = make()
    connection.begin()
    checks, connects, connected = [], 0, 0.0
    for step, eighths in steps:
        was, operation = connection.status, connection.operation
        if step == "begin":
            connection.begin()
        elif step == "end":
            connection.end()
        elif not isinstance(operation, Stopped):
            assert not isinstance(step, str)
            took = eighths / 8
            if isinstance(operation, Check) and step != Interrupted():
                checks.append(took)
            connected += took if was is NetworkStatus.CONNECTED else 0.0
            connection.now += took
            connection.handle(step, connection.now)
            is_new = was is not NetworkStatus.CONNECTED
            connects += is_new and connection.status is NetworkStatus.CONNECTED
    counters = connection.recorder.counters(connection.now)
    assert (counters.connects, counters.connected_seconds) == (connects, connected)
    assert counters.check_latency.count == len(checks)
    assert counters.check_latency.total == pytest.approx(sum(checks))
