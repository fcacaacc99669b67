"""What a policy sets in the worker's process: priority, cores, limits, timeouts of hooks."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from chronopype_mp import ConfigError, NetworkStatus, Resources, Supervision, TickProcessor
from chronopype_mp.events import NetworkChanged, ProcessorFailed, WorkerDied
from tests.system.clocks import Watched, run
from tests.system.neighbours import SHORT, Neighbourhood
from tests.system.processors import Network


class Surveyor(TickProcessor):
    """Notes what its process may use."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        found = {
            "nice": os.nice(0),
            "cores": sorted(os.sched_getaffinity(0)),
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
        }
        self.path.write_text(json.dumps(found))


def found_in(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


def with_resources(**values: object) -> Supervision:
    return SHORT.model_copy(update={"resources": Resources(**values)})


def test_niceness_cores_and_soft_limits_are_set_in_the_worker_alone(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    policy = with_resources(nice=5, cpu_affinity=(cores[-1],), rlimits={"NOFILE": 128, "CORE": 0})

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=policy) as n:
            await n.add(Surveyor(tmp_path / "bounded"), name="bounded")
            await n.add(Surveyor(tmp_path / "free"), name="free", supervision=with_resources())
            await n.ticks(3)

    run(scenario())
    bounded, free = found_in(tmp_path / "bounded"), found_in(tmp_path / "free")
    assert bounded["nice"] == os.nice(0) + 5
    assert bounded["cores"] == [cores[-1]]
    assert bounded["nofile"] == [128, hard]
    assert bounded["core"] == [0, resource.getrlimit(resource.RLIMIT_CORE)[1]]
    assert (free["nice"], free["cores"]) == (os.nice(0), cores)
    assert free["nofile"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))


def test_spread_gives_each_worker_one_core_in_turn(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=with_resources(cpu_affinity="spread")) as n:
            for i in range(2 * len(cores)):
                await n.add(Surveyor(tmp_path / f"w{i}"), name=f"w{i}")
            await n.ticks(3)

    run(scenario())
    given = [found_in(tmp_path / f"w{i}")["cores"] for i in range(2 * len(cores))]
    assert sorted(map(str, given)) == sorted(str([core]) for core in cores * 2)
    assert given[: len(cores)] == given[len(cores) :]


def test_a_soft_limit_above_the_hard_one_is_refused_at_once() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    async def scenario() -> None:
        too_much = with_resources(rlimits={"NOFILE": hard + 1})
        said = rf"rlimits\['NOFILE'\] = {hard + 1}.*hard limit here is {hard}"
        with pytest.raises(ConfigError, match=said):
            Watched(supervision=too_much)
        clock = Watched().clock
        with pytest.raises(ConfigError, match=said):
            clock.add_processor(TickProcessor(), supervision=too_much)
        assert clock.processors == []

    run(scenario())


class NeverStarts(Network):
    """Does not get its connection."""

    async def start_network(self) -> None:
        await asyncio.Event().wait()


class NeverStops(Network):
    """Does not take its connection down."""

    async def stop_network(self) -> None:
        self.note("stop begun")
        await asyncio.Event().wait()


def test_start_network_timeout_of_the_policy_bounds_that_hook(tmp_path: Path) -> None:
    policy = SHORT.model_copy(update={"start_network_timeout": 0.3})

    async def scenario() -> None:
        async with Neighbourhood(tmp_path, supervision=policy) as n:
            victim = await n.add(NeverStarts(tmp_path / "victim"), name="victim")
            failed = await n.events.wait_for(ProcessorFailed, worker="victim")
            assert (failed.hook, failed.type_name) == ("start_network", "HookTimeout")
            assert "0.3" in failed.message
            changed = await n.events.wait_for(
                NetworkChanged, worker="victim", after=NetworkStatus.ERROR
            )
            assert "0.3" in (changed.error or "")
            assert victim.restarts == 0
            assert not n.events.of(WorkerDied)

    run(scenario())


def test_stop_network_timeout_of_the_policy_bounds_that_hook(tmp_path: Path) -> None:
    policy = SHORT.model_copy(update={"stop_network_timeout": 0.3, "stop_grace": 10.0})

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Neighbourhood(tmp_path, supervision=policy) as n:
            victim = await n.add(NeverStops(tmp_path / "victim"), name="victim")
            await n.events.wait_for(NetworkChanged, worker="victim", after=NetworkStatus.CONNECTED)
            began = loop.time()
            n.clock.remove_processor(victim)
            await victim.wait_stopped()
            assert 0.25 < loop.time() - began < 2.0
            failed = await n.events.wait_for(ProcessorFailed, worker="victim")
            assert (failed.hook, failed.type_name) == ("stop_network", "HookTimeout")
            assert not n.events.of(WorkerDied)

    run(scenario())
