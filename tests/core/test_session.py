"""The conversation, one role at a time: what each report and each command brings about."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.messages import (
    PROTOCOL,
    Beat,
    Bye,
    Call,
    CommandDone,
    Configure,
    Downlink,
    Failure,
    GuardBeat,
    Hello,
    LogLine,
    Ready,
    Rehearse,
    Report,
    SendAttributes,
    Status,
    Stop,
    TickDone,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.session import (
    HELLO_INTERVAL,
    REPEAT_AFTER,
    UNHEARD_AFTER,
    Answer,
    CoordinatorSession,
    Due,
    SessionState,
    WorkerSession,
)
from chronopype_mp.core.state import TickAccount, TickCounters
from chronopype_mp.core.stimuli import BeatReceived, GotReady, GuardBeatReceived
from tests.boots import boot_of_a

BOOT = boot_of_a()
SLOW, FAST = (
    WorkerSettings(check_network_interval=60.0),
    WorkerSettings(check_network_interval=1.0),
)


class Coordinator:
    """A coordinator's session of worker ``a`` in its second incarnation."""

    def __init__(self, settings: WorkerSettings = SLOW) -> None:
        self.session = CoordinatorSession("a", 2, settings)
        self.now = 1000.0

    def take(self, kind: type[Report], **values: Any) -> Answer:
        return self.session.handle(BOOT.report(kind, **values), self.now)  # type: ignore[arg-type]

    def beat(self, serial: int = 1, base: int = 10, **values: Any) -> Answer:
        counters = TickCounters(is_active=True)
        standard = {"counters": counters, "largest_gap": 0.0, "lag": 0.0}
        account = TickAccount(base)
        return self.take(Beat, serial=serial, account=account, **{**standard, **values})

    def get_ready(self) -> Answer:
        self.take(Hello, pid=7)
        return self.take(Ready, base=10)

    def due(self, seconds: float) -> list[Downlink]:
        self.now += seconds
        return self.session.handle(Due(), self.now).commands


class Worker:
    """The worker's session."""

    def __init__(self) -> None:
        self.session = WorkerSession(BOOT, 7, "1.2.3")

    def take(self, command: Downlink) -> tuple[list[int], list[Downlink]]:
        """Return the ids that are acknowledged, and the deeds."""
        reports, deeds = self.session.handle(command, 0.0)
        return [report.id for report in reports if isinstance(report, CommandDone)], deeds

    def get_ready(self) -> None:
        self.take(Welcome(incarnation=2, settings=SLOW))
        self.session.started(10)


def configure(id: int, settings: WorkerSettings = FAST, oldest: int = 0) -> Configure:
    return Configure(incarnation=2, id=id, settings=settings, oldest=oldest)


# The coordinator


def test_every_hello_is_answered_because_the_answer_may_get_lost() -> None:
    coordinator = Coordinator()
    for _ in range(2):
        commands, stimuli, facts = coordinator.take(Hello, pid=7)
        assert commands == [Welcome(incarnation=2, settings=SLOW)]
        assert (stimuli, facts) == ([], [])


def test_another_version_of_the_protocol_is_refused_and_told_once() -> None:
    coordinator = Coordinator()
    answer = coordinator.take(Hello, pid=7, protocol=PROTOCOL + 1)
    assert isinstance(answer.facts[0], Hello)
    assert coordinator.take(Hello, pid=7, protocol=PROTOCOL + 1) == ([], [], [])
    assert coordinator.session.state is SessionState.REFUSED


def test_a_ready_worker_is_reported_once() -> None:
    coordinator = Coordinator()
    answer = coordinator.get_ready()
    assert answer.stimuli == [GotReady("a", 2)]
    assert answer.facts == [BOOT.report(Ready, base=10)]
    assert coordinator.take(Ready, base=10) == ([], [], [])


def test_a_beat_stands_in_for_a_lost_ready() -> None:
    coordinator = Coordinator()
    coordinator.take(Hello, pid=7)
    answer = coordinator.beat(base=10, rss=5, cpu=0.5)
    assert answer.facts[0] == BOOT.report(Ready, base=10)
    assert answer.stimuli == [GotReady("a", 2), BeatReceived("a", 2, 5, 0.5)]
    assert coordinator.take(Ready, base=10).stimuli == []


def test_a_beat_that_was_overtaken_changes_nothing() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    coordinator.beat(serial=2)
    assert coordinator.beat(serial=1) == ([], [], [])


def test_a_beat_stands_in_for_a_lost_status_which_does_not_count_when_it_comes_late() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    connected = NetworkStatus.CONNECTED
    answer = coordinator.beat(network=connected, revision=3, last_connected=5.0)
    assert answer.facts[0] == BOOT.report(Status, network=connected, revision=3, last_connected=5.0)
    late = coordinator.take(Status, network=NetworkStatus.CONNECTING, revision=2)
    assert late.facts == []
    lost = coordinator.take(Status, network=NetworkStatus.ERROR, revision=4)
    assert len(lost.facts) == 1


def test_a_status_that_a_beat_stands_in_for_has_all_that_the_lost_one_had() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    told = {
        "network": NetworkStatus.ERROR,
        "revision": 5,
        "last_connected": 5.0,
        "reason": "reset by peer",
        "next_attempt": 6.0,
        "connection": ConnectionCounters(connects=2),
    }
    status = coordinator.beat(**told).facts[0]
    assert status == BOOT.report(Status, **told, error="reset by peer")


@pytest.mark.parametrize("when", ["before the hello", "after the hello"])
def test_settings_that_change_before_ready_are_in_force_after_it(when: str) -> None:
    coordinator = Coordinator()
    if when == "after the hello":
        coordinator.take(Hello, pid=7)
    assert coordinator.session.configure(FAST, 0.0) == []
    (welcome,) = coordinator.take(Hello, pid=7).commands
    assert isinstance(welcome, Welcome)
    assert welcome.settings == FAST
    commands = coordinator.take(Ready, base=10).commands
    if when == "after the hello":
        # Nobody knows which of two welcomes has arrived first.
        assert [getattr(command, "settings", None) for command in commands] == [FAST]
    else:
        assert commands == []


def test_settings_that_change_back_between_two_welcomes_are_sent_all_the_same() -> None:
    coordinator = Coordinator(SLOW)
    coordinator.take(Hello, pid=7)
    coordinator.session.configure(FAST, 0.0)
    coordinator.take(Hello, pid=7)
    coordinator.session.configure(SLOW, 0.0)
    (command,) = coordinator.take(Ready, base=10).commands
    assert isinstance(command, Configure)
    assert command.settings == SLOW


def test_a_command_is_repeated_until_it_is_acknowledged() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    (command,) = coordinator.session.configure(FAST, coordinator.now)
    assert coordinator.due(REPEAT_AFTER / 2) == []
    assert coordinator.due(REPEAT_AFTER) == [command]
    assert not coordinator.session.settled
    coordinator.take(CommandDone, id=command.id, seq=12)
    assert coordinator.due(2 * REPEAT_AFTER) == []
    assert coordinator.session.settled


def test_new_settings_withdraw_older_ones_and_leave_other_commands_alone() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    (fault,) = coordinator.session.order(Rehearse(fault="spin", amount=1.0), coordinator.now)
    coordinator.session.configure(FAST, coordinator.now)
    (newest,) = coordinator.session.configure(SLOW, coordinator.now)
    assert coordinator.due(2 * REPEAT_AFTER) == [fault, newest]
    assert newest.oldest == fault.id


def test_a_stop_withdraws_everything_and_is_the_last_command() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    coordinator.session.order(Rehearse(fault="spin", amount=1.0), coordinator.now)
    (stop,) = coordinator.session.order(Stop(), coordinator.now)
    assert coordinator.session.order(Stop(), coordinator.now) == []
    assert coordinator.session.configure(FAST, coordinator.now) == []
    assert coordinator.due(2 * REPEAT_AFTER) == [stop]


def test_no_order_is_sent_before_ready() -> None:
    coordinator = Coordinator()
    assert coordinator.session.order(Stop(), coordinator.now) == []


def test_a_stop_is_unheard_after_a_while_without_an_acknowledgement() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    session = coordinator.session
    (stop,) = session.order(Stop(), coordinator.now)
    assert not session.stop_is_unheard(coordinator.now + UNHEARD_AFTER / 2)
    assert session.stop_is_unheard(coordinator.now + UNHEARD_AFTER)
    coordinator.take(CommandDone, id=stop.id, seq=33)
    assert not session.stop_is_unheard(coordinator.now + UNHEARD_AFTER)
    assert session.stopped_at == 33


def test_a_bye_stands_in_for_a_lost_acknowledgement_of_the_stop() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    coordinator.session.order(Stop(), coordinator.now)
    bye = BOOT.report(Bye, account=TickAccount(10), counters=TickCounters(), stopped_at=21)
    assert coordinator.session.handle(bye, coordinator.now).facts == [bye]
    assert coordinator.session.stopped_at == 21


def test_progress_never_goes_back() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    assert coordinator.session.through == 10
    for seq in (15, 12):
        coordinator.take(TickDone, seq=seq)
        assert coordinator.session.through == 15


def test_guard_beats_go_to_the_supervisor_and_the_rest_to_the_mirror() -> None:
    coordinator = Coordinator()
    assert coordinator.take(GuardBeat, stalled=0.5).stimuli == [GuardBeatReceived("a", 2, 0.5)]
    line = {"logger": "x", "level": 20, "message": "hello", "created": 1.0}
    assert coordinator.take(LogLine, **line).facts == [BOOT.report(LogLine, **line)]
    failure = {"hook": "tick", "serial": 1, "type_name": "E", "message": "", "traceback": ""}
    assert coordinator.take(Failure, **failure).facts == [BOOT.report(Failure, **failure)]


# The worker


def test_a_worker_greets_at_growing_intervals_until_it_is_welcomed() -> None:
    worker, now, times = Worker(), 0.0, []
    while now < 10 * HELLO_INTERVAL:
        for report in worker.session.handle(Due(), now).reports:
            assert isinstance(report, Hello)
            assert (report.pid, report.package) == (7, "1.2.3")
            times.append(now)
        now += 0.001
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == HELLO_INTERVAL
    welcome = Welcome(incarnation=2, settings=SLOW)
    assert worker.session.handle(welcome, now) == ([], [welcome])
    assert worker.session.next_due is None
    assert worker.session.handle(Due(), now + 60.0).reports == []


def test_a_second_welcome_does_nothing() -> None:
    worker = Worker()
    worker.get_ready()
    assert worker.take(Welcome(incarnation=2, settings=FAST)) == ([], [])


def test_a_command_to_another_incarnation_does_nothing() -> None:
    worker = Worker()
    worker.get_ready()
    assert worker.take(msgspec.structs.replace(configure(1), incarnation=1)) == ([], [])


def test_a_command_before_ready_is_left_to_its_repetition() -> None:
    worker = Worker()
    worker.take(Welcome(incarnation=2, settings=SLOW))
    assert worker.take(configure(1)) == ([], [])
    worker.session.started(10)
    assert worker.take(configure(1)) == ([1], [configure(1)])


def test_a_command_is_carried_out_once_and_acknowledged_each_time() -> None:
    worker = Worker()
    worker.get_ready()
    fault = Rehearse(incarnation=2, id=1, fault="spin", amount=1.0)
    assert worker.take(fault) == ([1], [fault])
    assert worker.take(fault) == ([1], [])
    later = configure(2, oldest=2)
    assert worker.take(later) == ([2], [later])
    assert worker.take(fault) == ([1], [])  # forgotten, but older than all that matters


def test_old_settings_that_come_late_do_not_replace_newer_ones() -> None:
    worker = Worker()
    worker.get_ready()
    assert worker.take(configure(3, oldest=1)) == ([3], [configure(3, oldest=1)])
    assert worker.take(configure(2, oldest=1)) == ([2], [])


def test_a_stop_is_the_last_deed_and_reports_the_tick_it_stopped_at() -> None:
    worker = Worker()
    worker.get_ready()
    stop = Stop(incarnation=2, id=2, oldest=2, seq=40)
    assert worker.take(stop) == ([2], [stop])
    again, deeds = worker.session.handle(msgspec.structs.replace(stop, seq=50), 0.0)
    assert again == [BOOT.report(CommandDone, id=2, seq=40)]
    assert deeds == []
    assert worker.take(configure(1)) == ([1], [])
    assert worker.session.stopped_at == 40


def test_a_worker_that_stops_by_itself_only_acknowledges_what_comes_later() -> None:
    worker = Worker()
    worker.get_ready()
    worker.session.newest_tick = 3
    assert worker.session.stop() == [Stop(seq=3)]
    assert worker.session.stop() == []
    assert worker.take(configure(1)) == ([1], [])
    assert worker.session.stopped_at is None, "nobody has asked for it"
    reports, deeds = worker.session.handle(Stop(incarnation=2, id=2, oldest=2, seq=6), 0.0)
    assert (reports, deeds) == ([BOOT.report(CommandDone, id=2, seq=3)], [])
    assert worker.session.stopped_at == 3, "it took no tick after that one"


def test_a_worker_that_stops_before_it_has_started_stays_stopped() -> None:
    worker = Worker()
    worker.take(Welcome(incarnation=2, settings=SLOW))
    assert worker.session.stop() == [Stop(seq=0)]
    worker.session.started(10)
    assert worker.session.state is SessionState.STOPPING


def test_nothing_is_reported_of_ticks_before_the_start() -> None:
    worker = Worker()
    figures = {"account": TickAccount(), "counters": TickCounters(), "largest_gap": 0.0}
    assert worker.session.beat(**figures, lag=0.0) == []
    assert worker.session.progressed(5) == []
    (bye,) = worker.session.bye(TickAccount(), TickCounters(), 0.0, ConnectionCounters())
    assert isinstance(bye, Bye)
    assert bye.account is None


def test_a_network_status_is_reported_when_it_changes_and_in_every_beat() -> None:
    worker = Worker()
    worker.get_ready()
    connected = NetworkStatus.CONNECTED
    details = {"last_connected": 5.0, "reason": "attempt 1", "next_attempt": 6.0}
    (status,) = worker.session.network_changed(connected, **details)
    assert status == BOOT.report(Status, network=connected, revision=1, **details)
    assert worker.session.network_changed(connected, **details) == []
    figures = {"account": TickAccount(), "counters": TickCounters(), "largest_gap": 0.0}
    (beat,) = worker.session.beat(**figures, lag=0.0)
    assert isinstance(beat, Beat)
    assert (beat.network, beat.revision, beat.last_connected) == (connected, 1, 5.0)
    assert (beat.reason, beat.next_attempt) == ("attempt 1", 6.0)
    connection = ConnectionCounters(connects=1)
    (beat,) = worker.session.beat(**figures, lag=0.0, connection=connection)
    assert isinstance(beat, Beat)
    assert (beat.connection, beat.reason) == (connection, "attempt 1"), "the newer ones count"


def test_progress_is_reported_once() -> None:
    worker = Worker()
    worker.get_ready()
    assert worker.session.progressed(10) == [], "that was before the account"
    assert worker.session.progressed(12) == [BOOT.report(TickDone, seq=12)]
    assert worker.session.progressed(12) == []


def test_a_stop_that_ticks_have_overtaken_takes_effect_after_them() -> None:
    worker = Worker()
    worker.get_ready()
    worker.session.newest_tick = 45
    reports, (stop,) = worker.session.handle(Stop(incarnation=2, id=1, oldest=1, seq=40), 0.0)
    assert reports == [BOOT.report(CommandDone, id=1, seq=45)]
    assert stop.seq == worker.session.stopped_at == 45


def test_a_call_that_is_not_acknowledged_is_repeated_less_and_less_often() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    order = Call(call=1, method="m", arguments=b"", timeout=5.0)
    (call,) = coordinator.session.order(order, coordinator.now)
    sent = [number for number in range(1, 46) if coordinator.due(REPEAT_AFTER * 1.001) == [call]]
    assert sent == [1, 3, 7, 15, 25, 35, 45]


def test_a_request_for_attributes_is_sent_once_and_holds_nothing_up() -> None:
    coordinator = Coordinator()
    coordinator.get_ready()
    (request,) = coordinator.session.order(SendAttributes(request=1), coordinator.now)
    assert isinstance(request, SendAttributes)
    assert request.request == 1
    assert coordinator.session.settled
    assert coordinator.due(2 * REPEAT_AFTER) == []
