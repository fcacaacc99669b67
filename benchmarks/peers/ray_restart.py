"""The time from the SIGKILL of a Ray actor to an answer of its replacement: ray_restart.py [KILLS].

With ``max_restarts=-1`` the actor is always restarted. With ``max_task_retries=-1`` a call waits
for the replacement. The actor is called 20 times a second, and the first answer from a new process
counts. The call that finds the connection broken is repeated only after a second. Later calls wait
for the replacement and are answered as soon as it is ready. The first replacement may be a worker
that Ray had started in advance, so the median is reported.
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
    """Answers with its process id."""

    def pid(self) -> int:
        """Return its process id."""
        return os.getpid()


def restart_ms(victim: ray.actor.ActorHandle) -> float:
    """Kill the actor. Return the time until a new process answers, ms."""
    killed = ray.get(victim.pid.remote())
    time.sleep(SETTLE)
    began = time.perf_counter()
    os.kill(killed, signal.SIGKILL)
    calls, pid = [], killed
    while pid == killed:  # the actor may answer once more before it dies
        calls.append(victim.pid.remote())
        answered, calls = ray.wait(calls, timeout=INTERVAL)
        pid = next((pid for pid in ray.get(answered) if pid != killed), killed)
    taken = time.perf_counter() - began
    ray.get(calls)  # no call may be pending at the next kill
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
