"""File descriptors of the owner: raised, accounted, refused with a clear error."""

from __future__ import annotations

import pytest

from tests.system.scripts import Scripts

OWNER = """
import asyncio, json, os, resource, sys, tempfile, threading
from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, TickProcessor
from chronopype_mp.exceptions import ConfigError, TransportError

LIMIT, LAUNCHER = int(sys.argv[1]), sys.argv[2]
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)

class Shows(TickProcessor):
    def start(self, timestamp):
        super().start(timestamp)
        print("worker", resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)

def clock(**arguments):
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    return RealtimeClock(config, launcher=LAUNCHER, **arguments)

def limit(soft):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, HARD))

def fds():
    return len(os.listdir("/dev/fd"))
"""

methods = pytest.mark.parametrize("launcher", ["forkserver", "spawn"])


@methods
def test_the_soft_limit_is_raised_and_workers_keep_theirs(scripts: Scripts, launcher: str) -> None:
    script = scripts.start(
        OWNER
        + """
async def main():
    limit(LIMIT)
    async with clock() as c:
        handle = c.add_processor(Shows())
        await handle.wait_ready()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    print("report", json.dumps({"raised": raised, "expected": min(HARD, 65536)}))
asyncio.run(main())
""",
        "250",
        launcher,
    )
    report = script.report()
    assert report["raised"] == report["expected"]
    assert "worker 250" in script.output


@methods
def test_workers_that_do_not_fit_are_refused_and_the_others_live(
    scripts: Scripts, launcher: str
) -> None:
    script = scripts.start(
        OWNER
        + """
async def main():
    limit(LIMIT)
    handles, error = [], None
    async with clock(raise_descriptor_limit=False) as c:
        try:
            for _ in range(40):
                handles.append(c.add_processor(TickProcessor()))
        except ConfigError as refused:
            error = str(refused)
        for handle in handles:
            await handle.wait_ready()
        most = fds()
        c.remove_processor(handles[0])
        await handles[0].wait_stopped()
        await c.add_processor(TickProcessor()).wait_ready()
    other, before = clock(raise_descriptor_limit=False), fds()
    for _ in range(40):
        other.add_processor(TickProcessor())
    try:
        async with other:
            entered = True
    except ConfigError:
        entered = False
    print("report", json.dumps({
        "workers": len(handles), "error": error, "most": most, "entered": entered,
        "left": [fds() - before, other.is_in_context]}))
asyncio.run(main())
""",
        "200",
        launcher,
    )
    report = script.report()
    assert 4 <= report["workers"] <= 12
    assert report["most"] < 200 - 64
    for part in ("file descriptors", "soft limit is 200", "ulimit -n", "raise_descriptor_limit"):
        assert part in report["error"]
    assert report["entered"] is False
    assert report["left"] == [0, False]


@pytest.mark.parametrize("launcher", ["forkserver", "spawn", "inline"])
def test_a_clock_with_hardly_any_descriptors_is_not_entered_and_leaves_nothing(
    scripts: Scripts, launcher: str
) -> None:
    script = scripts.start(
        OWNER
        + """
async def main():
    before, threads, errors = fds(), threading.active_count(), []
    files = set(os.listdir(tempfile.gettempdir()))
    for free in range(1, 64, 3):
        limit(fds() - 1 + free)
        c = clock(raise_descriptor_limit=False)
        try:
            async with c:
                errors.append("entered")
        except TransportError as error:
            errors.append(str(error))
        limit(SOFT)
        assert not c.is_in_context
    async with c:
        pass
    made = {name for name in set(os.listdir(tempfile.gettempdir())) - files
            if name.startswith("chronopype_mp-")}
    print("report", json.dumps({
        "errors": errors, "left": [fds() - before, threading.active_count() - threads],
        "files": sorted(made)}))
asyncio.run(main())
""",
        "0",
        launcher,
    )
    report = script.report()
    assert all("file descriptors" in error for error in report["errors"])
    assert report["left"] == [0, 0]
    assert report["files"] == []
