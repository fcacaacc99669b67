"""How helper processes are executed: the forkserver, the resource tracker, workers under spawn.

What happens to their owner must not end or mislead them. Before `multiprocess` gets control in a
new process, the prelude has

- made it the leader of a session of its own, so that signals to the owner's group pass by;
- given SIGHUP, SIGINT and SIGTERM handlers that do nothing, for signals that reach every process of
  a unit or container. A helper ends when its owner does, by its pipe;
- reset the disposition of SIGCHLD and the signal mask, which the owner may have changed;
- replaced the module path, on which the working directory would be first.

The forkserver is replaced when it has ended, even if the owner does not learn of that because it
ignores SIGCHLD or reaps all children, when its socket was removed, and when it lacks modules; it
then ends once the processes that it has forked have ended. It ends at once if it cannot import what
it should preload; multiprocess would go on without.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import multiprocess
import multiprocess.forkserver
import multiprocess.process
import multiprocess.resource_tracker
import multiprocess.spawn
import multiprocess.util
import psutil

from chronopype_mp.launchers.frozen import frozen_command, is_frozen
from chronopype_mp.timing import monotonic, sleep
from chronopype_mp.transport.private_directory import PrivateDirectory
from chronopype_mp.transport.zeromq import MAX_IPC_PATH

__all__ = [
    "close_retired_forkservers",
    "ensure_forkserver",
    "forget_if_ended",
    "starting",
    "watch_forks",
]

PRELUDE = """\
import sys
sys.path[:] = {path}
import os, signal
for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
    signal.signal(number, lambda *_: None)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.setsid()
"""
"""A handler and not SIG_IGN, which the programs that a worker starts would inherit."""

FORKSERVER = "multiprocess.forkserver"
"""In the code that a forkserver executes, and no other helper."""

HANDLED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

LONGEST_NAME = len("/listener-01234567")
"""Bytes that multiprocess adds to the path of its directory."""

REAP_WITHIN = 1.0
"""Seconds to wait for the end of a forkserver that was replaced or cannot be reached."""

LOCK_WITHIN = 1.0
"""Seconds that a fork of the owner waits for a start to finish."""


class _Helpers:
    """The state of this process; there is one.

    Attributes:
        lock: held while a process is started.
        server: the process id of the forkserver that was started here.
        preloaded: the modules that it has imported.
        directory: the one in which it listens; None if multiprocess had one already.
        retired: forkservers without a socket: by their process ids, the ends of the pipes that keep
            them alive, or None once they were told to end.
        in_fork: of each thread, whether it holds the lock while it forks.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: int | None = None
        self.preloaded: list[str] = []
        self.directory: PrivateDirectory | None = None
        self.retired: dict[int, int | None] = {}
        self.in_fork = threading.local()


_helpers = _Helpers()


@contextlib.contextmanager
def starting(preload: Sequence[str] = ()) -> Iterator[None]:
    """Start the processes of `multiprocess` as this module describes, in this thread alone.

    The new process is not told where the main module is.

    Args:
        preload: the modules that a forkserver must import first.
    """
    with _helpers.lock:
        prepare, spawn = multiprocess.spawn.get_preparation_data, multiprocess.util.spawnv_passfds
        thread = threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            data: dict[str, Any] = prepare(name)
            if threading.get_ident() == thread:
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
                data["sys_path"] = _module_path()
            return data

        def with_prelude(program: bytes, arguments: list[Any], fds: list[int]) -> int:
            if threading.get_ident() != thread:
                return int(spawn(program, arguments, fds))
            # Until the new process has its handlers, signals wait.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
            try:
                return int(spawn(program, _with_prelude(arguments, preload), fds))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        multiprocess.spawn.get_preparation_data = without_main
        multiprocess.util.spawnv_passfds = with_prelude
        # It would unblock signals in this thread that the owner has blocked.
        tracker, has_masks = (
            multiprocess.resource_tracker,
            multiprocess.resource_tracker._HAVE_SIGMASK,
        )
        tracker._HAVE_SIGMASK = False
        try:
            yield
        finally:
            tracker._HAVE_SIGMASK = has_masks
            multiprocess.util.spawnv_passfds = spawn
            multiprocess.spawn.get_preparation_data = prepare


def _with_prelude(arguments: list[Any], preload: Sequence[str]) -> list[Any]:
    prelude = PRELUDE.format(path=ascii(_module_path()))
    if "-c" in arguments:
        at = arguments.index("-c") + 1
        if FORKSERVER in arguments[at]:
            prelude += "".join(f"import {module}\n" for module in preload)
        code = prelude + arguments[at]
        if is_frozen():
            return frozen_command(arguments[0], code, arguments[at + 1 :])
        return [*arguments[:at], code, *arguments[at + 1 :]]
    # multiprocess' own way to start a frozen program; it runs in `freeze_support`.
    keywords = ", ".join(arguments[2:])
    code = f"{prelude}from multiprocess.spawn import spawn_main\nspawn_main({keywords})"
    return frozen_command(arguments[0], code, [arguments[1]])


def _module_path() -> list[str]:
    """Return this process' module path with the standard library first."""
    paths = sysconfig.get_paths()
    standard = {paths["stdlib"], paths["platstdlib"]}
    standard |= {os.path.join(path, "lib-dynload") for path in standard}
    # Python ignores entries that are not strings; multiprocess fails on them.
    entries = [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]
    return sorted(entries, key=lambda entry: entry not in standard)


def ensure_forkserver(preload: list[str]) -> int:
    """Start a forkserver unless there is one with these modules that can be reached.

    Args:
        preload: the modules that it must have imported. A new one also imports those of the one
            that it replaces, so that two clocks with different modules share it.

    Returns:
        Its process id.

    Raises:
        OSError: the system has no more processes, memory or file descriptors.
    """
    server = multiprocess.forkserver._forkserver
    others = [module for module in _helpers.preloaded if module not in preload]
    wanted = [*others, *preload]
    with starting(wanted):
        pid = server._forkserver_pid
        has_modules = len(wanted) == len(_helpers.preloaded)
        if pid is not None and _has_ended(pid):
            _close_forkserver()
        elif pid is not None and pid != _helpers.server:
            _forget_forkserver()  # somebody else's, without our modules
        elif pid is not None and not (has_modules and os.path.exists(server._forkserver_address)):
            # It goes on for the processes that it has forked. Without a socket, it will not remove
            # the directory, which is its successor's.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(server._forkserver_address)
            _helpers.retired[pid] = server._forkserver_alive_fd
            _forget_forkserver()
        _end_retired_forkservers(_has_children)
        if server._forkserver_pid is None:
            _make_directory()
            # Otherwise it would import the main module.
            multiprocess.set_forkserver_preload(wanted)
            server.ensure_running()
            _helpers.server, _helpers.preloaded = server._forkserver_pid, wanted
        return int(server._forkserver_pid)


def forget_if_ended(pid: int) -> bool:
    """Forget a forkserver that could not be reached if it has ended; return whether it has.

    Waits for that for at most `REAP_WITHIN`.
    """
    deadline = monotonic() + REAP_WITHIN
    while not _has_ended(pid):
        if monotonic() >= deadline:
            return False
        sleep(0.01)
    with _helpers.lock:
        _helpers.preloaded = []  # one of them may be to blame
        if multiprocess.forkserver._forkserver._forkserver_pid == pid:
            _close_forkserver()
    return True


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # somebody else has reaped it
        return True


def _close_forkserver() -> None:
    os.close(multiprocess.forkserver._forkserver._forkserver_alive_fd)
    _forget_forkserver()


def _forget_forkserver() -> None:
    server = multiprocess.forkserver._forkserver
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


def _make_directory() -> None:
    """Give `multiprocess` a directory for its sockets, or restore the one that it has."""
    config = multiprocess.process.current_process()._config
    path = config.get("tempdir")
    if path is None:
        directory = PrivateDirectory()
        if len(os.fsencode(directory.path)) + LONGEST_NAME > MAX_IPC_PATH:
            directory.remove()  # multiprocess has a shorter name
            return
        _helpers.directory = directory
        config["tempdir"] = directory.path
        multiprocess.util.Finalize(None, _remove_directory, exitpriority=-100)
    elif _helpers.directory is not None and _helpers.directory.path == path:
        _helpers.directory.restore()
    else:
        os.makedirs(path, 0o700, exist_ok=True)


def _remove_directory() -> None:
    if _helpers.directory is not None:
        _helpers.directory.remove()


def close_retired_forkservers() -> None:
    """End the forkservers that were replaced, once they have no process left."""
    deadline = monotonic() + REAP_WITHIN
    _end_retired_forkservers(lambda pid: False)
    while _helpers.retired and monotonic() < deadline:
        sleep(0.01)
        _end_retired_forkservers(lambda pid: False)


def _end_retired_forkservers(is_needed: Callable[[int], bool]) -> None:
    """Tell those to end that are not needed, and reap those that have ended."""
    for pid, alive in list(_helpers.retired.items()):
        has_ended = _has_ended(pid)
        if alive is not None and (has_ended or not is_needed(pid)):
            os.close(alive)
            _helpers.retired[pid] = None
        if has_ended:
            del _helpers.retired[pid]


def _has_children(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).children())
    except (psutil.Error, OSError):  # for example, no file descriptor is left to look with
        return True


@functools.cache
def watch_forks(in_child: Callable[[], None]) -> None:
    """Keep forked processes of the owner apart from its helpers.

    Args:
        in_child: called in a forked process too, first.
    """

    def leave() -> None:
        in_child()
        _leave_helpers()

    # A start in another thread has pipes open that the forked process would inherit.
    os.register_at_fork(before=_hold_starts, after_in_parent=_release_starts, after_in_child=leave)


def _hold_starts() -> None:
    _helpers.in_fork.holds = _helpers.lock.acquire(timeout=LOCK_WITHIN)


def _release_starts() -> None:
    if _helpers.in_fork.holds:
        _helpers.lock.release()


def _leave_helpers() -> None:
    """Leave the helpers to the process that this one was forked from."""
    _helpers.lock = threading.Lock()
    server = multiprocess.forkserver._forkserver
    server._lock = threading.Lock()
    for alive in _helpers.retired.values():
        if alive is not None:
            os.close(alive)
    _helpers.retired = {}
    if server._forkserver_pid is not None and server._forkserver_pid == _helpers.server:
        _close_forkserver()
    _helpers.server = None
    config = multiprocess.process.current_process()._config
    if _helpers.directory is not None and config.get("tempdir") == _helpers.directory.path:
        del config["tempdir"]
    _helpers.directory = None
