"""The mistakes of newcomers: for each, the exact message that they see.

A mistake is refused where it is made, by an exception; or, where it may be meant, warned of in the
log.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import logging
import queue
import re
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from chronopype_mp import (
    ClockConfig,
    ClockError,
    ClockMode,
    ConfigError,
    HookError,
    NetworkProcessor,
    NetworkStatus,
    ProcessorSpec,
    RealtimeClock,
    Supervision,
    TickProcessor,
    TransferError,
    WorkerError,
    remote,
)
from chronopype_mp.events import NetworkChanged, ProcessorFailed, WorkerDied
from chronopype_mp.processors.hook_names import CALLS, HOOKS, NETWORK_HOOKS, SHOWN
from chronopype_mp.processors.network import SETTINGS
from tests.clocks.bench import WALL, Bench
from tests.waiting import run

PLACE = re.compile(r" \(\S+, line \d+\)|0x[0-9a-f]+")
"""What a message says about where, which changes with every edit of this file."""


def config(**values: Any) -> ClockConfig:
    return ClockConfig(clock_mode=ClockMode.REALTIME, **values)


def clock(**arguments: Any) -> RealtimeClock:
    return RealtimeClock(config(), launcher="inline", **arguments)


def add(processor: object, **arguments: Any) -> None:
    clock().add_processor(processor, **arguments)  # type: ignore[arg-type]


class Feed(NetworkProcessor):
    """A processor without a mistake, which the others are derived from."""

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.mistakes")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED


def feed(**members: Any) -> Feed:
    """Make an instance of a class P that has a few members more, or others, than `Feed`."""
    kind: type[Feed] = type("P", (Feed,), members)
    return kind()


# The hooks, as their authors wrote them


def sync_check_network(self: Any) -> NetworkStatus:
    return NetworkStatus.CONNECTED


def sync_start_network(self: Any) -> None:
    self.ws = object()


def endless(self: Any) -> None:
    while True:
        self.ws.recv()


async def async_one(self: Any, timestamp: float = 0.0) -> None: ...


def generator(self: Any, timestamp: float) -> Any:
    yield timestamp


def no_argument(self: Any) -> None: ...


async def async_no_argument(self: Any) -> None: ...


def one_argument(self: Any, ts: float) -> None: ...


def two_arguments(self: Any, ts: float, extra: object) -> None: ...


async def argument_too_many(self: Any, url: str) -> None: ...


def sets_host(self: Any) -> None:
    Feed.__init__(self)
    self._host = "example.com"


async def sets_interval(self: Any) -> None:
    self._check_network_interval = 3


class Checks:
    """A mixin."""

    check_network_interval = 3.0

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED

    async def start_network(self) -> None: ...


async def starts_task(self: Any) -> None:
    self.reader = asyncio.create_task(async_no_argument(self))


async def starts_task_of_loop(self: Any) -> None:
    self.reader = asyncio.get_running_loop().create_task(async_no_argument(self))


async def starts_owned_tasks(self: Any) -> None:
    self.spawn(async_no_argument(self))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(async_no_argument(self))


async def awaits_task(self: Any) -> None:
    task = asyncio.create_task(async_no_argument(self))
    await task


async def awaits_own_task(self: Any) -> None:
    self.task = asyncio.create_task(async_no_argument(self))
    await self.task


async def awaits_task_at_once(self: Any) -> None:
    await asyncio.wait_for(asyncio.create_task(async_no_argument(self), name="x"), 1.0)


async def gathers_tasks(self: Any) -> None:
    tasks = [asyncio.create_task(async_no_argument(self)) for _ in range(2)]
    await asyncio.gather(*tasks)


def returns_task(self: Any) -> Any:
    return asyncio.create_task(async_no_argument(self))


async def starts_task_and_waits(self: Any) -> None:
    self.reader = asyncio.create_task(async_no_argument(self))
    await self.ready.wait()


async def starts_task_for_nobody(self: Any) -> None:
    asyncio.create_task(async_no_argument(self))  # noqa: RUF006 - the mistake
    await asyncio.sleep(0)


async def watches_task(self: Any) -> None:
    asyncio.create_task(async_no_argument(self)).add_done_callback(self.read)


LONE_TASK = (
    "starts a task whose end nobody notices: if it fails, the connection goes on without it; start "
    "it with self.spawn(...), or put what it does into run_network"
)


class OnlyLogger(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.mistakes")


class OfChronopype(type("TickProcessor", (), {"__module__": "chronopype.processors.base"})):
    def __repr__(self) -> str:
        return "a processor of chronopype"


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen(TickProcessor):
    url: str = ""


class LateCheck(OnlyLogger, Checks):
    """Has a mixin whose hooks the base class hides."""


class OnlyCheck(NetworkProcessor):
    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED


class Priced(TickProcessor):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


class LostFirst(asyncio.Protocol, Feed):
    """Has the other `connection_lost`, which does nothing."""


async def sets_heard(self: Any) -> None:
    self.heard = True


def interval(self: Any) -> float:
    return 5.0


def assigned(name: str, value: object) -> type[Feed]:
    """Make a class to which a value is assigned later."""
    kind: type[Feed] = type("P", (Feed,), {})
    setattr(kind, name, value)
    return kind


def with_attribute(name: str, value: object) -> Feed:
    made = feed()
    setattr(made, name, value)
    return made


class Unsendable(Feed):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = path.open("w")  # the test closes it


def add_twice() -> None:
    here, one = clock(), Feed()
    here.add_processor(one)
    here.add_processor(one)


def add_two_of_a_name() -> None:
    here = clock()
    here.add_processor(Feed(), name="a")
    here.add_processor(Feed(), name="a")


def pause_unknown() -> None:
    here = clock()
    here.add_processor(Feed(), name="feed")
    here.pause_processor("fed")


def plain_with() -> None:
    with clock():  # type: ignore[unreachable]
        pass


async def async_callback(processor: object, error: object) -> None: ...


def short_callback(error: object) -> None: ...


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    # Settings and arguments
    "tick_size is a text": (
        lambda: config(tick_size="0.5"),
        ConfigError,
        "ClockConfig.tick_size = '0.5': must be a number",
    ),
    "a misspelt setting": (
        lambda: config(tick_sise=0.5),
        ConfigError,
        "ClockConfig.tick_sise = 0.5: no such setting; did you mean 'tick_size'?",
    ),
    "the mode is a text": (
        lambda: ClockConfig(clock_mode="realtime"),  # type: ignore[arg-type]
        ConfigError,
        "ClockConfig.clock_mode = 'realtime': must be one of ClockMode.REALTIME (1), "
        "ClockMode.BACKTEST (2)",
    ),
    "a misspelt policy": (
        lambda: Supervision(loop_stall_timeot=5),  # type: ignore[call-arg]
        ConfigError,
        "Supervision.loop_stall_timeot = 5: no such setting; did you mean 'loop_stall_timeout'?",
    ),
    "a policy is a dict": (
        lambda: clock(supervision={"stop_grace": 2}),
        ConfigError,
        "RealtimeClock.supervision = {'stop_grace': 2}: must be a Supervision; write "
        "Supervision(stop_grace=2)",
    ),
    "an async error callback": (
        lambda: clock(error_callback=async_callback),
        ConfigError,
        "RealtimeClock.error_callback = <function async_callback at >: is a coroutine function, "
        "which nobody would await; pass a plain function",
    ),
    "an error callback of one argument": (
        lambda: clock(error_callback=short_callback),
        ConfigError,
        "RealtimeClock.error_callback = <function short_callback at >: takes (error: 'object') -> "
        "'None', but is called with processor, exception",
    ),
    "an event callback of no argument": (
        lambda: clock().events.subscribe(list.clear.__get__([])),
        TypeError,
        "subscribe: <built-in method clear of list object at > takes (), but is called with event",
    ),
    "a subscriber of one argument": (
        lambda: clock().add_subscriber_with_callback(
            RealtimeClock.tick_publication, short_callback
        ),
        TypeError,
        "add_subscriber_with_callback: <function short_callback at > takes (error: 'object') -> "
        "'None', but is called with event, tag, clock",
    ),
    "state_dir is a file": (
        lambda: clock(state_dir="/etc/passwd"),
        ConfigError,
        "RealtimeClock.state_dir = '/etc/passwd': cannot be written to: [Errno 17] File exists: "
        "'/etc/passwd'",
    ),
    "a misspelt launcher": (
        lambda: RealtimeClock(config(), launcher="forksever"),
        ConfigError,
        "RealtimeClock.launcher = 'forksever': must be one of forkserver, spawn, inline",
    ),
    "events are named by a text": (
        lambda: clock().events.subscribe(print, "WorkerDied"),  # type: ignore[arg-type]
        TypeError,
        "subscribe: 'WorkerDied' is not an event class; pass classes from chronopype_mp.events, "
        "such as WorkerDied, each as an argument of its own",
    ),
    "a plain with": (
        plain_with,
        TypeError,
        "use `async with RealtimeClock(config) as clock` in a coroutine, not `with`",
    ),
    "an interval is a text": (
        lambda: setattr(Feed(), "check_network_interval", "5"),
        ConfigError,
        "Feed.check_network_interval = '5': must be a number",
    ),
    "an interval is a text in a class": (
        lambda: feed(check_network_interval="5"),
        ConfigError,
        "P.check_network_interval = '5': must be a number",
    ),
    "an interval is a property": (
        lambda: feed(check_network_interval=property(interval)),
        ConfigError,
        "P.check_network_interval = <property object at >: must be a value, not a property or a "
        "method; to change it at run time, assign to self.check_network_interval",
    ),
    "an interval is a method": (
        lambda: feed(check_network_interval=interval),
        ConfigError,
        "P.check_network_interval = <function interval at >: must be a value, not a property or a "
        "method; to change it at run time, assign to self.check_network_interval",
    ),
    "ticks_while_disconnected is a text": (
        lambda: with_attribute("ticks_while_disconnected", "no"),
        ConfigError,
        "P.ticks_while_disconnected = 'no': must be True or False",
    ),
    "ticks_while_disconnected is a text in a class": (
        lambda: feed(ticks_while_disconnected="no"),
        ConfigError,
        "P.ticks_while_disconnected = 'no': must be True or False",
    ),
    "a setting is assigned to a class": (
        lambda: add(assigned("check_network_interval", 5)()),
        HookError,
        "P.check_network_interval = 5 was assigned after the class was created, so a worker does "
        "not get it; set it in the body of the class, or on the object",
    ),
    "a setting is assigned to a spec's class": (
        lambda: add(ProcessorSpec(target=assigned("stale_after", None))),
        HookError,
        "P.stale_after = None was assigned after the class was created, so a worker does not get "
        "it; set it in the body of the class, or on the object",
    ),
    # What is added
    "a class is added": (
        lambda: add(Feed),
        TypeError,
        "<class 'tests.test_mistakes.Feed'> is neither a TickProcessor nor a ProcessorSpec; pass "
        "an instance: Feed()",
    ),
    "a processor of the other package": (
        lambda: add(OfChronopype()),
        TypeError,
        "a processor of chronopype is neither a TickProcessor nor a ProcessorSpec; its "
        "TickProcessor is that of chronopype.processors.base, use chronopype_mp's",
    ),
    "two of a name": (
        add_two_of_a_name,
        ClockError,
        "the name 'a' is taken by a worker that is not stopped; give each a name of its own, or "
        "none",
    ),
    "an object twice": (
        add_twice,
        ClockError,
        "<tests.test_mistakes.Feed object at > is already registered to this clock; add another "
        "object, since each worker has its own",
    ),
    "an unknown name": (
        pause_unknown,
        ClockError,
        "'fed' is not in this clock; its workers are: 'feed'",
    ),
    "a name with a control character": (
        lambda: add(Feed(), name="a\x1b[2J"),
        ConfigError,
        "add_processor.name = 'a\\x1b[2J': must be 1 to 100 printable characters",
    ),
    # Specs
    "a spec without a colon": (
        lambda: ProcessorSpec(target="my.module.Feed"),
        ConfigError,
        "ProcessorSpec.target = 'my.module.Feed': must look like \"package.module:Class\"",
    ),
    "a spec of no module": (
        lambda: add(ProcessorSpec(target="nosuch.module:Feed")),
        ConfigError,
        "ProcessorSpec.target = 'nosuch.module:Feed': there is no module 'nosuch' on sys.path",
    ),
    "a spec of a misspelt class": (
        lambda: add(ProcessorSpec(target="tests.test_mistakes:Fed")),
        ConfigError,
        "ProcessorSpec.target = 'tests.test_mistakes:Fed': tests.test_mistakes has no 'Fed'; did "
        "you mean 'Feed'?",
    ),
    "a spec of something else": (
        lambda: add(ProcessorSpec(target=RuntimeError)),  # type: ignore[arg-type]
        ConfigError,
        "ProcessorSpec.target = <class 'RuntimeError'>: is no TickProcessor, nor a function that "
        "returns one",
    ),
    "a misspelt option": (
        lambda: add(ProcessorSpec(target=Priced, options={"ulr": "x"})),
        ConfigError,
        "ProcessorSpec.options = {'ulr': 'x'}: Priced(url: 'str') -> 'None' cannot be called with "
        "these: missing a required argument: 'url'; did you mean 'url'?",
    ),
    "a hook of a spec's class": (
        lambda: add(ProcessorSpec(target=OnlyLogger)),
        HookError,
        "OnlyLogger does not override check_network; add `async def check_network(self)`, which "
        "returns a NetworkStatus",
    ),
    "a frozen dataclass": (
        lambda: add(Frozen()),
        HookError,
        "Frozen is frozen, but its hooks and its worker set attributes of it; leave out "
        "frozen=True",
    ),
    "a spec of a frozen dataclass": (
        lambda: add(ProcessorSpec(target=Frozen)),
        HookError,
        "Frozen is frozen, but its hooks and its worker set attributes of it; leave out "
        "frozen=True",
    ),
    # Hooks that are missing
    "no check_network": (
        lambda: add(OnlyLogger()),
        HookError,
        "OnlyLogger does not override check_network; add `async def check_network(self)`, which "
        "returns a NetworkStatus",
    ),
    "no logger": (
        lambda: add(OnlyCheck()),
        HookError,
        "OnlyCheck does not override logger; add `@classmethod def logger(cls)`, which returns "
        "logging.getLogger(...)",
    ),
    # Coroutine or not
    "a plain check_network": (
        lambda: add(feed(check_network=sync_check_network)),
        HookError,
        "P.check_network is a plain function, but it is awaited; make it "
        "`async def check_network(self)`",
    ),
    "a plain start_network": (
        lambda: add(feed(start_network=sync_start_network)),
        HookError,
        "P.start_network is a plain function, but it is awaited; make it "
        "`async def start_network(self)`",
    ),
    "a plain run_network that never returns": (
        lambda: add(feed(run_network=endless)),
        HookError,
        "P.run_network is a plain function, but it is awaited; make it "
        "`async def run_network(self)`",
    ),
    "a plain async_tick": (
        lambda: add(feed(async_tick=one_argument)),
        HookError,
        "P.async_tick is a plain function, but it is awaited; make it "
        "`async def async_tick(self, timestamp)`",
    ),
    "an async tick": (
        lambda: add(feed(tick=async_one)),
        HookError,
        "P.tick is `async def`, but nobody awaits it; rename it to async_tick",
    ),
    "an async tick of an object": (
        lambda: add(with_attribute("tick", functools.partial(async_one, None))),
        HookError,
        "P.tick is `async def`, but nobody awaits it; rename it to async_tick",
    ),
    "an async start": (
        lambda: add(feed(start=async_one)),
        HookError,
        "P.start is `async def`, but nobody awaits it; make it `def start(self, timestamp)`",
    ),
    "an async stop": (
        lambda: add(feed(stop=async_one)),
        HookError,
        "P.stop is `async def`, but nobody awaits it; make it `def stop(self)`",
    ),
    "a tick that yields": (
        lambda: add(feed(tick=generator)),
        HookError,
        "P.tick contains `yield`, so calling it runs nothing; make it a "
        "`def tick(self, timestamp)`",
    ),
    # Arguments
    "a tick of two arguments": (
        lambda: add(feed(tick=two_arguments)),
        HookError,
        "P.tick takes (ts: 'float', extra: 'object') -> 'None', but is called with timestamp; "
        "make it `def tick(self, timestamp)`",
    ),
    "an async_tick without one": (
        lambda: add(feed(async_tick=async_no_argument)),
        HookError,
        "P.async_tick takes () -> 'None', but is called with timestamp; make it "
        "`async def async_tick(self, timestamp)`",
    ),
    "a start without one": (
        lambda: add(feed(start=no_argument)),
        HookError,
        "P.start takes () -> 'None', but is called with timestamp; make it "
        "`def start(self, timestamp)`",
    ),
    "a start_network with one": (
        lambda: add(feed(start_network=argument_too_many)),
        HookError,
        "P.start_network takes (url: 'str') -> 'None', but is called with no arguments; make it "
        "`async def start_network(self)`",
    ),
    # Names
    "a misspelt check_network": (
        lambda: add(feed(check_netwrok=async_no_argument)),
        HookError,
        "P.check_netwrok is not a hook: did you mean check_network? A method or attribute of your "
        "own needs a name that is less alike",
    ),
    "a misspelt tick": (
        lambda: add(feed(tcik=one_argument)),
        HookError,
        "P.tcik is not a hook: did you mean tick? A method or attribute of your own needs a name "
        "that is less alike",
    ),
    "a misspelt async_tick": (
        lambda: add(feed(asynctick=async_one)),
        HookError,
        "P.asynctick is not a hook: did you mean async_tick? A method or attribute of your own "
        "needs a name that is less alike",
    ),
    "a hook with its words in another order": (
        lambda: add(feed(network_start=async_no_argument)),
        HookError,
        "P.network_start is not a hook: did you mean start_network? A method or attribute of your "
        "own needs a name that is less alike",
    ),
    "a setting with its words in another order": (
        lambda: add(feed(network_check_timeout=3.0)),
        HookError,
        "P.network_check_timeout is not a setting: did you mean check_network_timeout? A method or "
        "attribute of your own needs a name that is less alike",
    ),
    "where a setting is kept, in a class": (
        lambda: add(feed(_check_network_interval=3)),
        HookError,
        "P._check_network_interval is where NetworkProcessor keeps its own state; set "
        "check_network_interval instead",
    ),
    "where a setting is kept, in a hook": (
        lambda: add(feed(start_network=sets_interval)),
        HookError,
        "sets_interval sets self._check_network_interval, in which NetworkProcessor keeps its own "
        "state; set self.check_network_interval",
    ),
    "check_network of a mixin that comes too late": (
        lambda: add(LateCheck()),
        HookError,
        "LateCheck does not override check_network; Checks defines it, but comes after the "
        "processor classes among the bases of LateCheck; put it before them",
    ),
    "a misspelt class attribute": (
        lambda: add(feed(start_network_timeot=1.0)),
        HookError,
        "P.start_network_timeot is not a setting: did you mean start_network_timeout? A method or "
        "attribute of your own needs a name that is less alike",
    ),
    "a misspelt attribute": (
        lambda: add(with_attribute("check_network_intervall", 3)),
        HookError,
        "P.check_network_intervall is not a setting: did you mean check_network_interval? A method "
        "or attribute of your own needs a name that is less alike",
    ),
    # What hides something
    "a hook is hidden by a value": (
        lambda: add(with_attribute("start", 3.5)),
        HookError,
        "P.start = 3.5 hides the hook start(); rename the attribute, or define "
        "`def start(self, timestamp)`",
    ),
    "a hook is hidden by None": (
        lambda: add(feed(run_network=None)),
        HookError,
        "P.run_network = None hides the hook run_network(); leave it out, or define "
        "`async def run_network(self)`",
    ),
    "a hook that is required is None": (
        lambda: add(feed(check_network=None)),
        HookError,
        "P.check_network = None hides the hook check_network(); leave it out, or define "
        "`async def check_network(self)`",
    ),
    "call is a flag": (
        lambda: add(with_attribute("call", False)),
        HookError,
        "P.call = False hides TickProcessor.call(), which is not a hook, but there to be called; "
        "use another name",
    ),
    "call is a method of a TickProcessor": (
        lambda: add(type("P", (TickProcessor,), {"call": one_argument})()),
        HookError,
        "P.call hides TickProcessor.call(), which is not a hook, but there to be called; use "
        "another name, or call super().call() in it",
    ),
    "a hook is remote": (
        lambda: add(feed(stop=remote(lambda self: None))),
        HookError,
        "P.stop is a hook, which the framework calls; take @remote away from it",
    ),
    "check_now is a flag": (
        lambda: add(feed(check_now=False)),
        HookError,
        "P.check_now = False hides NetworkProcessor.check_now(), which is not a hook, but there to "
        "be called; use another name",
    ),
    "check_now is a flag of an object": (
        lambda: add(with_attribute("check_now", False)),
        HookError,
        "P.check_now = False hides NetworkProcessor.check_now(), which is not a hook, but there to "
        "be called; use another name",
    ),
    "check_now is taken for a hook": (
        lambda: add(feed(check_now=async_no_argument)),
        HookError,
        "P.check_now hides NetworkProcessor.check_now(), which is not a hook, but there to be "
        "called; did you mean check_network? Otherwise use another name, or call "
        "super().check_now() in it",
    ),
    "connection_lost is taken for a hook": (
        lambda: add(feed(connection_lost=one_argument)),
        HookError,
        "P.connection_lost hides NetworkProcessor.connection_lost(), which is not a hook, but "
        "there to be called; did you mean on_disconnected? Otherwise use another name, or call "
        "super().connection_lost() in it",
    ),
    "connection_lost of another base class": (
        lambda: add(LostFirst()),
        HookError,
        "LostFirst.connection_lost hides NetworkProcessor.connection_lost(), which is not a hook, "
        "but there to be called; did you mean on_disconnected? Otherwise use another name, or call "
        "super().connection_lost() in it",
    ),
    "a method spawn": (
        lambda: add(feed(spawn=argument_too_many)),
        HookError,
        "P.spawn hides NetworkProcessor.spawn(), which is not a hook, but there to be called; use "
        "another name, or call super().spawn() in it",
    ),
    "a hook sets heard": (
        lambda: add(feed(run_network=sets_heard)),
        HookError,
        "sets_heard sets self.heard, which hides NetworkProcessor.heard(), which is not a hook, "
        "but there to be called; use another name",
    ),
    "wants_ticks is a method": (
        lambda: add(feed(wants_ticks=interval)),
        HookError,
        "P.wants_ticks is read like an attribute, before each tick; make it a property, or True or "
        "False",
    ),
    "logger is a logger": (
        lambda: add(feed(logger=logging.getLogger("root"))),
        HookError,
        "P.logger = <RootLogger root (WARNING)> hides the hook logger(); rename the attribute, or "
        "define `def logger(self)`",
    ),
    "check_network is a property": (
        lambda: add(feed(check_network=property(lambda self: NetworkStatus.CONNECTED))),
        HookError,
        "P.check_network is a property, but it is a hook; make it `async def check_network(self)`",
    ),
    "a property is hidden": (
        lambda: add(feed(state="idle")),
        HookError,
        "P.state hides the property state, which shows what the worker reported; use another name",
    ),
    "an attribute of the base class": (
        lambda: add(feed(__init__=sets_host)),
        HookError,
        "sets_host sets self._host, in which TickProcessor keeps its own state; use another name",
    ),
    "a class attribute of the base class": (
        lambda: add(feed(_host="example.com")),
        HookError,
        "P._host hides an attribute of TickProcessor that is not meant to be overridden; use "
        "another name",
    ),
    "a private method of the base class": (
        lambda: add(feed(_drop=no_argument)),
        HookError,
        "P._drop hides an attribute of NetworkProcessor that is not meant to be overridden; use "
        "another name",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_refused_where_it_is_made(mistake: str) -> None:
    make, kind, message = REFUSED[mistake]
    with pytest.raises(kind) as caught:
        make()
    assert PLACE.sub("", str(caught.value)) == message


def test_a_refusal_says_where_the_hook_is() -> None:
    with pytest.raises(HookError, match=r"\(\S+/test_mistakes.py, line \d+\)$") as caught:
        add(feed(tick=async_one))
    assert (caught.value.processor, caught.value.attribute) == ("P", "tick")


def test_a_refused_processor_is_in_no_clock() -> None:
    one = OnlyLogger()
    here = clock()
    with pytest.raises(HookError):
        here.add_processor(one)
    assert here.processors == []
    OnlyLogger.check_network = Feed.check_network  # type: ignore[method-assign]
    try:
        here.add_processor(one)
    finally:
        del OnlyLogger.check_network
    assert here.processors == [one]


def test_a_setting_assigned_to_a_class_is_refused_after_others_of_the_class_were_added() -> None:
    kind: type[Feed] = type("P", (Feed,), {"stable_after": 1.0})
    add(kind())
    kind.stable_after = 2.0
    with pytest.raises(HookError, match=r"^P\.stable_after = 2\.0 was assigned after"):
        add(kind())


def test_a_setting_assigned_to_the_base_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkProcessor, "stable_after", 2.0)
    with pytest.raises(HookError, match=r"^NetworkProcessor\.stable_after = 2\.0 was assigned"):
        add(feed())
    add(feed(stable_after=1.0))


def test_a_setting_that_a_class_hides_later_is_named_when_it_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind: type[Feed] = type("P", (Feed,), {})
    here, one = clock(), kind()
    here.add_processor(one)
    kind.stable_after = 2.0
    one.stable_after = 3.0
    (message,) = caplog.messages
    assert message.startswith("worker 'P' does not get P.stable_after, which was set after add_pro")


def test_a_hook_hidden_on_one_object_is_refused_after_another_one_had_it() -> None:
    kind = type(feed())
    one, other = kind(), kind()
    one.tick = lambda timestamp: None  # type: ignore[method-assign]
    other.tick = None  # type: ignore[method-assign, assignment]
    add(one)
    with pytest.raises(HookError, match=r"^P\.tick = None hides the hook tick\(\); leave it out"):
        add(other)


def test_every_public_name_of_the_base_classes_is_judged() -> None:
    """A new one must be a hook, a setting, or a name that is not to be hidden."""
    names = {name for base in (TickProcessor, NetworkProcessor) for name in vars(base)}
    hooks = {hook.name for hook in HOOKS + NETWORK_HOOKS}
    overridable = {
        *("LOGGER_NAME", "record_error", "record_execution", "wants_ticks"),
        *("message_types", "on_message", "output_types", "subscribe", "unsubscribe"),
        *("snapshot_interval", "snapshot_version", "mirrored"),
    }
    judged = hooks | SETTINGS.keys() | CALLS.keys() | {*SHOWN} | overridable
    assert {name for name in names if not name.startswith("_")} <= judged


def test_an_attribute_that_cannot_travel_is_named(tmp_path: Path) -> None:
    one = Unsendable(tmp_path / "file")
    with contextlib.closing(one.file), pytest.raises(TransferError) as caught:
        RealtimeClock(config()).add_processor(one)
    assert str(caught.value).startswith(
        "Unsendable.file cannot be sent to a worker process: an open file belongs to this process. "
    )
    assert "Create it in start() or start_network(), which run in the worker" in str(caught.value)


# What may be meant is warned of


def changing_a_variable() -> tuple[TickProcessor, str]:
    seen: list[float] = []

    class P(TickProcessor):
        def tick(self, timestamp: float) -> None:
            seen.append(timestamp)

    return P(), (
        "changing_a_variable.<locals>.P.tick changes the variable 'seen' in the worker process, "
        "which has its own; the one in this process stays as it is. To get data out of a worker, "
        "call self.emit(...) there and read clock.outputs(...) here; between workers, use "
        "self.subscribe(...); to ask a worker, await handle.call(...)."
    )


class LateTick:
    def tick(self, timestamp: float) -> None: ...


class LateSetting:
    stale_after = 3.0


WARNED: dict[str, tuple[Callable[[], TickProcessor], str]] = {
    "both ticks": (
        lambda: feed(tick=one_argument, async_tick=async_one),
        "P.tick is never called: P overrides async_tick, too, which is called instead; remove one "
        "of them, or call self.tick(timestamp) in async_tick",
    ),
    "another framework's hook": (
        lambda: feed(on_tick=one_argument),
        "P.on_tick is never called: it is not a hook; did you mean tick?",
    ),
    "async_start_network": (
        lambda: feed(async_start_network=async_no_argument),
        "P.async_start_network is never called: it is not a hook; did you mean start_network?",
    ),
    "a reader task": (
        lambda: feed(start_network=starts_task),
        f"P.start_network {LONE_TASK}",
    ),
    "a reader task of the event loop": (
        lambda: feed(on_connected=starts_task_of_loop),
        f"P.on_connected {LONE_TASK}",
    ),
    "a reader task beside which something else is waited for": (
        lambda: feed(start_network=starts_task_and_waits),
        f"P.start_network {LONE_TASK}",
    ),
    "a task that is kept nowhere": (
        lambda: feed(start_network=starts_task_for_nobody),
        f"P.start_network {LONE_TASK}",
    ),
    "a hook of a mixin that comes too late": (
        lambda: type("P", (Feed, LateTick), {})(),
        "P.tick is that of the base class: LateTick defines it, but comes after the processor "
        "classes among the bases of P; put it before them",
    ),
    "a setting of a mixin that comes too late": (
        lambda: type("P", (Feed, LateSetting), {})(),
        "P.stale_after is that of the base class: LateSetting defines it, but comes after the "
        "processor classes among the bases of P; put it before them",
    ),
    "a method ticks": (
        lambda: feed(ticks=one_argument),
        "P.ticks is not a hook, and no method of P calls it; did you mean tick?",
    ),
    "a method run": (
        lambda: feed(run=async_no_argument),
        "P.run is not a hook, and no method of P calls it; did you mean run_network?",
    ),
    "a setting without its network": (
        lambda: feed(check_interval=3.0),
        "P.check_interval is not a setting, and no method of P reads it; did you mean "
        "check_network_interval?",
    ),
    "an object's setting without its network": (
        lambda: with_attribute("stop_timeout", 3.0),
        "P.stop_timeout is not a setting, and no method of P reads it; did you mean "
        "stop_network_timeout?",
    ),
    "a network setting without a network": (
        lambda: type("P", (TickProcessor,), {"stale_after": 30.0})(),
        "P.stale_after has no effect: it is a setting of NetworkProcessor, from which this class "
        "is not derived",
    ),
    "a network hook without a network": (
        lambda: type("P", (TickProcessor,), {"start_network": async_no_argument})(),
        "P.start_network is never called: it is a hook of NetworkProcessor, from which this class "
        "is not derived",
    ),
}


@pytest.mark.parametrize("mistake", WARNED)
def test_what_may_be_meant_is_warned_of(mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    make, message = WARNED[mistake]
    add(make())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert PLACE.sub("", record.getMessage()) == f"RealtimeClock: worker 'P': {message}"


def test_a_variable_that_a_worker_changes_in_its_copy_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    processor, message = changing_a_variable()
    RealtimeClock(config()).add_processor(processor)
    (record,) = caplog.records
    assert record.getMessage() == f"RealtimeClock: worker 'P': {message}"


def test_a_worker_in_this_process_has_no_copy(caplog: pytest.LogCaptureFixture) -> None:
    add(changing_a_variable()[0])
    assert caplog.records == []


@pytest.mark.parametrize(
    "members",
    [
        {"start_network": starts_owned_tasks},
        {"start_network": watches_task},
        {"start_network": awaits_task},
        {"start_network": awaits_own_task},
        {"start_network": awaits_task_at_once},
        {"start_network": gathers_tasks},
        {"on_connected": returns_task},
        {"start_network": starts_task, "run_network": async_no_argument},
        {"subscribe": starts_task},
    ],
)
def test_a_task_whose_end_somebody_notices_is_no_mistake(
    members: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    add(feed(**members))
    assert caplog.records == []


@pytest.mark.parametrize("value", [0, -5, 0.05])
def test_a_setting_that_is_too_short_is_warned_of(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    one = Feed()
    one.check_network_interval = value
    assert one.check_network_interval == 0.1
    assert caplog.messages == [
        f"Feed.check_network_interval = {value}: is too short, so it is set to 0.1 s"
    ]


class Queued(Feed):
    def __init__(self, items: queue.Queue[float]) -> None:
        super().__init__()
        self.items = items


def test_a_queue_that_both_sides_hold_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        shared: queue.Queue[float] = queue.Queue()
        here = RealtimeClock(config())
        here.add_processor(Queued(shared), name="both")
        here.add_processor(Queued(queue.Queue()), name="the processor alone")

    run(scenario())
    assert caplog.messages == [
        "RealtimeClock: worker 'both': Queued.items, which a variable of yours holds, too, is "
        "copied to the worker process: what either side does to it, the other does not see. To get "
        "data out of a worker, call self.emit(...) there and read clock.outputs(...) here; between "
        "workers, use self.subscribe(...); to ask a worker, await handle.call(...)."
    ]


# What is no mistake


def decorated(hook: Callable[[Any], Awaitable[NetworkStatus]]) -> Any:
    def wrapper(self: Any) -> Awaitable[NetworkStatus]:
        return hook(self)

    return wrapper


def in_a_thread(hook: Callable[[Any], None]) -> Any:
    @functools.wraps(hook)
    def wrapper(self: Any) -> Awaitable[None]:
        return asyncio.to_thread(hook, self)

    return wrapper


class Unusual(Feed):
    """What is unusual, and works."""

    table: ClassVar[dict[str, int]] = {}
    ticker = "BTC"
    checks = 0

    def __init__(self) -> None:
        self.top = self.stat = self.pick = 1  # no super().__init__()

    @decorated
    async def check_network(self) -> NetworkStatus:
        self.check_network_timeouts = self.check_network_timeouts + 1
        return NetworkStatus.CONNECTED

    check_network_timeouts = 0

    def start_network(self) -> Any:
        return asyncio.sleep(0)  # returns at once

    @in_a_thread
    def stop_network(self) -> None:
        self.closed = True

    def start(self, timestamp: float, *more: object) -> None:
        super().start(timestamp)
        self.on_start()
        self.strat()

    def on_start(self) -> None: ...

    def strat(self) -> None: ...

    def on_tick(self, timestamp: float) -> None: ...

    def dispatch(self, kind: str) -> None:
        getattr(self, f"on_{kind}")(0.0)

    def post(self) -> None: ...

    def ticks(self, count: int) -> None: ...

    def restart(self) -> None: ...

    def stopped(self) -> bool:
        return True

    def tick(self, timestamp: float) -> None: ...

    async def async_tick(self, timestamp: float) -> None:
        self.tick(timestamp)

    def check(self) -> None: ...

    def start_all_networks(self) -> None: ...


class Extended(Feed):
    """Extends what is there to be called, and has helpers with common names."""

    check_interval = 5.0
    check_network_interval = check_interval
    start_timeout = 3.0
    backoff = 2.0
    losses = 0

    @property
    def wants_ticks(self) -> bool:
        return super().wants_ticks and self.losses < 10

    def connection_lost(self, reason: str | BaseException | None = None) -> None:
        self.losses += 1
        super().connection_lost(reason)

    async def start_network(self) -> None:
        await asyncio.wait_for(self.run(), self.start_timeout)

    async def run(self) -> None: ...

    def ticks(self, symbol: str) -> int:
        return len(symbol)


class Host:
    _host = ""


class Elsewhere(Feed):
    """Sets attributes of other objects that are named as ours."""

    async def start_network(self) -> None:
        class Client:
            def __init__(self) -> None:
                self._host = "example.com"

        def name(self: Host) -> None:
            self._host = "example.com"

        self.client = Client()
        name(Host())
        self.make(Host())

    @staticmethod
    def make(client: Host) -> None:
        client._host = "example.com"


class Mixed(Checks, OnlyLogger):
    """Has its hooks from a mixin."""


class LostLast(Feed, asyncio.Protocol):
    """A callback of another library reports the loss."""


class Plain(TickProcessor):
    """Has names that mean something to a `NetworkProcessor` alone."""

    network_status = "none"

    def spawn(self) -> None: ...

    async def run(self) -> None: ...


class FromElsewhere:
    def on_connect(self) -> None:
        """Another library's hook, which looks like one of ours."""


class Both(FromElsewhere, Feed):
    def on_connect(self) -> None: ...


@pytest.mark.parametrize("kind", [Unusual, Both, Extended, Elsewhere, LostLast, Mixed, Plain])
def test_what_is_no_mistake_is_left_alone(
    kind: type[TickProcessor], caplog: pytest.LogCaptureFixture
) -> None:
    add(kind())
    add(ProcessorSpec(target=kind))
    assigned = Feed()
    assigned.tick = lambda timestamp: None  # type: ignore[method-assign]
    add(assigned)
    assert caplog.records == []


def test_threads_of_an_inline_worker_may_report_after_its_end() -> None:
    async def scenario() -> None:
        one = Feed()
        bench = Bench()
        async with bench.clock:
            bench.clock.add_processor(one, name="a")
            with pytest.raises(RuntimeError, match="works in the worker only"):
                one.check_now()
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)
        for call in (one.connection_lost, one.check_now, one.heard):
            await asyncio.to_thread(call)

    run(scenario())


# Runs


def test_the_clock_must_be_entered() -> None:
    async def scenario() -> str:
        with pytest.raises(ClockError) as caught:
            await clock().run_til(time.time() + 1.0)
        return str(caught.value)

    assert run(scenario()) == (
        "Clock must be started in a context; run it inside of "
        "`async with RealtimeClock(config) as clock`"
    )


@pytest.mark.parametrize("target", ["loop", "duration"])
def test_a_target_on_another_time_scale_is_refused(target: str) -> None:
    async def scenario() -> None:
        async with clock() as here:
            number = asyncio.get_running_loop().time() + 2.0 if target == "loop" else 3.0
            with pytest.raises(ConfigError) as caught:
                await here.run_til(number)
        expected = (
            rf"run_til.target_time = {re.escape(str(number))}: is not on the scale of this clock, "
            r"which is wall time, now \d+; pass time.time\(\) \+ seconds, or set start_time of the "
            r"config to a time on the other scale"
        )
        assert re.fullmatch(expected, str(caught.value))

    run(scenario())


def test_wall_time_is_refused_by_a_clock_on_the_event_loops_time() -> None:
    async def scenario() -> None:
        start = asyncio.get_running_loop().time()
        end = time.time() + 5.0
        for values in ({}, {"end_time": end}):
            here = RealtimeClock(config(start_time=start, **values), launcher="inline")
            async with here:
                attempt = here.run() if values else here.run_til(end)
                with pytest.raises(ConfigError, match=r"which is the event loop's time") as caught:
                    await attempt
            assert caught.value.field == ("end_time" if values else "target_time")

    run(scenario())


def test_a_target_in_the_past_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench(wall=WALL)
        async with bench.clock:
            await bench.clock.run_til(WALL - 2.0)
            assert bench.clock.tick_counter == 0

    run(scenario())
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == (
        "RealtimeClock: run_til.target_time = 999998.0: is 2.0 s in the past, so nothing is "
        "ticked; pass a time to come"
    )


def test_a_run_without_processors_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench()
        clock = bench.clock
        clock.remove_subscriber(clock.tick_publication, bench.ticked)
        async with clock, bench.running():
            await asyncio.sleep(0)  # yields, so that the run begins

    run(scenario())
    assert caplog.messages == [
        "RealtimeClock: the run begins without processors, so nobody is ticked; call "
        "add_processor()"
    ]


def test_a_run_without_processors_may_tick_subscribers(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench()
        async with bench.clock, bench.running():
            await bench.tick()

    run(scenario())
    assert caplog.messages == []


def test_a_run_without_await_is_warned_of_by_python() -> None:
    async def scenario() -> None:
        async with clock() as here:
            here.run_til(time.time() + 1.0)  # type: ignore[unused-coroutine]

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(scenario())
    assert [str(each.message) for each in seen] == [
        "coroutine 'BaseClock.run_til' was never awaited"
    ]


def test_a_handle_of_a_clock_that_was_left_says_so() -> None:
    async def scenario() -> None:
        async with clock() as here:
            handle = here.add_processor(Feed(), name="a")
            await handle.wait_ready()
        late = here.add_processor(Feed(), name="b")
        for attempt, worker, what in (
            (handle.restart(), "a", "restart"),
            (late.wait_ready(), "b", "wait_ready"),
        ):
            with pytest.raises(WorkerError) as caught:
                await attempt
            assert str(caught.value) == (
                f"worker '{worker}': {what}() needs an entered clock, which has not been left; "
                "call it inside of `async with ... as clock`"
            )

    run(scenario())


# What shows in the worker


class NoSuperStart(Feed):
    def start(self, timestamp: float) -> None:
        self.started = True


class ReturnsNone(Feed):
    async def check_network(self) -> NetworkStatus:  # type: ignore[return]
        pass


class ReturnsTrue(Feed):
    async def check_network(self) -> NetworkStatus:
        return True  # type: ignore[return-value]


class ReturnsAnother(Feed):
    async def check_network(self) -> NetworkStatus:
        names = {"CONNECTED": 3}
        other = enum.Enum("NetworkStatus", names, module="chronopype.processors.network")
        return other["CONNECTED"]  # type: ignore[return-value]


class NeverConnected(Feed):
    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED


class Refused(Feed):
    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        raise ConnectionRefusedError("nope")


def no_key() -> TickProcessor:
    raise RuntimeError("no key")


IN_THE_WORKER: dict[str, tuple[Callable[[], TickProcessor | ProcessorSpec], str, str]] = {
    "no super().start()": (
        NoSuperStart,
        "start",
        "NoSuperStart.start has not called super().start(timestamp), so the network loop does not "
        "run; call it first",
    ),
    "check_network returns None": (
        ReturnsNone,
        "check_network",
        "ReturnsNone.check_network() returned None; it must return a NetworkStatus",
    ),
    "check_network returns True": (
        ReturnsTrue,
        "check_network",
        "ReturnsTrue.check_network() returned True; it must return a NetworkStatus",
    ),
    "check_network returns what another package defines": (
        ReturnsAnother,
        "check_network",
        "ReturnsAnother.check_network() returned <NetworkStatus.CONNECTED: 3>; it must return a "
        "NetworkStatus of chronopype_mp, but this one is of chronopype.processors.network",
    ),
    "start_network raises": (Refused, "start_network", "nope"),
}


@pytest.mark.parametrize("mistake", IN_THE_WORKER)
def test_a_mistake_that_shows_in_the_worker_is_reported_and_logged(
    mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, hook, message = IN_THE_WORKER[mistake]

    async def scenario() -> ProcessorFailed:
        bench = Bench()
        handle = bench.clock.add_processor(make(), name="a")
        async with bench.clock:
            await handle.wait_ready()
            return await bench.events.wait_for(ProcessorFailed, worker="a")

    failed = run(scenario())
    assert (failed.hook, failed.message) == (hook, message)
    logged = [record.getMessage() for record in caplog.records]
    start = f"RealtimeClock: {hook} of worker 'a' failed: {failed.type_name}: {message}"
    assert any(line.startswith(start) for line in logged)


def test_a_check_that_never_says_connected_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.clock.add_processor(NeverConnected(), name="a")
        async with bench.clock:
            await bench.events.wait_for(
                NetworkChanged,
                before=NetworkStatus.CONNECTING,
                after=NetworkStatus.NOT_CONNECTED,
            )

    run(scenario())
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert re.fullmatch(
        r"RealtimeClock: worker 'a': network CONNECTING → NOT_CONNECTED \(check_network\(\) "
        r"returned NOT_CONNECTED\); next attempt in [\d.]+ s",
        record.getMessage(),
    )


def test_a_processor_that_cannot_be_made_dies_with_the_reason() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.clock.add_processor(ProcessorSpec(target=no_key), name="a")
        async with bench.clock:
            died = await bench.events.wait_for(WorkerDied, worker="a")
        assert died.error is not None
        assert died.error.splitlines()[-1] == "RuntimeError: no key"

    run(scenario())


def test_a_super_init_that_is_missing_does_no_harm() -> None:
    class P(Feed):
        def __init__(self) -> None:
            self.x = 1

    async def scenario() -> None:
        bench = Bench()
        bench.clock.add_processor(P(), name="a")
        async with bench.clock:
            await bench.events.wait_for(NetworkChanged, after=NetworkStatus.CONNECTED)

    run(scenario())


class Keyless(TickProcessor):
    def tick(self, timestamp: float) -> None:
        prices: dict[str, float] = {}
        prices["price"]


def test_the_log_shows_where_a_tick_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench()
        handle = bench.clock.add_processor(Keyless(), name="a")
        async with bench.clock, bench.running():
            await handle.wait_ready()
            await bench.tick()
            await bench.events.wait_for(ProcessorFailed, worker="a")

    run(scenario())
    (record,) = [record for record in caplog.records if "failed" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert re.fullmatch(
        r"RealtimeClock: async_tick of worker 'a' failed: KeyError: 'price' "
        r'\[File "\S+/test_mistakes.py", line \d+, in tick: prices\["price"\]\]',
        record.getMessage(),
    )
