"""From the SIGKILL of a Ray actor to an answer of its replacement: ray_restart.py [KILLS].

``max_restarts=-1`` has it restarted for ever, and with ``max_task_retries=-1`` a call waits for the
replacement. It is called 20 times a second, and the first answer of another process counts: the one
call that finds the connection broken is repeated only after a second, those after it wait for the
replacement and are answered as soon as it is there. The first kill may take a worker that Ray had
started in advance, hence the median.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time

import _local_ray
import ray

INTERVAL = 0.05
"""Seconds between two calls."""

SETTLE = 0.5
"""Seconds between an answer and the next kill."""


class Victim:
    """Answers."""

    def pid(self) -> int:
        """Return its process id."""
        return os.getpid()


def restart_ms(victim: ray.actor.ActorHandle) -> float:
    """Kill it; return the time until another process answers."""
    killed = ray.get(victim.pid.remote())
    time.sleep(SETTLE)
    began = time.perf_counter()
    os.kill(killed, signal.SIGKILL)
    calls, pid = [], killed
    while pid == killed:  # it may answer once more before it dies
        calls.append(victim.pid.remote())
        answered, calls = ray.wait(calls, timeout=INTERVAL)
        pid = next((pid for pid in ray.get(answered) if pid != killed), killed)
    taken = time.perf_counter() - began
    ray.get(calls)  # they are not to meet the next kill
    return 1e3 * taken


def main() -> None:
    """Print the figure."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    _local_ray.start()
    actor_class = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Victim)
    victim = actor_class.remote()
    taken = [restart_ms(victim) for _ in range(kills)]
    ray.shutdown()
    print(json.dumps({"restart_ms": statistics.median(taken)}))


if __name__ == "__main__":
    main()
