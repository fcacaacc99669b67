"""Measures how long a supervisor takes to replace a killed worker.

Run as a program, this module is the worker: it sends its process id to a datagram socket and waits.
The socket makes polling unnecessary. The module imports little, because its start is part of the
figure.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

__all__ = ["command", "restarts_ms"]

BOUND = 60.0
"""Seconds after which a worker counts as not started."""


def command(address: str) -> str:
    """Return the command line of a worker that reports to a socket."""
    return f"{sys.executable} {os.path.abspath(__file__)} {os.path.abspath(address)}"


def restarts_ms(supervisor: list[str], address: str, kills: int, period: float) -> list[float]:
    """Run a supervisor and kill its worker several times.

    A replacement happens at a poll of the supervisor. The kills are therefore spread evenly over
    the polling period (s), counted from the last replacement. Otherwise all waits would be equal.

    Returns:
        The duration of each replacement, ms.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as arrivals:
        arrivals.bind(address)
        arrivals.settimeout(BOUND)
        daemon = subprocess.Popen(supervisor, stdout=sys.stderr)
        try:
            pid = int(arrivals.recv(32))
            taken = []
            for number in range(kills):
                time.sleep(period * (number + 0.5) / kills)
                began = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                pid = int(arrivals.recv(32))
                taken.append(1e3 * (time.perf_counter() - began))
        finally:
            daemon.terminate()
            daemon.wait()
    return taken


def work(address: str) -> None:
    """Report that this process has started, and wait to be killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(str(os.getpid()).encode(), address)
    signal.pause()


if __name__ == "__main__":
    work(sys.argv[1])
