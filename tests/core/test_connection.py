"""The network loop's state machine."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.connection import (
    Check,
    Connection,
    ConnectionPolicy,
    Failed,
    Interrupted,
    NetworkStatus,
    NotifyConnected,
    NotifyDisconnected,
    Operation,
    Outcome,
    Returned,
    Start,
    StartWhen,
    Stop,
    Stopped,
    TimedOut,
    Wait,
)

UP = Returned(NetworkStatus.CONNECTED)
DOWN = Returned(NetworkStatus.NOT_CONNECTED)
DONE = Returned()


def make(**settings: object) -> Connection:
    return Connection(ConnectionPolicy(**settings), random.Random(1))  # type: ignore[arg-type]


def drive(connection: Connection, *outcomes: Outcome) -> list[Operation]:
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
    assert connection.handle(UP) == NotifyConnected()
    assert not connection.ready
    assert connection.handle(DONE) == Start()
    assert not connection.ready
    assert connection.handle(DONE) == Wait(10.0)
    assert connection.ready


@pytest.mark.parametrize("outcome", [Failed(), TimedOut()])
def test_a_start_that_fails_is_cleared_away_and_tried_again_after_a_backoff(
    outcome: Outcome,
) -> None:
    connection = make()
    operations = drive(connection, DOWN, outcome, DONE)
    assert operations[:3] == [Check(), Start(), Stop()]
    wait = operations[3]
    assert isinstance(wait, Wait)
    assert 0.9 <= wait.seconds <= 1.1
    assert connection.status is NetworkStatus.ERROR
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
    wait = connection.handle(DONE)
    assert isinstance(wait, Wait)
    assert 0.9 <= wait.seconds <= 1.1
    assert connection.status is NetworkStatus.NOT_CONNECTED


def test_a_check_that_raises_while_connected_shows_error_and_waits_the_error_wait() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE, DONE)
    assert connection.handle(Failed()) == NotifyDisconnected()
    assert connection.handle(DONE) == Stop()
    assert connection.handle(DONE) == Wait(60.0)
    assert connection.status is NetworkStatus.ERROR


def test_a_timeout_while_connected_is_a_lost_connection() -> None:
    connection = make()
    drive(connection, DOWN, DONE, UP, DONE, DONE)
    assert connection.handle(TimedOut()) == NotifyDisconnected()


def test_a_hook_that_raises_in_on_connected_ends_in_error_not_in_connected() -> None:
    connection = make()
    operations = drive(connection, UP, Failed(), DONE, DONE)
    assert operations[1:4] == [NotifyConnected(), NotifyDisconnected(), Stop()]
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
    assert not connection.ending


TO_CHECK = ()
TO_START = (DOWN,)
TO_CONNECTED = (UP,)
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
        (TO_CONNECTED, False, DONE, [NotifyDisconnected(), Stop(), Stopped()]),
        (TO_CONNECTED, False, Failed(), [NotifyDisconnected(), Stop(), Stopped()]),
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
    assert operation == Wait(0.0)
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
    st.just(Failed()),
)


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
            assert operation.seconds > 0 or connection.status is NetworkStatus.NOT_CONNECTED
            assert connection.status not in (
                NetworkStatus.CONNECTING,
                NetworkStatus.DISCONNECTING,
                NetworkStatus.STOPPED,
            )
            assert connection.ready == (connection.status is NetworkStatus.CONNECTED)
        operation = connection.handle(outcome)
    steps = 0
    connection.end()
    while not isinstance(operation, Stopped):
        operation = connection.handle(Failed() if end_early else DONE)
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
            operation = connection.handle(step)
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
        wait = connection.handle(DOWN)
        assert isinstance(wait, Wait)
        assert wait.seconds <= 330.0
        connection.handle(DONE)
    assert connection.failures == attempts
