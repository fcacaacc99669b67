"""How ``scripts/soak --owner`` mistreats the owner of the clock, the process that it runs in.

- signals to its process group, which it handles or ignores
- SIGSTOP and, some seconds later, SIGCONT
- forked children that end at once, sleep, or execute a program
- a shortage of file descriptors
- a cleaner of temporary files, and a full disk
- log handlers, subscribers and callbacks that raise

The owner gets a process group, a directory for temporary files and, where that is permitted, a
small disk of its own (`run_apart`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import errno
import faulthandler
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from _kill_owner import MARK, processes_left

from chronopype_mp.transport.descriptors import spare_descriptors

EVERY = 2.0
"""Seconds, on average, from one fault to the next. They may overlap."""

LONGEST_STOP = 4.0
"""Seconds for which the owner is stopped, at most."""

RAISING = 0.05
"""The share of calls of a log handler or callback that raise."""

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

STEP = 16
"""Descriptors that are taken at a time. libzmq aborts an owner that takes all within 10 ms."""

FEW_DESCRIPTORS, FULL_DISK = "few descriptors", "full disk"

DISK_SIZE = 64 << 20

ENDS_WITHIN = 300.0
"""Seconds after the last fault until the soak test itself is taken to hang."""

_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOSPC)

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MNT_DETACH = 2


class Failure(BaseException):
    """Raised by a callback; not an `Exception`."""


class OwnerFaults:
    """Mistreats this process, in an order that depends on chance.

    Args:
        rng: the source of chance.
        problem: called with each problem.

    Attributes:
        directory: for everything that must be kept.
        disk: for dossiers and temporary files; small, if `run_apart` could mount one.
        inflicted: the number of faults so far, by kind.
        raised: the number of exceptions of callbacks and log handlers so far, by both kinds.
        handled: the number of signals that this process has handled.
        stopped: the seconds for which it was stopped so far, or is about to be.
        active: the kinds of fault that are going on.
        failures: the number of exceptions that nobody has handled.
    """

    def __init__(self, rng: random.Random, problem: Callable[[str], None]) -> None:
        self.rng = rng
        self.problem = problem
        self.directory = Path(os.environ[MARK])
        self.disk = self.directory / "disk"
        self.inflicted: collections.Counter[str] = collections.Counter()
        self.raised: collections.Counter[str] = collections.Counter()
        self.handled = 0
        self.stopped = 0.0
        self.active: set[str] = set()
        self.failures = 0
        self.children: set[int] = set()
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "signal to the group, handled": self.signal_group,
            "signal to the group, ignored": self.ignore_signal,
            "stop": self.stop,
            "fork, end": lambda: self.fork(lambda: None),
            "fork, sleep": lambda: self.fork(lambda: time.sleep(rng.uniform(0.0, 3.0))),
            "fork, execute": lambda: self.fork(lambda: os.execvp("sleep", ["sleep", "1"])),
            FEW_DESCRIPTORS: self.use_up_descriptors,
            "remove old temporary files": lambda: self.clean(rng.uniform(1.0, 30.0)),
            "remove all temporary files": self.clean_all,
        }
        if self.disk.is_mount():
            self.kinds[FULL_DISK] = self.fill_disk
        self.deck: list[str] = []

    async def run(self) -> None:
        """Inflict faults until cancelled. Each kind comes once before any comes again."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.take_signal)
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.rng.expovariate(1.0 / EVERY))
                self.reap()
                if not self.deck:
                    self.deck = self.rng.sample(list(self.kinds), len(self.kinds))
                group.create_task(self.inflict(self.deck.pop()))

    async def inflict(self, kind: str) -> None:
        """Inflict one fault, unless it is going on, or another one makes it impossible."""
        if kind in self.active:
            return
        self.active.add(kind)
        try:
            await self.kinds[kind]()
        except OSError as error:
            if error.errno not in _NO_MORE:
                raise
        else:
            self.inflicted[kind] += 1
        finally:
            self.active.remove(kind)

    @property
    def is_short(self) -> bool:
        """Whether files may be impossible to write at present."""
        return not self.active.isdisjoint({FEW_DESCRIPTORS, FULL_DISK})

    def fail(self, what: str, error: BaseException | None) -> None:
        """Note an exception that nobody has handled."""
        self.failures += 1
        self.problem(f"{what}: {error!r}")
        traceback.print_exception(error, file=sys.__stderr__)

    def reap(self, options: int = os.WNOHANG) -> None:
        """Reap the children that have ended."""
        for child in list(self.children):
            pid, status = os.waitpid(child, options)
            if pid:
                self.children.remove(child)
                if (code := os.waitstatus_to_exitcode(status)) > 0:
                    self.problem(f"a child of the owner ended with status {code}")

    # Signals

    def take_signal(self) -> None:
        self.handled += 1

    async def signal_group(self) -> None:
        os.killpg(0, self.rng.choice(SIGNALS))

    async def ignore_signal(self) -> None:
        number = self.rng.choice(SIGNALS)
        signal.signal(number, signal.SIG_IGN)
        try:
            os.killpg(0, number)
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
            os.killpg(0, number)
        finally:
            asyncio.get_running_loop().add_signal_handler(number, self.take_signal)

    async def stop(self) -> None:
        """Have a process outside the group stop this one and continue it."""
        seconds = self.rng.uniform(0.1, LONGEST_STOP)
        script = "kill -STOP $0; sleep $1; kill -CONT $0"
        command = ["sh", "-c", script, str(os.getpid()), f"{seconds:.2f}"]
        helper = os.posix_spawnp("sh", command, os.environ, setsid=True)  # noqa: ASYNC221 – no wait
        self.children.add(helper)
        self.stopped += seconds

    # Children

    async def fork(self, run: Callable[[], object]) -> None:
        before = self.failures
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                run()
                status = int(self.failures > before)  # in the hooks of the fork, for example
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(status)
        self.children.add(child)

    # Shortages

    async def use_up_descriptors(self) -> None:
        left = self.rng.randrange(48)
        taken: list[int] = []
        try:
            while (more := spare_descriptors() - left) > 0:
                for _ in range(min(more, STEP)):
                    taken.append(os.open(os.devnull, os.O_RDONLY))
                await asyncio.sleep(0.012)
            await asyncio.sleep(self.rng.uniform(0.1, 2.0))
        finally:
            for fd in taken:
                os.close(fd)

    async def fill_disk(self) -> None:
        with self.file_of_all_space():
            await asyncio.sleep(self.rng.uniform(0.1, 4.0))

    @contextlib.contextmanager
    def file_of_all_space(self) -> Iterator[None]:
        path = self.disk / "full"
        space = os.statvfs(self.disk)
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
            yield
        finally:
            path.unlink(missing_ok=True)

    # Temporary files

    async def clean(self, age: float) -> None:
        """Remove what is older than ``age`` seconds."""
        old = time.time() - age
        for folder, _, names in os.walk(tempfile.gettempdir(), topdown=False):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(path := os.path.join(folder, name)).st_mtime < old:
                        os.unlink(path)
            with contextlib.suppress(OSError):  # it is not empty, or has gone
                if folder != tempfile.gettempdir() and os.stat(folder).st_mtime < old:
                    os.rmdir(folder)

    async def clean_all(self) -> None:
        with os.scandir(tempfile.gettempdir()) as entries:
            for entry in entries:
                shutil.rmtree(entry.path, ignore_errors=True)

    # Callbacks

    def on_failure(self, processor: object, error: BaseException) -> None:
        self.raise_at_random("error callback")

    def on_event(self, event: object) -> None:
        self.raise_at_random("event callback")

    def on_tick(self, event: object) -> None:
        self.raise_at_random("subscriber of ticks")

    def raise_at_random(self, what: str) -> None:
        """Raise what a callback should not; not SystemExit, which ends a run."""
        if self.rng.random() < RAISING:
            kind = self.rng.choice([RuntimeError, OSError, asyncio.CancelledError, Failure])
            base = "Exception" if issubclass(kind, Exception) else "BaseException"
            self.raised[f"{what}: {base}"] += 1
            raise kind("injected by the soak test")


class UnrulyHandler(logging.Handler):
    """A log handler that raises at random. What asyncio logs is a problem.

    Args:
        owner: decides when it raises.
    """

    def __init__(self, owner: OwnerFaults) -> None:
        super().__init__()
        self.owner = owner

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "asyncio":
            self.owner.raise_at_random("log handler")
        elif record.levelno >= logging.ERROR:
            error = record.exc_info and record.exc_info[1]
            self.owner.problem(f"asyncio logged: {record.getMessage()} {error!r}")


def become_owner(workers: int, owner: OwnerFaults) -> None:
    """Prepare this process, which `run_apart` has started, for its mistreatment.

    Args:
        workers: how many there will be.
        owner: the faults.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()
    # So few that they can be used up in a moment.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, 1024 + 16 * workers) if hard != resource.RLIM_INFINITY else 1024 + 16 * workers
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard, 1024), hard))
    logging.getLogger("chronopype_mp").setLevel(logging.INFO)
    logging.getLogger().addHandler(UnrulyHandler(owner))
    sys.unraisablehook = lambda what: owner.fail(f"in {what.object!r}", what.exc_value)
    threading.excepthook = lambda what: owner.fail(f"in {what.thread}", what.exc_value)


def run_apart(minutes: float) -> int:
    """Run this program again as an owner of its own; return its exit status.

    It leads a process group. Its temporary files are on a small file system, if this process may
    mount one; the mount is seen by this process and its children only.

    Args:
        minutes: how long it injects faults.
    """
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))  # everything is removed then
    with tempfile.TemporaryDirectory(prefix="soak-") as directory, small_disk(directory) as disk:
        temporary = os.path.join(disk, "tmp")
        os.mkdir(temporary)
        owner = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, "TMPDIR": temporary, MARK: directory},
            process_group=0,
        )
        problems = []
        try:
            status = owner.wait(60.0 * minutes + ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            problems.append("the owner does not end")
            owner.send_signal(signal.SIGABRT)  # it prints its stacks
            status = owner.wait(ENDS_WITHIN)
        finally:
            owner.kill()
            owner.wait()
        if status < 0:
            problems.append(f"the owner died of {signal.Signals(-status).name}")
        if processes := processes_left(directory):
            problems.append(f"processes left: {processes}")
        if files := os.listdir(temporary):
            problems.append(f"temporary files left: {files}")
    for problem in problems:
        print("PROBLEM:", problem)
    return 1 if problems else status


@contextlib.contextmanager
def small_disk(directory: str) -> Iterator[str]:
    """Yield a new directory in ``directory``, on a small file system if one can be mounted."""
    disk = os.path.join(directory, "disk")
    os.mkdir(disk)
    libc = ctypes.CDLL(None, use_errno=True)
    size = b"size=%d" % DISK_SIZE
    is_mounted = (
        libc.unshare(_CLONE_NEWNS) == 0
        and libc.mount(None, b"/", None, _MS_REC_PRIVATE, None) == 0
        and libc.mount(b"soak", os.fsencode(disk), b"tmpfs", 0, size) == 0
    )
    if not is_mounted:
        why = os.strerror(ctypes.get_errno())
        print(f"skipped: full disk, because no file system can be mounted: {why}", flush=True)
    try:
        yield disk
    finally:
        if is_mounted:
            libc.umount2(os.fsencode(disk), _MNT_DETACH)
