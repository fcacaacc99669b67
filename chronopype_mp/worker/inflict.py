"""The worker's side of `chronopype_mp.testing.faults`: carries out the requested faults."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from chronopype_mp.launchers.base import STOP_SIGNAL
from chronopype_mp.timing import monotonic, sleep
from chronopype_mp.transport.zeromq import ZmqSender

if TYPE_CHECKING:
    from chronopype_mp.worker.host import WorkerHost

__all__ = ["FAULTS", "inflict"]

MEGABYTE = 1 << 20

_leaked: list[bytearray] = []


def inflict(fault: str, amount: float, host: WorkerHost) -> None:
    """Carry out a fault in this worker, in its event loop.

    Args:
        fault: a name in `FAULTS`. An unknown name is logged and ignored.
        amount: seconds, a count or a size in bytes, depending on the fault.
        host: the worker's host.
    """
    if fault not in FAULTS:
        logging.getLogger("chronopype_mp.faults").error("unknown fault %r", fault)
        return
    FAULTS[fault](amount, host)


def _block_loop(seconds: float, host: WorkerHost) -> None:
    sleep(seconds)


def _spin(seconds: float, host: WorkerHost) -> None:
    end = monotonic() + seconds
    while monotonic() < end:
        pass


def _hold_gil(seconds: float, host: WorkerHost) -> None:
    # PyDLL does not release the GIL around the call.
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(min(seconds, 4000.0) * 1e6)))


def _leak(size: float, host: WorkerHost) -> None:
    leak = bytearray(int(size))
    leak[::4096] = b"x" * len(leak[::4096])  # only touched pages are resident
    _leaked.append(leak)


def _burn_cpu(seconds: float, host: WorkerHost) -> None:
    """Use a whole core, and let the loop turn in between."""
    loop = asyncio.get_running_loop()
    end = monotonic() + seconds

    def burn() -> None:
        turn = monotonic() + 0.05
        while monotonic() < turn:
            pass
        if turn < end:
            loop.call_soon(burn)

    burn()


def _exit(code: float, host: WorkerHost) -> None:
    sys.exit(int(code))


def _exit_at_once(code: float, host: WorkerHost) -> None:
    os._exit(int(code))


def _crash(_: float, host: WorkerHost) -> None:
    ctypes.string_at(0)


def _ignore_signals(_: float, host: WorkerHost) -> None:
    """Ignore the signal and the command to stop."""
    asyncio.get_running_loop().remove_signal_handler(STOP_SIGNAL)
    signal.signal(STOP_SIGNAL, signal.SIG_IGN)
    host.ignore_stops()


def _flood_logs(count: float, host: WorkerHost) -> None:
    logger = logging.getLogger("chronopype_mp.faults")
    for number in range(int(count)):
        logger.warning("flood %d", number)


def _flood_output(count: float, host: WorkerHost) -> None:
    for number in range(int(count)):
        print("flood", number)
    sys.stdout.flush()


def _junk_output(size: float, host: WorkerHost) -> None:
    junk = os.urandom(int(size))
    while junk:
        junk = junk[os.write(2, junk) :]


def _drop_reports(seconds: float, host: WorkerHost) -> None:
    end = monotonic() + seconds
    send = ZmqSender.send

    def send_later(sender: ZmqSender, frame: bytes) -> bool:
        return monotonic() < end or send(sender, frame)

    # Patched in the class, to include the guard's socket.
    ZmqSender.send = send_later  # type: ignore[assignment,method-assign]


def _start_children(seconds: float, host: WorkerHost) -> None:
    for new_session in (False, True):
        subprocess.Popen(["sleep", str(seconds)], start_new_session=new_session)


FAULTS: dict[str, Callable[[float, WorkerHost], None]] = {
    "block_loop": _block_loop,
    "spin": _spin,
    "hold_gil": _hold_gil,
    "leak": _leak,
    "burn_cpu": _burn_cpu,
    "exit_in_hook": _exit,
    "exit_at_once": _exit_at_once,
    "crash": _crash,
    "ignore_signals": _ignore_signals,
    "flood_logs": _flood_logs,
    "flood_output": _flood_output,
    "junk_output": _junk_output,
    "drop_reports": _drop_reports,
    "start_children": _start_children,
}
"""The faults by name, as in the command."""
