"""Asking peers for figures, with small programs in their place. No process or file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peers import Answer, ask
from tests.system.scripts import TOKEN, processes_of, wait_until

Write = Callable[[str], None]

REPOSITORY = Path(__file__).parent.parent.parent

DAEMON = """
    import os, signal, time

    def daemon():
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(300)  # longer than any test
            os._exit(0)
        os.wait()

    daemon()
"""
"""A program that creates a process without a parent, in its own session, which must be killed."""


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """A token in the environment of all processes of this test."""
    token = uuid.uuid4().hex
    monkeypatch.setenv(TOKEN, token)
    return token


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a program ``fake`` with the given source. Its environment is our Python."""
    interpreter = tmp_path / ".venv-peers" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path)
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)

    def write(source: str) -> None:
        (tmp_path / "fake.py").write_text(textwrap.dedent(source))

    return write


def reason(*arguments: str, timeout: float = 30.0) -> str:
    """Ask the program and return the reason why it was skipped."""
    answer = ask("fake", *arguments, timeout=timeout)
    assert answer.figures == {}
    assert answer.skipped is not None
    assert "\n" not in answer.skipped
    return answer.skipped


def test_a_missing_environment_is_named_with_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    said = [ask(name).skipped for name in ("ray_restart", "chronopype_jitter")]
    assert said == [
        "ray_restart: no .venv-peers, create it with ./scripts/bench-peers",
        "chronopype_jitter: no .venv-peers-3.13, create it with ./scripts/bench-peers",
    ]


def test_the_figures_are_the_last_line_of_the_output(write: Write) -> None:
    write("print('hello'); print('{\"restart_ms\": 12.5, \"survived\": 1}')")
    assert ask("fake") == Answer({"restart_ms": 12.5, "survived": 1.0}, None)


def test_a_program_gets_its_arguments_and_nothing_of_our_python(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    write("""
        import json, os, sys
        seen = "PYTHONPATH" in os.environ
        print(json.dumps({"sum": sum(map(int, sys.argv[1:])), "seen": int(seen)}))
    """)
    assert ask("fake", "1", "2") == Answer({"sum": 3.0, "seen": 0.0}, None)


def test_a_program_runs_in_a_directory_of_its_own_that_is_removed(
    write: Write, tmp_path: Path
) -> None:
    write(f"""
        import os, tempfile
        open("left.txt", "w").close()
        os.mkdir(tempfile.gettempdir() + "/below")
        open({str(tmp_path / "where")!r}, "w").write(os.getcwd())
        print({{}})
    """)
    assert ask("fake") == Answer({}, None)
    assert not Path((tmp_path / "where").read_text()).exists()


def test_a_failure_is_told_with_the_end_of_what_it_said(write: Write) -> None:
    write("print('{\"a\": 1}', flush=True); raise RuntimeError('no ' + 300 * '.' + ' luck')")
    assert reason().startswith("fake: failed with status 1: ...")
    assert reason().endswith("... luck")
    write("import os; os.kill(os.getpid(), 9)")
    assert reason() == "fake: failed with status 137"


def test_a_peer_that_could_not_be_installed_is_told_with_what_installs_it(write: Write) -> None:
    write("import no_such_peer")
    assert reason() == (
        "fake: failed with status 1: ModuleNotFoundError: No module named 'no_such_peer', "
        "install it with ./scripts/bench-peers"
    )


@pytest.mark.parametrize("junk", ["", "done", "[1]", '{"a": "b"}', '{"a": NaN}'])
def test_junk_is_no_figures(write: Write, junk: str) -> None:
    write(f"print({junk!r})")
    assert reason() == "fake: printed no figures" + (f": {junk}" if junk else "")


def test_a_daemon_of_a_program_that_ended_is_gone(write: Write, token: str) -> None:
    write(DAEMON + "    print('{\"a\": 1}')")
    assert ask("fake") == Answer({"a": 1.0}, None)
    assert processes_of(token) == []


def test_a_program_that_hangs_is_ended_with_all_that_it_started(write: Write, token: str) -> None:
    write(DAEMON + "    time.sleep(300)")  # hangs: longer than any test
    assert reason(timeout=0.75).startswith("fake: not done after 0.75 s")
    assert processes_of(token) == []


def test_semaphores_of_a_program_that_was_killed_are_removed(write: Write, tmp_path: Path) -> None:
    write(f"""
        import multiprocessing, os
        semaphore = multiprocessing.get_context("spawn").Semaphore()
        open({str(tmp_path / "name")!r}, "w").write(semaphore._semlock.name)
        os.kill(os.getpid(), 9)
    """)
    assert reason() == "fake: failed with status 137"
    name = (tmp_path / "name").read_text().removeprefix("/")
    assert not Path("/dev/shm", f"sem.{name}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_benchmark_is_ended(
    write: Write, tmp_path: Path, token: str, number: signal.Signals
) -> None:
    where = tmp_path / "where"
    # It reports where it runs, then hangs for longer than any test.
    write(DAEMON + f"    open({str(where)!r}, 'w').write(os.getcwd() + '\\n'); time.sleep(300)")
    benchmark = f"""
        from pathlib import Path
        from benchmarks import peers
        peers.PROGRAMS = peers.ENVIRONMENTS = Path({str(tmp_path)!r})
        peers.ask("fake")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(benchmark)],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: where.exists() and where.read_text().endswith("\n"), 20.0)
        os.kill(process.pid, number)
        process.wait(20.0)
        wait_until(lambda: processes_of(token) == [], 20.0)
        assert not Path(where.read_text().strip()).exists()
    finally:
        process.kill()
        process.wait()
