"""A soak test: injects random faults into a running clock, then audits the result.

The faults follow a Poisson process.

The audit checks:

- the account of every tick: due = run + missed + skipped + lost
- each worker's own file of ticks, which must agree with its account
- one dossier per death, and one death per process that ended unasked
- no worker stays READY without a process
- no leftover processes, threads and descriptors, and no growing memory

With ``--launcher-faults``, calls of the launcher fail at random too: they raise, hang or answer
late. With ``--owner``, the owner of the clock is mistreated too (`_soak_owner`), and processors
are added and removed all the time.

The exit status is 1 if the audit fails.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import itertools
import logging
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from _kill_owner import MARK
from _soak_owner import OwnerFaults, become_owner, run_apart
from _soak_watch import MALLOC, SETTLED, MemoryWatch, ProcessWatch, Record, find_left

from chronopype_mp import (
    BackoffPolicy,
    ClockConfig,
    ClockMode,
    ConfigError,
    Limits,
    RealtimeClock,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerError,
    WorkerHandle,
    WorkerStatus,
)
from chronopype_mp.coordinator.dossiers import KEPT_PER_WORKER
from chronopype_mp.core.supervisor import PROBE_TIMEOUT, REAP_TIMEOUT
from chronopype_mp.events import Event, WorkerDied, WorkerReady, WorkerStarting, WorkerStopping
from chronopype_mp.launchers import get_launcher
from chronopype_mp.testing import FaultyLauncher, faults

TICK_SIZE = 0.1
MEGABYTE = 1 << 20
STEEPEST = 0.5 * MEGABYTE
"""Bytes per minute by which the coordinator's memory may grow. Noise is below that."""

STEEPEST_IN_USE = 20 * 1024
"""The same for memory in use of malloc, in a run with ``--owner``. It has less noise."""

LONG = 2 * SETTLED
"""Minutes of a run in which resident memory is judged too, and all memory with ``--owner``."""

VISIT_EVERY = 2.0
"""Seconds, on average, between two processors that are added for a while."""

LONGEST_VISIT = 8.0
"""Seconds for which such a processor stays, at most."""

POLICY = Supervision(
    loop_stall_timeout=3.0,
    stop_grace=3.0,
    backoff=BackoffPolicy(minimum=0.05, maximum=1.0),
    budget=RestartBudget(max_restarts=100_000, window=60.0),
    healthy_after=5.0,
    limits=Limits(max_rss=300 * MEGABYTE),
)

HURRIED = msgspec.structs.replace(POLICY, start_timeout=5.0)
"""For a launcher whose starts may hang."""

WITHOUT_PROCESS = POLICY.loop_stall_timeout + PROBE_TIMEOUT + REAP_TIMEOUT
"""Seconds, at most, for which a worker is READY after the end of its process: until the missing
beats are noticed, until a look at the process is given up, and until the kill is."""

SLEPT = 5.0
"""Seconds by which those deadlines may be extended because the coordinator did not run."""

Fault = Callable[[WorkerHandle, random.Random], object]

FAULTS: dict[str, Fault] = {
    "kill": lambda handle, rng: faults.kill(handle),
    "stop": lambda handle, rng: faults.stop(handle),
    "block the loop, long": lambda handle, rng: faults.block_loop(handle, 60.0),
    "block the loop, short": lambda handle, rng: faults.block_loop(handle, rng.uniform(0.1, 1.5)),
    "spin": lambda handle, rng: faults.spin(handle, 60.0),
    "hold the GIL, long": lambda handle, rng: faults.hold_gil(handle, 60.0),
    "hold the GIL, short": lambda handle, rng: faults.hold_gil(handle, rng.uniform(0.1, 1.5)),
    "crash": lambda handle, rng: faults.crash(handle),
    "exit": lambda handle, rng: faults.exit_in_hook(handle, rng.randrange(256)),
    "exit at once": lambda handle, rng: faults.exit_at_once(handle, rng.randrange(256)),
    "ignore signals, restart": lambda handle, rng: faults.ignore_signals(handle),
    "flood the logs": lambda handle, rng: faults.flood_logs(handle, 20_000),
    "flood the output": lambda handle, rng: faults.flood_output(handle, 20_000),
    "drop reports": lambda handle, rng: faults.drop_reports(handle, 60.0),
    "leak": lambda handle, rng: faults.leak(handle, 400 * MEGABYTE),
    "leave children behind": lambda handle, rng: faults.start_children(handle, 600.0),
}


class Writer(TickProcessor):
    """Writes a byte per tick to a file that all its incarnations share.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tick(self, timestamp: float) -> None:
        os.write(self.fd, b".")


class Soak:
    """One soak test.

    Args:
        minutes: how long to inject faults.
        workers: the number of workers.
        seed: the seed for the faults.
        directory: the directory for the workers' files and the dossiers.
        share: the share of the launcher's calls that fail.
        has_owner_faults: whether the owner is mistreated too.
    """

    def __init__(
        self,
        minutes: float,
        workers: int,
        seed: int,
        directory: Path,
        share: float,
        has_owner_faults: bool,
    ) -> None:
        self.minutes = minutes
        self.count = workers
        self.rng = random.Random(seed)
        self.directory = directory
        self.owner = OwnerFaults(self.rng, self.add_problem) if has_owner_faults else None
        self.dossiers = (self.owner.disk if self.owner else directory) / "dossiers"
        self.inflicted: collections.Counter[str] = collections.Counter()
        self.launcher = FaultyLauncher(get_launcher(None), seed, share)
        self.watch = ProcessWatch(
            WITHOUT_PROCESS + SLEPT,
            self.add_problem,
            lambda: self.owner.stopped if self.owner else 0.0,
        )
        self.memory = MemoryWatch()
        self.records: dict[str, Record] = collections.defaultdict(Record)
        self.reasons: collections.Counter[str] = collections.Counter()
        self.totals: collections.Counter[str] = collections.Counter()
        self.visits = 0
        self.handles: dict[str, WorkerHandle] = {}
        self.problems: dict[str, int] = {}
        self.arrived = asyncio.Event()
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Run until the last worker has ended."""
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=TICK_SIZE)
        owner = self.owner
        clock = RealtimeClock(
            config,
            owner.on_failure if owner else None,
            supervision=HURRIED if owner or self.launcher.share else POLICY,
            state_dir=self.dossiers,
            launcher=self.launcher,
        )
        async with clock:
            clock.events.subscribe(self.take)
            for number in range(self.count):
                self.add(clock, f"w{number}")
            for handle in self.handles.values():
                await handle.wait_ready()
            ticking = asyncio.create_task(clock.run(), name="the run of the clock")
            beside = [asyncio.create_task(self.memory.run(), name="the memory watch")]
            visiting: list[asyncio.Task[None]] = []
            if owner:
                clock.events.subscribe(owner.on_event)
                clock.add_subscriber_with_callback(clock.tick_publication, owner.on_tick, False)
                beside.append(asyncio.create_task(owner.run(), name="the faults of the owner"))
                visiting.append(asyncio.create_task(self.receive_visits(clock), name="the visits"))
            inflicting = asyncio.create_task(self.inflict_all(), name="the faults of workers")
            try:
                everything = {inflicting, ticking, *visiting, *beside}
                await asyncio.wait(everything, return_when="FIRST_COMPLETED")
                if not inflicting.done():
                    self.add_problem("the soak ended early")
                self.over.set()
                if visiting:
                    await asyncio.wait(visiting, timeout=60.0)
                await self.end(inflicting, *visiting, *beside)
                self.launcher.share = 0.0
                await self.all_ready()
            finally:
                self.watch.close()
                await clock.shutdown()
                await self.end(ticking)
        if owner:
            owner.reap(0)

    async def end(self, *tasks: asyncio.Task[None]) -> None:
        """Cancel tasks, and report those that have failed."""
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.add_problem(f"{task.get_name()} failed: {error!r}")

    def add(self, clock: RealtimeClock, name: str) -> WorkerHandle:
        """Add a worker to the clock."""
        writer = Writer(str(self.ticks(name)))
        self.handles[name] = handle = clock.add_processor(writer, name=name)
        return handle

    def ticks(self, name: str) -> Path:
        """Return the path of a worker's own file of ticks."""
        return self.directory / f"ticks-{name}"

    def take(self, event: Event) -> None:
        """Record an event, and check what must hold at any moment."""
        match event:
            case WorkerDied():
                # Only small fields are kept, because the audit's own memory must not grow.
                record = self.records[event.worker]
                record.deaths.append(event.incarnation)
                self.reasons[event.reason.value] += 1
                if self.owner and self.owner.is_short:
                    record.unwritten += 1
                else:
                    self.check_dossier(event)
            case WorkerStarting():
                self.records[event.worker].starts += 1
            case WorkerStopping(detail=None):
                self.records[event.worker].asked.add(event.incarnation)
            case WorkerReady():
                self.records[event.worker].readies += 1
                self.watch.watch(self.handles[event.worker], event)
        for handle in self.handles.values():
            if handle.status is WorkerStatus.READY and handle.pid is None:
                self.add_problem(f"{handle.name}: READY with no process")
        self.arrived.set()

    def add_problem(self, problem: str) -> None:
        """Record a problem."""
        self.problems[problem] = self.problems.get(problem, 0) + 1

    def check_dossier(self, death: WorkerDied) -> None:
        """Check that a death has one file, which says the same as the event."""
        folder = self.dossiers / death.worker
        files = list(folder.glob(f"*-{death.incarnation}.json"))
        if len(files) != 1:
            self.add_problem(f"{death.worker}: {len(files)} files for {death.incarnation}")
        elif msgspec.json.decode(files[0].read_bytes())["reason"] != death.reason.value:
            self.add_problem(f"{death.worker}: {files[0].name} has another reason")

    async def inflict_all(self) -> None:
        """Inject faults until the time is over, on average one per worker every 20 s."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 60.0 * self.minutes
        while (wait := self.rng.expovariate(self.count / 20.0)) < end - loop.time():
            await asyncio.sleep(wait)
            handle = self.rng.choice(list(self.handles.values()))
            name = self.rng.choice(list(FAULTS))
            if handle.status is not WorkerStatus.READY:
                continue
            with contextlib.suppress(WorkerError, ProcessLookupError):
                FAULTS[name](handle, self.rng)
                self.inflicted[name] += 1
                if name == "ignore signals, restart":
                    self.restart_later(handle)

    def restart_later(self, handle: WorkerHandle) -> None:
        async def restart() -> None:
            with contextlib.suppress(WorkerError):
                await handle.restart()

        task = asyncio.create_task(restart())
        task.add_done_callback(lambda done: None)
        self._keep = task

    async def receive_visits(self, clock: RealtimeClock) -> None:
        """Add processors and remove them after some seconds, until the faults are over."""
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if await self.over_within(self.rng.expovariate(1.0 / VISIT_EVERY)):
                    break
                group.create_task(self.visit(clock, f"visitor-{number}"))

    async def visit(self, clock: RealtimeClock, name: str) -> None:
        """Add a processor, remove it, and check its account."""
        try:
            handle = self.add(clock, name)
        except ConfigError:  # there are not enough file descriptors
            return
        await self.over_within(self.rng.uniform(0.0, LONGEST_VISIT))
        clock.remove_processor(handle)
        await handle.wait_stopped()
        self.audit_worker(handle)
        self.visits += 1
        self.ticks(name).unlink(missing_ok=True)
        shutil.rmtree(self.dossiers / name, ignore_errors=True)
        del self.handles[name], self.records[name]

    async def over_within(self, seconds: float) -> bool:
        """Wait until the faults are over or the time is; return whether the faults are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()
        return self.over.is_set()

    async def all_ready(self) -> None:
        """Wait until every worker has recovered from the last faults."""
        await asyncio.sleep(2 * POLICY.loop_stall_timeout)  # the last fault may be undetected yet
        try:
            async with asyncio.timeout(60.0):
                while any(h.status is not WorkerStatus.READY for h in self.handles.values()):
                    self.arrived.clear()
                    await self.arrived.wait()
        except TimeoutError:
            late = [repr(h) for h in self.handles.values() if h.status is not WorkerStatus.READY]
            self.add_problem(f"not READY 60 s after the last fault: {late}")

    def audit(self, before: dict[str, list[str]]) -> None:
        """Check and print the results.

        Args:
            before: the processes, threads and descriptors before the soak.
        """
        for handle in self.handles.values():
            self.audit_worker(handle)
        left = find_left()
        for kind, was in before.items():
            print(f"{kind}: {len(was)} before, {len(left[kind])} after")
            if len(left[kind]) > len(was):
                self.add_problem(f"{kind} left: {was} before, {left[kind]} after")
        slopes = self.memory.slopes()
        told = ", ".join(f"{name} {slope / 1024:+.1f}" for name, slope in slopes.items())
        since = f"after {SETTLED:g} min" if self.minutes >= LONG else "over the second half"
        print(f"coordinator memory, KiB per minute {since}: {told}")
        for name, slope in slopes.items():
            # It grows at first, until the allocator has what it needs, and with every backlog.
            if self.minutes < LONG and (name == "resident" or self.owner):
                continue
            if slope > (STEEPEST_IN_USE if name == MALLOC and self.owner else STEEPEST):
                self.add_problem(f"memory, {name}: {slope / 1024:+.1f} KiB per minute")
        print("faults:", dict(sorted(self.inflicted.items())))
        print("faults of the launcher:", dict(sorted(self.launcher.injected.items())))
        if self.owner:
            print("faults of the owner:", dict(sorted(self.owner.inflicted.items())))
            print("signals handled by the owner:", self.owner.handled)
            print("raised by callbacks:", dict(sorted(self.owner.raised.items())))
            print("processors added and removed:", self.visits)
        print("deaths:", self.reasons.total(), dict(sorted(self.reasons.items())))
        print("ticks:", dict(self.totals))

    def audit_worker(self, handle: WorkerHandle) -> None:
        """Check one worker's account, deaths and dossiers."""
        s = handle.statistics()
        if s.published != s.run + s.missed + s.skipped + s.lost:
            self.add_problem(f"{handle.name}: the account does not close: {s}")
        ticks = self.ticks(handle.name)
        executed = ticks.stat().st_size if ticks.exists() else 0
        record = self.records[handle.name]
        # A process that was stopped before its Ready was heard may have run ticks without account.
        most = s.run + s.lost if record.readies == record.starts else math.inf
        if not s.run <= executed <= most:
            self.add_problem(
                f"{handle.name}: wrote {executed} ticks, but counted {s.run} run, {s.lost} lost"
            )
        if len(record.deaths) != len(set(record.deaths)):
            self.add_problem(f"{handle.name}: two dossiers for one death: {record.deaths}")
        if unexplained := set(range(1, record.starts)) - record.asked - set(record.deaths):
            self.add_problem(f"{handle.name}: no dossier for {sorted(unexplained)}")
        if record.starts != s.restarts + 1:
            self.add_problem(f"{handle.name}: {record.starts} starts, {s}")
        if not (self.owner and self.owner.is_short):
            self.audit_dossiers(handle.name, record)
        self.totals.update(
            due=s.published,
            run=s.run,
            missed=s.missed,
            skipped=s.skipped,
            lost=s.lost,
            written=executed,
        )

    def audit_dossiers(self, name: str, record: Record) -> None:
        """Check that each of a worker's newest 20 deaths has a file, if it could be written."""
        files = os.listdir(folder) if (folder := self.dossiers / name).exists() else []
        most = min(KEPT_PER_WORKER, len(record.deaths))
        least = min(KEPT_PER_WORKER, len(record.deaths) - record.unwritten)
        if not least <= len(files) <= most:
            self.add_problem(f"{name}: {len(files)} dossier files for {len(record.deaths)} deaths")
        if strange := [file for file in files if not file.endswith(".json")]:
            self.add_problem(f"{name}: files that are not dossiers: {strange}")


async def warm_up() -> None:
    """Start the processes that stay until a program exits: forkserver and resource tracker."""
    config = ClockConfig(clock_mode=ClockMode.REALTIME)
    async with RealtimeClock(config) as clock:
        await clock.add_processor(TickProcessor()).wait_ready()


def main() -> int:
    """Run the soak test and the audit. Return the exit status."""
    parser = argparse.ArgumentParser(
        description="Inject random faults into a running clock, then audit the result."
    )
    parser.add_argument(
        "--minutes", type=float, help="how long to inject faults (1, or 30 with --owner)"
    )
    parser.add_argument("--workers", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--launcher-faults",
        type=float,
        nargs="?",
        const=0.1,
        default=0.0,
        metavar="SHARE",
        help="let this share of the launcher's calls fail (0.1 without a number)",
    )
    parser.add_argument("--owner", action="store_true", help="mistreat the owner of the clock, too")
    arguments = parser.parse_args()
    if arguments.minutes is None:
        arguments.minutes = 30.0 if arguments.owner else 1.0
    if not 0 < arguments.minutes < math.inf:
        parser.error(f"--minutes {arguments.minutes}: must be positive and finite")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: must be at least 1")
    if not 0 <= arguments.launcher_faults < 1:
        parser.error(f"--launcher-faults {arguments.launcher_faults}: must be from 0 to below 1")
    if arguments.owner and MARK not in os.environ:
        return run_apart(arguments.minutes)
    logging.getLogger("chronopype_mp").setLevel(logging.CRITICAL)
    logging.getLogger().addHandler(logging.NullHandler())
    if arguments.owner:
        directory = Path(os.environ[MARK])
    else:
        directory = Path(tempfile.mkdtemp(prefix="soak-"))
    stdout, quiet = sys.stdout, open(os.devnull, "w")  # noqa: SIM115 – closed below
    try:
        soak = Soak(
            arguments.minutes,
            arguments.workers,
            arguments.seed,
            directory,
            arguments.launcher_faults,
            arguments.owner,
        )
        if soak.owner:
            become_owner(arguments.workers, soak.owner)
        asyncio.run(warm_up())
        before = find_left()
        # The workers' output comes from the faults and is counted elsewhere.
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            asyncio.run(soak.run())
        sys.stdout = stdout
        soak.audit(before)
    finally:
        quiet.close()
        if not arguments.owner:
            shutil.rmtree(directory, ignore_errors=True)
    for problem, times in soak.problems.items():
        print("PROBLEM:", problem, f"({times} times)" if times > 1 else "")
    print("the audit", "fails" if soak.problems else "adds up")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
