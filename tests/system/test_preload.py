"""The modules that the forkserver imports for its workers."""

from __future__ import annotations

from tests.system.scripts import Scripts

PROGRAM = """
import asyncio, json, sys
import multiprocess.forkserver

from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, TickProcessor
from chronopype_mp.events import WorkerDied
from chronopype_mp.launchers import ForkserverLauncher


class Looks(TickProcessor):
    def start(self, timestamp):
        print("modules", [name for name in ("colorsys", "wave") if name in sys.modules])


async def once(launcher):
    config = ClockConfig(clock_mode=ClockMode.REALTIME)
    async with RealtimeClock(config, launcher=launcher) as clock:
        await clock.add_processor(Looks(), name=str(len(servers))).wait_ready()
        servers.append(multiprocess.forkserver._forkserver._forkserver_pid)


async def main():
    for launcher in launchers:
        await once(launcher)
    same = [server == servers[-1] for server in servers]
    print("report", json.dumps({"same": same}))


servers = []
launchers = [%s]
asyncio.run(main())
"""


def modules(output: str) -> list[str]:
    """Return what each worker printed, in the order of the workers."""
    lines = sorted(line for line in output.splitlines() if "modules [" in line)
    return [line.partition("modules ")[2] for line in lines]


def test_clocks_that_preload_different_modules_share_one_forkserver(scripts: Scripts) -> None:
    """One that lacks a module is replaced by one with the modules of both."""
    launchers = '"forkserver", ForkserverLauncher(["colorsys"]), ForkserverLauncher(["wave"]), '
    launchers += '"forkserver", ForkserverLauncher(["colorsys"])'
    script = scripts.start(PROGRAM % launchers)
    assert script.report() == {"same": [False, False, True, True, True]}
    both = "['colorsys', 'wave']"
    assert modules(script.output) == ["[]", "['colorsys']", both, both, both]


def test_a_module_that_cannot_be_preloaded_harms_no_later_clock(scripts: Scripts) -> None:
    """Workers are started by spawn, with a warning; the next clock has a forkserver again."""
    script = scripts.start(PROGRAM % 'ForkserverLauncher(["no_such_module"]), "forkserver"')
    assert script.report()["same"][-1] is True
    assert "No module named 'no_such_module'" in script.output
    assert script.output.count("workers are started by spawn") == 1
    assert modules(script.output) == ["[]", "[]"]
