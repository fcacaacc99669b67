"""What is counted of a connection, from its checks to its connected time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.connection_counters import ConnectionCounters, ConnectionRecorder
from chronopype_mp.core.histogram import Histogram

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connected", "disconnected", "checked"]),
        st.integers(min_value=0, max_value=1000).map(lambda eighths: eighths / 8),
    ),
    max_size=30,
)


def replay(steps: list[tuple[str, float]]) -> ConnectionCounters:
    """Count what happened; a connection that is there already does not come again."""
    recorder, now, connected = ConnectionRecorder(), 100.0, False
    for what, seconds in steps:
        now += seconds
        if what == "checked":
            recorder.checked(seconds)
        elif what == "disconnected":
            recorder.disconnected(now)
            connected = False
        elif not connected:
            recorder.connected(now)
            connected = True
    return recorder.counters(now)


def test_without_a_connection_all_figures_are_zero() -> None:
    assert ConnectionRecorder().counters(5.0) == ConnectionCounters()


def test_the_present_connection_counts_and_its_end_counts_once() -> None:
    recorder = ConnectionRecorder()
    recorder.connected(10.0)
    assert recorder.counters(12.5) == ConnectionCounters(connects=1, connected_seconds=2.5)
    recorder.disconnected(13.0)
    recorder.disconnected(20.0)
    assert recorder.counters(30.0) == ConnectionCounters(connects=1, connected_seconds=3.0)


@given(STEPS)
def test_connected_time_is_that_between_each_connect_and_its_end(
    steps: list[tuple[str, float]],
) -> None:
    expected, connected, connects = 0.0, False, 0
    for what, seconds in steps:
        expected += seconds if connected else 0.0
        connects += what == "connected" and not connected
        connected = what == "connected" or (connected and what == "checked")
    counters = replay(steps)
    assert (counters.connects, counters.connected_seconds) == (connects, expected)
    assert counters.check_latency.count == sum(what == "checked" for what, _ in steps)


def test_the_latency_of_a_check_is_counted_in_its_bucket() -> None:
    recorder = ConnectionRecorder()
    recorder.checked(0.25)
    recorder.checked(-1e-9)
    latency = recorder.counters(0.0).check_latency
    assert (latency.count, latency.total, latency.largest) == (2, 0.25, 0.25)
    assert latency.percentile(50) == 0.0
    assert isinstance(latency, Histogram)
