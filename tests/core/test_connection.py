"""The network loop's state machine."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.connection import (
    Check,
    Connection,
    ConnectionPolicy,
    Failed,
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
    assert connection.end() == NotifyDisconnected()
    assert connection.handle(Failed()) == Stop()
    assert connection.handle(TimedOut()) == Stopped()
    assert connection.status is NetworkStatus.STOPPED


def test_ending_during_a_stop_does_not_stop_twice() -> None:
    connection = make()
    drive(connection, DOWN, Failed())
    assert connection.end() == Stop()
    assert connection.handle(DONE) == Stopped()
    assert connection.status is NetworkStatus.STOPPED


def test_it_can_begin_again_after_it_ended_but_not_twice() -> None:
    connection = make()
    connection.begin()
    with pytest.raises(RuntimeError, match="begun already"):
        connection.begin()
    connection.end()
    connection.handle(DONE)
    assert connection.begin() == Wait(0.0)
    assert connection.end() == Stop()


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
    operation = connection.end()
    while not isinstance(operation, Stopped):
        operation = connection.handle(Failed() if end_early else DONE)
        steps += 1
        assert steps <= 2
    assert connection.status is NetworkStatus.STOPPED
    assert not connection.ready


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
