"""Why a worker is not heard of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.liveness import GUARD_MISSES, Signs, classify
from chronopype_mp.core.policy import Supervision
from chronopype_mp.core.worker_events import DeathReason

SIGNS = Signs(
    process_stopped=False,
    stacks_written=True,
    python_runs=True,
    guard_silent=0.1,
    guard_interval=0.5,
    stalled=9.0,
)


def signs(**values: object) -> Signs:
    known = {name: getattr(SIGNS, name) for name in Signs.__struct_fields__}
    return Signs(**{**known, **values})


SILENT = signs(guard_silent=60.0, stacks_written=False, python_runs=False)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (signs(), DeathReason.LOOP_BLOCKED),
        (signs(stacks_written=False), DeathReason.LOOP_BLOCKED),
        (signs(guard_silent=60.0), DeathReason.LOOP_BLOCKED),
        (signs(process_stopped=True), DeathReason.STOPPED),
        (signs(process_stopped=True, guard_silent=60.0), DeathReason.STOPPED),
        (SILENT, DeathReason.GIL_STUCK),
        (signs(guard_silent=60.0, stacks_written=False), DeathReason.UNREACHABLE),
        (signs(stalled=0.0, stacks_written=False), DeathReason.UNREACHABLE),
        (signs(python_runs=False), DeathReason.GIL_STUCK),
    ],
)
def test_the_signs_tell_why_a_worker_is_not_heard_of(seen: Signs, reason: DeathReason) -> None:
    assert classify(seen) is reason


def test_what_the_guard_said_counts_for_a_few_beats() -> None:
    limit = GUARD_MISSES * 0.5
    assert classify(signs(guard_silent=limit, stacks_written=False)) is DeathReason.LOOP_BLOCKED
    later = signs(guard_silent=limit + 0.01, stacks_written=False)
    assert classify(later) is DeathReason.UNREACHABLE


seconds = st.floats(min_value=0.0, max_value=1e6)
any_signs = st.builds(
    Signs,
    process_stopped=st.booleans(),
    stacks_written=st.booleans(),
    python_runs=st.booleans(),
    guard_silent=seconds,
    guard_interval=st.floats(min_value=0.05, max_value=0.5),
    stalled=seconds,
)


@given(any_signs)
def test_a_worker_is_killed_only_on_evidence_that_its_loop_stands_still(seen: Signs) -> None:
    """Reports that stay away are none: such a worker is stopped in order."""
    evidence = (
        seen.process_stopped or seen.stacks_written or seen.stalled > 0 or not seen.python_runs
    )
    assert evidence or classify(seen) is DeathReason.UNREACHABLE


@given(any_signs)
def test_a_stopped_process_is_nothing_else(seen: Signs) -> None:
    assert (classify(seen) is DeathReason.STOPPED) == seen.process_stopped


@given(st.floats(min_value=0.2, max_value=1e6))
def test_what_the_guard_said_before_the_last_beat_of_the_loop_does_not_count(stall: float) -> None:
    """It would blame a loop that has turned since."""
    policy = Supervision(loop_stall_timeout=stall)
    assert GUARD_MISSES * policy.beat_interval < policy.loop_stall_timeout
