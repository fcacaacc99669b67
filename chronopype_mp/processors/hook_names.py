"""The names in a processor's class that mean something to the framework, and what they stand for.

`chronopype_mp.processors.hook_checks` and `hook_hints` judge what a user's class makes of them.
"""

from __future__ import annotations

from typing import NamedTuple

from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.code_reading import function_of
from chronopype_mp.processors.network import NetworkProcessor

__all__ = [
    "CALLS",
    "HOOKS",
    "MESSAGE_HOOKS",
    "NETWORK_HOOKS",
    "SHOWN",
    "Hook",
    "base_of",
    "hidden_by_order",
    "is_own",
    "of_class",
    "order_problem",
    "static_of",
    "where",
]


class Hook(NamedTuple):
    """A method that the framework calls.

    Attributes:
        name: the method's name.
        awaited: True: it is awaited; False: it is a plain call; None: it may be either.
        arguments: the names of what it is called with.
        required: whether it must be overridden; then the rest of the sentence that says so.
    """

    name: str
    awaited: bool | None = False
    arguments: tuple[str, ...] = ()
    required: str = ""

    @property
    def definition(self) -> str:
        """How a class defines it."""
        keyword = "async def" if self.awaited else "def"
        return f"{keyword} {self.name}({', '.join(('self', *self.arguments))})"


HOOKS = (
    Hook("start", False, ("timestamp",)),
    Hook("tick", False, ("timestamp",)),
    Hook("async_tick", True, ("timestamp",)),
    Hook("stop"),
    Hook("pause"),
    Hook("resume"),
    Hook("snapshot"),
    Hook("restore", False, ("state",)),
    Hook("await_cleanup", True),
)
"""The hooks of every processor."""

MESSAGE_HOOKS = (Hook("on_message", None, ("topic", "payload")),)
"""The hook of processors that subscribe. Others may have a method of that name for themselves."""

NETWORK_HOOKS = (
    Hook(
        "check_network",
        True,
        required="add `async def check_network(self)`, which returns a NetworkStatus",
    ),
    Hook("start_network", True),
    Hook("run_network", True),
    Hook("stop_network", True),
    Hook("on_connected", None),
    Hook("on_disconnected", None),
    Hook(
        "logger",
        required="add `@classmethod def logger(cls)`, which returns logging.getLogger(...)",
    ),
)
"""The hooks of a `NetworkProcessor` besides."""

CALLS = {
    "call": "",
    "emit": "",
    "drain_outputs": "",
    "check_now": "check_network",
    "connection_lost": "on_disconnected",
    "heard": "",
    "spawn": "",
}
"""The methods that users call, and the hooks that they may be taken for."""

SHOWN = ("state", "current_timestamp", "network_status", "last_connected_timestamp")
"""Properties that show what the framework knows; a value of the user's would hide that."""


def base_of(processor: TickProcessor) -> type[TickProcessor]:
    """Return the class of ours that a processor is derived from."""
    return NetworkProcessor if isinstance(processor, NetworkProcessor) else TickProcessor


def static_of(processor: TickProcessor, name: str) -> object:
    """Return an attribute without running a property.

    `inspect.getattr_static` does the same for any object, and takes half of `add_processor`'s time.
    """
    value = of_class(type(processor), name)
    if name not in vars(processor) or hasattr(type(value), "__set__"):
        return value
    return vars(processor)[name]


def of_class(kind: type, name: str) -> object:
    """Return an attribute of a class as it is kept, for instance a property; None if there is none.

    It is the one that the class's instances have, unless they have one of their own.
    """
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)


def is_own(processor: TickProcessor, name: str) -> bool:
    """Whether an attribute is not the base class's."""
    return static_of(processor, name) is not of_class(base_of(processor), name)


def hidden_by_order(kind: type, name: str) -> type | None:
    """Return the class that defines an attribute in vain, because a base class of ours comes first.

    A class that is derived from ours always comes before it.
    """
    owners = [each for each in kind.__mro__ if name in vars(each)]
    if not owners or owners[0] not in (TickProcessor, NetworkProcessor):
        return None
    return next((each for each in owners if not issubclass(each, TickProcessor)), None)


def order_problem(kind: type, hidden: type) -> str:
    """Return what to say of a class from `hidden_by_order`."""
    return (
        f"{hidden.__name__} defines it, but comes after the processor classes among the bases of "
        f"{kind.__name__}; put it before them"
    )


def where(value: object) -> str:
    """Return where a function is defined, in brackets; "" if that is unknown."""
    function = function_of(value)
    if function is None:
        return ""
    return f" ({function.__code__.co_filename}, line {function.__code__.co_firstlineno})"
