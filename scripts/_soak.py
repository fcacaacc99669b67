"""A soak test: injects random faults into a running clock, then audits the result.

The faults follow a Poisson process.

The audit checks:

- the account of every tick: due = run + missed + skipped + lost
- each worker's own file of ticks, which must agree with its account
- one dossier per death, and one death per process that ended unasked
- no worker stays READY without a process
- no leftover processes, threads and descriptors, and no growing memory

With ``--launcher-faults``, calls of the launcher fail at random too: they raise, hang or answer
late.

The exit status is 1 if the audit fails.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import gc
import logging
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from chronopype_mp import (
    BackoffPolicy,
    ClockConfig,
    ClockMode,
    Limits,
    RealtimeClock,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerError,
    WorkerHandle,
    WorkerStatus,
)
from chronopype_mp.core.supervisor import PROBE_TIMEOUT, REAP_TIMEOUT
from chronopype_mp.events import Event, WorkerDied, WorkerReady, WorkerStarting, WorkerStopping
from chronopype_mp.launchers import get_launcher
from chronopype_mp.testing import FaultyLauncher, faults

TICK_SIZE = 0.1
MEGABYTE = 1 << 20
STEEPEST = 0.5 * MEGABYTE
"""Bytes per minute by which the coordinator's memory may grow. Noise is below that."""

SETTLED = 10.0
"""Minutes after which resident memory is judged too. Memory in use is always judged."""

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


class ProcessWatch:
    """Watches processes from outside: no worker stays READY after the end of its process.

    Args:
        problem: called with each problem.
    """

    def __init__(self, problem: Callable[[str], None]) -> None:
        self.problem = problem
        self.fds: set[int] = set()

    def watch(self, handle: WorkerHandle, event: WorkerReady) -> None:
        """Watch the process of a worker that has become READY."""
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(event.pid)
        except ProcessLookupError:
            self.ended(handle, event)
            return
        self.fds.add(fd)

        def on_end() -> None:
            self.leave(fd)
            self.ended(handle, event)

        loop.add_reader(fd, on_end)

    def ended(self, handle: WorkerHandle, event: WorkerReady) -> None:
        """Check, once its deadlines are over, that the worker is not READY in the process."""

        def check() -> None:
            if handle.status is WorkerStatus.READY and handle.incarnation == event.incarnation:
                self.problem(f"{event.worker}: READY for too long after the end of {event.pid}")

        asyncio.get_running_loop().call_later(WITHOUT_PROCESS + SLEPT, check)

    def leave(self, fd: int) -> None:
        """Stop watching a process."""
        asyncio.get_running_loop().remove_reader(fd)
        self.fds.remove(fd)
        os.close(fd)

    def close(self) -> None:
        """Stop watching all processes."""
        for fd in list(self.fds):
            self.leave(fd)


class Soak:
    """One soak test.

    Args:
        minutes: how long to inject faults.
        workers: the number of workers.
        seed: the seed for the faults.
        directory: the directory for the workers' files and the dossiers.
        share: the share of the launcher's calls that fail.
    """

    def __init__(
        self, minutes: float, workers: int, seed: int, directory: Path, share: float
    ) -> None:
        self.minutes = minutes
        self.count = workers
        self.rng = random.Random(seed)
        self.directory = directory
        self.inflicted: collections.Counter[str] = collections.Counter()
        self.launcher = FaultyLauncher(get_launcher(None), seed, share)
        self.watch = ProcessWatch(self.add_problem)
        self.deaths: list[tuple[str, int, str]] = []
        self.asked: set[tuple[str, int]] = set()
        self.started: collections.Counter[str] = collections.Counter()
        self.times: list[float] = []
        self.memory: dict[str, list[int]] = {"resident": []}
        self.handles: dict[str, WorkerHandle] = {}
        self.problems: dict[str, int] = {}
        self.arrived = asyncio.Event()

    async def run(self) -> None:
        """Run until the last worker has ended."""
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=TICK_SIZE)
        clock = RealtimeClock(
            config,
            supervision=HURRIED if self.launcher.share else POLICY,
            state_dir=self.directory / "dossiers",
            launcher=self.launcher,
        )
        async with clock:
            clock.events.subscribe(self.take)
            for name in (f"w{number}" for number in range(self.count)):
                writer = Writer(str(self.directory / f"ticks-{name}"))
                self.handles[name] = clock.add_processor(writer, name=name)
            for handle in self.handles.values():
                await handle.wait_ready()
            ticking = asyncio.create_task(clock.run())
            watching = asyncio.create_task(self.watch_memory())
            try:
                await self.inflict_all()
                self.launcher.share = 0.0
                await self.all_ready()
            finally:
                self.watch.close()
                watching.cancel()
                await asyncio.wait({watching})
                await clock.shutdown()
                await ticking

    def take(self, event: Event) -> None:
        """Record an event, and check what must hold at any moment."""
        match event:
            case WorkerDied():
                # Only small fields are kept, because the audit's own memory must not grow.
                self.deaths.append((event.worker, event.incarnation, event.reason.value))
                self.check_dossier(event)
            case WorkerStarting():
                self.started[event.worker] += 1
            case WorkerStopping(detail=None):
                self.asked.add((event.worker, event.incarnation))
            case WorkerReady():
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
        folder = self.directory / "dossiers" / death.worker
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

    async def all_ready(self) -> None:
        """Wait until every worker has recovered from the last faults."""
        await asyncio.sleep(2 * POLICY.loop_stall_timeout)  # the last fault may be undetected yet
        try:
            async with asyncio.timeout(60.0):
                while any(h.status is not WorkerStatus.READY for h in self.handles.values()):
                    self.arrived.clear()
                    await self.arrived.wait()
        except TimeoutError:
            self.add_problem("not all workers are READY 60 s after the last fault")

    async def watch_memory(self) -> None:
        """Record the coordinator's memory every 5 s."""
        while True:
            self.times.append(time.monotonic())
            for name, size in _memory().items():
                self.memory.setdefault(name, []).append(size)
            await asyncio.sleep(5.0)

    def audit(self, before: tuple[int, int, int]) -> None:
        """Check and print the results.

        Args:
            before: the numbers of processes, threads and descriptors before the soak.
        """
        totals = collections.Counter[str]()
        for name, handle in self.handles.items():
            totals.update(self.audit_worker(handle, self.directory / f"ticks-{name}"))
        self.audit_dossiers()
        left = _left()
        for name, was, now in zip(
            ("processes", "threads", "descriptors"), before, left, strict=True
        ):
            print(f"{name}: {was} before, {now} after")
            if now > was:
                self.add_problem(f"{now - was} {name} left")
        slopes = {name: self.slope(sizes) for name, sizes in self.memory.items()}
        told = ", ".join(f"{name} {slope / 1024:+.1f}" for name, slope in slopes.items())
        print(f"coordinator memory, KiB per minute over the second half: {told}")
        for name, slope in slopes.items():
            # Resident memory grows at first, until the allocator has what it needs.
            if slope > STEEPEST and (name != "resident" or self.minutes >= SETTLED):
                self.add_problem(f"memory, {name}: {slope / MEGABYTE:+.2f} MiB per minute")
        print("faults:", dict(sorted(self.inflicted.items())))
        print("faults of the launcher:", dict(sorted(self.launcher.injected.items())))
        reasons = collections.Counter(reason for _, _, reason in self.deaths)
        print("deaths:", len(self.deaths), dict(sorted(reasons.items())))
        print("ticks:", dict(totals))

    def audit_worker(self, handle: WorkerHandle, ticks: Path) -> dict[str, int]:
        """Check one worker's account and return it."""
        s = handle.statistics()
        if s.published != s.run + s.missed + s.skipped + s.lost:
            self.add_problem(f"{handle.name}: the account does not close: {s}")
        executed = ticks.stat().st_size
        if not s.run <= executed <= s.run + s.lost:
            self.add_problem(
                f"{handle.name}: wrote {executed} ticks, but counted {s.run} run, {s.lost} lost"
            )
        own = [incarnation for worker, incarnation, _ in self.deaths if worker == handle.name]
        if len(own) != len(set(own)):
            self.add_problem(f"{handle.name}: two dossiers for one death: {own}")
        unasked = set(range(1, self.started[handle.name])) - {
            incarnation for worker, incarnation in self.asked if worker == handle.name
        }
        if unexplained := unasked - set(own):
            self.add_problem(f"{handle.name}: no dossier for {sorted(unexplained)}")
        if self.started[handle.name] != s.restarts + 1:
            self.add_problem(f"{handle.name}: {self.started[handle.name]} starts, {s}")
        return {
            "due": s.published,
            "run": s.run,
            "missed": s.missed,
            "skipped": s.skipped,
            "lost": s.lost,
            "written": executed,
        }

    def audit_dossiers(self) -> None:
        """Check that each of a worker's newest 20 deaths has a file."""
        for handle in self.handles.values():
            deaths = [worker for worker, _, _ in self.deaths if worker == handle.name]
            files = list((self.directory / "dossiers" / handle.name).glob("*.json"))
            if len(files) != min(20, len(deaths)):
                self.add_problem(
                    f"{handle.name}: {len(files)} dossier files for {len(deaths)} deaths"
                )

    def slope(self, sizes: list[int]) -> float:
        """Return the growth per minute over the second half of the run."""
        half = len(sizes) // 2
        if len(sizes) - half < 3:
            return 0.0
        return statistics.linear_regression(self.times[half:], sizes[half:]).slope * 60.0


class _Malloc(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            [
                "arena",
                "ordblks",
                "smblks",
                "hblks",
                "hblkhd",
                "usmblks",
                "fsmblks",
                "uordblks",
                "fordblks",
                "keepcost",
            ]
        )
    ]


def _memory() -> dict[str, int]:
    """Return the memory of this process and how much of it is in use, in bytes.

    Fragmentation lets resident memory grow too.
    """
    sizes = {
        "resident": psutil.Process().memory_info().rss,
        "Python objects (of 64 bytes each)": 64 * sys.getallocatedblocks(),
    }
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _Malloc
        info = libc.mallinfo2()
        sizes["in use of malloc"] = info.uordblks + info.hblkhd
    return sizes


def _left() -> tuple[int, int, int]:
    """Return the number of processes, threads and descriptors of this program."""
    gc.collect()
    me = psutil.Process()
    psutil.wait_procs([c for c in me.children(recursive=True) if c.ppid() != me.pid], timeout=5)
    return len(me.children(recursive=True)), threading.active_count(), me.num_fds()


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
    parser.add_argument("--minutes", type=float, default=1.0)
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
    arguments = parser.parse_args()
    if not 0 < arguments.minutes < math.inf:
        parser.error(f"--minutes {arguments.minutes}: must be positive and finite")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: must be at least 1")
    if not 0 <= arguments.launcher_faults < 1:
        parser.error(f"--launcher-faults {arguments.launcher_faults}: must be from 0 to below 1")
    logging.getLogger("chronopype_mp").setLevel(logging.CRITICAL)
    logging.getLogger().addHandler(logging.NullHandler())
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    stdout, quiet = sys.stdout, open(os.devnull, "w")  # noqa: SIM115 – closed below
    try:
        asyncio.run(warm_up())
        before = _left()
        soak = Soak(
            arguments.minutes,
            arguments.workers,
            arguments.seed,
            directory,
            arguments.launcher_faults,
        )
        # The workers' output comes from the faults and is counted elsewhere.
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            asyncio.run(soak.run())
        sys.stdout = stdout
        soak.audit(before)
    finally:
        quiet.close()
        shutil.rmtree(directory, ignore_errors=True)
    for problem, times in soak.problems.items():
        print("PROBLEM:", problem, f"({times} times)" if times > 1 else "")
    print("the audit", "fails" if soak.problems else "adds up")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
