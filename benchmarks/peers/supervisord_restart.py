"""The time from the SIGKILL of a worker to its replacement: supervisord_restart.py [KILLS].

With ``startsecs=0`` a worker counts as running at once, so a restart never waits for a backoff.
supervisord wakes up when a worker's output closes. It starts the replacement in a later turn of its
loop, up to 1 s later. The kills are spread evenly over that time.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import _announced

POLL = 1.0
"""Seconds. Fixed in supervisord's source."""

CONFIGURATION = """\
[supervisord]
nodaemon = true
silent = true
logfile = supervisord.log
pidfile = supervisord.pid

[program:worker]
command = {command}
autorestart = true
startsecs = 0
stdout_logfile = NONE
stderr_logfile = NONE
"""


def main() -> None:
    """Print the figure."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    command = _announced.command("arrivals").replace("%", "%%")
    Path("supervisord.conf").write_text(CONFIGURATION.format(command=command))
    supervisor = [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
    taken = _announced.restarts_ms(supervisor, "arrivals", kills, POLL)
    print(json.dumps({"restart_ms": statistics.median(taken)}))


if __name__ == "__main__":
    main()
