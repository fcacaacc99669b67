"""The examples and the demo, run as a user runs them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.system.scripts import Script, Scripts, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
SOAK = EXAMPLES.parent / "scripts" / "_soak.py"


def test_every_example_has_its_test_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "certificate.py",
        "exchange.py",
        "exchange_feeds.py",
        "http_api.py",
        "server_process.py",
        "servers.py",
        "troubled.py",
        "websocket_feed.py",
    }


@pytest.mark.parametrize(("example", "worker"), [("http_api", "api"), ("websocket_feed", "feed")])
def test_an_example_runs_alone_connects_and_ticks(
    scripts: Scripts, example: str, worker: str
) -> None:
    script = scripts.run([sys.executable, str(EXAMPLES / f"{example}.py"), "--seconds", "2"])
    assert script.wait() == 0, script.output
    assert f"{worker}: network CONNECTING -> CONNECTED" in script.output
    account = re.search(r"(\d+) ticks due: (\d+) run, (\d+) missed", script.output)
    assert account is not None, script.output
    assert int(account[2]) >= 15
    assert "Traceback" not in script.output


def test_the_servers_run_alone_and_end_with_ctrl_c(scripts: Scripts) -> None:
    script = scripts.run([sys.executable, str(EXAMPLES / "servers.py")])
    script.wait_for("}")
    addresses = json.loads(script.output)
    assert set(addresses) == {"http", "ws"}
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130
    assert "Traceback" not in script.output


TROUBLES = {
    "rate-limit": r"service restart|HTTP 429",
    "ban": r"\) banned|HTTP 418",
    "maintenance": r"\) maintenance|HTTP 503",
    "dead-socket": r"CONNECTED -> DISCONNECTING: silent for 3 s",
    "slow-tls": r"NOT_CONNECTED: start_network: TimeoutError: timed out during opening",
    "flapping": r"received 1011 .* overloaded",
}
"""The trouble of each feed as `exchange_feeds.py` prints it. Where there are two, a feed of a very
busy machine comes back too late for the second."""


ORDER = r"strategy +order (\d+) at (calm-\d): (bought|sold) 1 at [\d.]+, position ([+-]\d+)"
BEGIN = r"process \d: ([+-]\d+) at calm-1 after (\d+) orders, ([+-]\d+) at calm-2 after (\d+) "


def survives_a_kill(script: Script) -> None:
    """Kill the strategy. Its orders go on from its positions, each with the position it makes."""
    pid = re.search(r"survives kill -9 (\d+)", script.output)
    assert pid is not None, script.output
    os.kill(int(pid[1]), signal.SIGKILL)
    script.wait_for("strategy     process 2: ")

    def reports() -> tuple[str, str]:
        before, _, after = script.output.partition("strategy     process 2: ")
        return before, "process 2: " + after

    known = len(re.findall(ORDER, reports()[0]))
    assert known >= 3, script.output
    wait_until(lambda: len(re.findall(ORDER, reports()[1])) >= 3, 30.0, lambda: script.output)
    orders: dict[tuple[str, int], tuple[str, str]] = {}
    for report in reports():
        begin = re.search(BEGIN, report)
        assert begin is not None, script.output
        at = {
            "calm-1": (int(begin[1]), int(begin[2])),
            "calm-2": (int(begin[3]), int(begin[4])),
        }
        for number, market, verb, position in re.findall(ORDER, report):
            amount, last = at[market]
            at[market] = (amount + (1 if verb == "bought" else -1), last + 1)
            assert (int(position), int(number)) == at[market], script.output
            # What is reported again is what was reported before.
            assert orders.setdefault((market, int(number)), (verb, position)) == (verb, position)
    assert sum(int(begin[n]) for n in (2, 4)) >= known - 3, script.output


def test_every_feed_of_the_exchange_comes_back_from_its_trouble(scripts: Scripts) -> None:
    script = scripts.run([sys.executable, str(EXAMPLES / "exchange_feeds.py"), "--seconds", "300"])

    def still_away() -> list[str]:
        """Return the feeds whose trouble is not over, with or without having begun."""
        return [
            feed
            for feed, trouble in TROUBLES.items()
            if not re.search(
                rf"^ *\d+\.\d s  {feed} +.*({trouble}).*^ *\d+\.\d s  {feed} +\w+ -> CONNECTED",
                script.output,
                re.M | re.S,
            )
        ]

    wait_until(lambda: not still_away(), 100.0, lambda: f"{still_away()} in:\n{script.output}")
    survives_a_kill(script)
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130, script.output
    waits = r": retry after (\d) s: HTTP \d+; next attempt in (\d)\.\d s$"
    assert re.search(waits, script.output, re.M), script.output
    calm = set(re.findall(r"s  (calm-\d) .*-> CONNECTED", script.output))
    assert calm == {"calm-1", "calm-2"}, script.output
    assert "Traceback" not in script.output


def test_a_wrong_key_is_not_tried_again(scripts: Scripts) -> None:
    arguments = ["--seconds", "2", "--key", "wrong"]
    script = scripts.run([sys.executable, str(EXAMPLES / "exchange_feeds.py"), *arguments])
    assert script.wait() == 1, script.output
    for feed, trouble in (("calm-1", "nothing"), ("ban", "bans the key for 4 s: status 418")):
        row = rf"^{feed} +0 +0 +\d+  ERROR +{trouble}$"
        assert re.search(row, script.output, re.M), script.output
    assert "HTTP 401: the key is not accepted" in script.output
    assert script.output.count("calm-1       NOT_CONNECTED -> CONNECTING") == 1
    assert "Traceback" not in script.output


@pytest.mark.parametrize(
    ("program", "arguments", "problem"),
    [
        ("exchange_feeds", ["--seconds", "nan"], "--seconds nan: must be positive and finite"),
        ("servers", ["--exchange", "calm-3"], "invalid choice: 'calm-3'"),
    ],
)
def test_a_wrong_argument_of_an_example_is_one_clear_line(
    scripts: Scripts, program: str, arguments: list[str], problem: str
) -> None:
    script = scripts.run([sys.executable, str(EXAMPLES / f"{program}.py"), *arguments])
    assert script.wait() == 2
    assert problem in script.output
    assert "Traceback" not in script.output


def test_an_exchange_without_openssl_says_what_it_needs(scripts: Scripts) -> None:
    program = EXAMPLES / "exchange_feeds.py"
    script = scripts.run([sys.executable, str(program)], PATH=str(scripts.directory))
    assert script.wait() == 1
    assert "servers.py: TLS needs the command openssl; install it" in script.output
    assert "Traceback" not in script.output


def test_the_troubled_ones_die_and_come_back_beside_a_healthy_one(scripts: Scripts) -> None:
    script = scripts.run([sys.executable, str(EXAMPLES / "troubled.py"), "--seconds", "12"])
    assert script.wait() == 0, script.output
    assert re.search(r"healthy: \d+ ticks run, 0 restarts", script.output), script.output
    assert re.search(r"crashes: \d+ ticks run, [1-9]\d* restarts", script.output), script.output
    assert "Fatal Python error: Segmentation fault" in script.output


def test_the_demo_ends_with_a_good_verdict(scripts: Scripts) -> None:
    """Ticks are few, because a healthy worker must miss none, however busy the machine is."""
    arguments = ["--seconds", "15", "--tick-size", "0.5"]
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "demo", *arguments])
    assert script.wait() == 0, script.output
    assert "GOOD: all faulty workers recovered, and no healthy" in script.output
    assert "All feeds of the exchange came back. The strategy kept its p" in script.output
    assert re.search(r"demo +kill -9 \d+: the strategy, with .*strategy +died", script.output, re.S)
    begins = re.findall(r"strategy +process (\d) begins with (.+)$", script.output, re.M)
    assert begins[0] == ("1", "+0 at calm-1, +0 at calm-2")
    assert begins[1][0] == "2"
    assert re.search(r"strategy: is killed .* orders; began with .*; then ", script.output)
    assert "maintenance   scripted trouble: closed for 4 s: status 503" in script.output
    assert "  maintenance: scripted trouble: closed for 4 s: status 503: NOT_" in script.output
    assert "Traceback" not in script.output


def test_ctrl_c_in_the_demo_gives_a_verdict_of_what_ran_and_status_130(scripts: Scripts) -> None:
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "demo"])
    script.wait_for("all workers are ready")
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130, script.output
    assert "Verdict" in script.output
    assert "Traceback" not in script.output


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_users_mistake_is_one_clear_line_and_status_2(scripts: Scripts, seconds: str) -> None:
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "demo", "--seconds", seconds])
    assert script.wait() == 2
    assert re.search(rf"'--seconds': '{seconds}': must be a number", script.output), script.output
    assert "Traceback" not in script.output


def test_chaos_finds_every_fault_to_be_what_it_is(scripts: Scripts) -> None:
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "demo", "--chaos"])
    assert script.wait() == 0, script.output
    assert script.output.count("detected after") == 10
    assert "GOOD: every fault was classified correctly" in script.output


def test_a_short_soak_adds_up(scripts: Scripts) -> None:
    script = scripts.run(
        [sys.executable, str(SOAK), *("--minutes", "0.1", "--workers", "20", "--seed", "7")]
    )
    assert script.wait(120) == 0, script.output
    assert "the audit adds up" in script.output


def test_a_short_soak_of_a_mistreated_owner_adds_up(scripts: Scripts) -> None:
    seed = random.randrange(1_000_000)
    options = f"--owner --minutes 0.2 --workers 5 --seed {seed}"
    script = scripts.run([sys.executable, str(SOAK), *options.split()])
    status = script.wait(120)
    assert status == 0, f"scripts/soak {options}\n{script.output}"
    assert "faults of the owner" in script.output
