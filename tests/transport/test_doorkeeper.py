"""The doorkeeper: connections end before descriptors do. Each test has a process of its own."""

from __future__ import annotations

import subprocess
import sys

OWNER = """
import contextlib, json, os, resource, signal, socket, subprocess, sys, threading, time
from chronopype_mp.transport import doorkeeper
from chronopype_mp.transport.zeromq import ZmqHub, ZmqSender
import zmq

LIMIT = 300
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
hub = ZmqHub()
path = hub.up.removeprefix("ipc://")
assert hub.echo(b"")  # the hub's own connection is there before descriptors are counted
while not hub.receive(1):
    time.sleep(0.01)

def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # another thread of libzmq or of ours tells nobody

def arrives():
    context = zmq.Context()
    sender = ZmqSender(context, hub.up)
    assert sender.send(b"sane")
    frames = []
    until(lambda: frames.extend(hub.receive(10)) or b"sane" in frames)
    sender.close(0)
    context.term()

def flood(count):
    code = '''
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
kept, refused = [], 0
for _ in range(int(sys.argv[2])):
    each = socket.socket(socket.AF_UNIX)
    each.settimeout(0.2)
    try:
        each.connect(sys.argv[1])
        kept.append(each)
    except OSError:
        refused += 1
print("done", flush=True)
sys.stdin.read()
'''
    return subprocess.Popen([sys.executable, "-c", code, path, str(count)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
"""

END = """
hub.close_publisher()
hub.close()
print("survived")
"""


def owner(work: str) -> None:
    """Run a program that must live to its end."""
    result = subprocess.run(
        [sys.executable, "-c", OWNER + work + END],
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "survived"


def test_one_process_gets_a_bounded_number_of_connections_and_others_are_served() -> None:
    owner("""
before = len(os.listdir("/dev/fd"))
hostile = flood(3000)
hostile.stdout.readline()
until(lambda: len(os.listdir("/dev/fd")) <= before + 2 + doorkeeper.CONNECTIONS_PER_PROCESS)
assert hub._doorkeeper.refused > 0
arrives()
hostile.communicate()
until(lambda: len(os.listdir("/dev/fd")) <= before)
""")


def test_many_processes_do_not_use_up_the_descriptors() -> None:
    owner("""
before = len(os.listdir("/dev/fd"))
hostile = [flood(20) for _ in range(20)]
for each in hostile:
    each.stdout.readline()
for each in hostile:
    each.communicate()
until(lambda: len(os.listdir("/dev/fd")) <= before)
arrives()
""")


def test_while_the_owner_itself_has_used_them_up_nobody_connects_and_then_all_goes_on() -> None:
    owner("""
hostile = flood(0)
hostile.stdout.readline()
hog = []
try:
    while True:
        hog.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
spare = hog.pop()
until(lambda: not hub._doorkeeper._is_open)
for _ in range(200):
    os.close(spare)
    with socket.socket(socket.AF_UNIX) as each:
        try:
            each.connect(path)
        except FileNotFoundError:
            pass
        else:
            raise AssertionError("somebody was let in")
    spare = None
    while spare is None:  # the hub's threads may use the free one for a moment
        with contextlib.suppress(OSError):
            spare = os.open(os.devnull, os.O_RDONLY)
for fd in hog:
    os.close(fd)
os.close(spare)
until(lambda: hub._doorkeeper._is_open)
arrives()
hostile.communicate()
""")


def test_descriptors_with_high_numbers_that_stay_in_use_are_counted() -> None:
    owner("""
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError as error:
    print(error)
for fd in taken[:100]:
    os.close(fd)
until(lambda: os.path.exists(path))
more = [os.open(os.devnull, os.O_RDONLY) for _ in range(60)]
until(lambda: not os.path.exists(path))
for fd in taken[100:] + more:
    os.close(fd)
arrives()
""")


def test_a_descriptor_that_is_no_connection_any_more_is_left_alone() -> None:
    owner("""
left, right = socket.socketpair()
peers = dict(hub._doorkeeper._peers)
file = os.open(os.devnull, os.O_RDONLY)
before = len(os.listdir("/dev/fd"))
for fd in (left.fileno(), file, 250):
    hub._doorkeeper._accepted(path, fd)
assert len(os.listdir("/dev/fd")) == before
assert hub._doorkeeper._peers == peers
left.sendall(b"x")
assert right.recv(1) == b"x"
left.close()
right.close()
os.close(file)
""")


def test_a_socket_that_was_bound_again_is_behind_the_same_door() -> None:
    owner("""
os.unlink(path)
hub.restore()
before = len(os.listdir("/dev/fd"))
hostile = flood(3000)
hostile.stdout.readline()
until(lambda: len(os.listdir("/dev/fd")) <= before + 2 + doorkeeper.CONNECTIONS_PER_PROCESS)
assert hub._doorkeeper.refused > 0
arrives()
hostile.communicate()
""")


def test_sockets_that_are_bound_again_and_again_take_no_more_descriptors_than_are_in_use() -> None:
    owner("""
def lose():
    for file in (hub.file("up"), hub.file("down")):
        os.unlink(file)
    hub.restore()
    hub.publish(b"a frame")  # binds the publisher
    looks = hub._doorkeeper.looks
    until(lambda: hub._doorkeeper.looks > looks + 2)

def fds():
    return len(os.listdir("/dev/fd"))

lose()
lose()
context = zmq.Context()
sender = ZmqSender(context, hub.up)
monitor = sender._push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
assert sender.send(b"first")
until(lambda: b"first" in hub.receive(10))
lose()
lose()
before = fds()
for _ in range(5):
    lose()
assert sender.send(b"second")
until(lambda: b"second" in hub.receive(10))
assert not monitor.poll(0)  # by a connection that was made long ago
until(lambda: fds() == before)
sender.close(0)
monitor.close()
context.term()
arrives()
""")


def test_a_closed_door_is_no_lost_socket_and_a_lost_one_comes_back_closed() -> None:
    owner("""
FILES = ["data", "down", "pub", "sub", "up"]
names = lambda: sorted(os.listdir(os.path.dirname(path)))
doorkeeper.spare_descriptors = lambda: 0
until(lambda: names() == [f"{name}.closed" for name in FILES])
before = os.stat(path + ".closed").st_ino
hub.restore()
assert names() == [f"{name}.closed" for name in FILES]
assert os.stat(path + ".closed").st_ino == before
os.unlink(path + ".closed")
hub.restore()
assert names() == [f"{name}.closed" for name in FILES]
doorkeeper.spare_descriptors = lambda: 1000
until(lambda: names() == FILES)
arrives()
""")


def test_it_ends_while_a_forked_process_lives() -> None:
    owner("""
child = os.fork()
if child == 0:
    signal.pause()
hub.close_publisher()
hub.close()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print("survived", flush=True)
os._exit(0)
""")
