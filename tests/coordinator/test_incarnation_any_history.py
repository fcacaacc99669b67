"""Whatever a launcher does, and whenever: the end of a process is reported exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from chronopype_mp.coordinator.incarnation import PATIENCE
from chronopype_mp.core.stimuli import Exited, LaunchFailed
from tests.coordinator.test_incarnation import FAULTS, Rig, cancel_everything
from tests.coordinator.unruly import UnrulyProcess
from tests.waiting import run, turns

METHODS = ["start", "wait", "look", "kill", "terminate", "clean_up", "exception", "watch", "finish"]
SLOW = ["start", "wait", "look"]

Step = Callable[[Rig], None]


def fault(method: str, kind: str) -> Step:
    return lambda rig: rig.launcher.faults.__setitem__(method, FAULTS[kind]())


def works(method: str) -> Step:
    return lambda rig: rig.launcher.faults.pop(method, None) and None


def hangs(method: str) -> Step:
    return lambda rig: rig.launcher.hangs.add(method)


def each_process(act: Callable[[UnrulyProcess], None]) -> Step:
    return lambda rig: [act(process) for process in rig.launcher.processes] and None


def passes(seconds: float) -> Step:
    return lambda rig: rig.time.advance(seconds)


STEPS: st.SearchStrategy[tuple[str, Step]] = st.one_of(
    st.tuples(st.sampled_from(METHODS), st.sampled_from(list(FAULTS))).map(
        lambda drawn: (f"{drawn[0]} raises {drawn[1]}", fault(*drawn))
    ),
    st.sampled_from(METHODS).map(lambda method: (f"{method} works", works(method))),
    st.sampled_from(SLOW).map(lambda method: (f"{method} hangs", hangs(method))),
    st.sampled_from(
        [
            ("release", lambda rig: rig.launcher.release()),
            ("ready", each_process(lambda process: process.get_ready())),
            ("beat", each_process(lambda process: process.beat())),
            ("exit", each_process(lambda process: process.exit(1))),
            ("probe", lambda rig: rig.incarnation.probe()),
            ("stop", lambda rig: rig.incarnation.stop()),
            ("kill", lambda rig: rig.incarnation.kill()),
            ("look at the time", lambda rig: rig.incarnation.look_at_the_time()),
            ("cancel", lambda rig: cancel_everything()),
            ("a moment", passes(0.3)),
            ("a while", passes(PATIENCE)),
        ]
    ),
)


@settings(max_examples=150)
@given(steps=st.lists(STEPS, max_size=25), gaps=st.lists(st.integers(0, 6), min_size=25))
def test_the_end_of_a_process_is_reported_once(
    steps: list[tuple[str, Step]], gaps: list[int]
) -> None:
    async def scenario() -> None:
        rig = Rig()
        main = asyncio.current_task()
        for (_, step), gap in zip(steps, gaps, strict=False):
            if rig.incarnation.ended.done():
                break
            step(rig)
            await turns(gap)
        # Now all works, and the process is killed: what hung returns late.
        rig.launcher.faults.clear()
        rig.launcher.release()
        rig.incarnation.kill()
        for _ in range(4):
            await rig.pass_time(PATIENCE)
        assert rig.incarnation.ended.done()
        assert len([*rig.of(Exited), *rig.of(LaunchFailed)]) == 1
        assert rig.record.incarnation is None
        assert rig.failures == []
        await turns()
        assert asyncio.all_tasks() == {main}

    run(scenario())
