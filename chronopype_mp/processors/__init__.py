"""The classes that users subclass."""

from chronopype_mp.exceptions import PermanentFailure, RetryAfter
from chronopype_mp.processors.base import TickProcessor
from chronopype_mp.processors.models import ProcessorState
from chronopype_mp.processors.network import NetworkProcessor, NetworkStatus, StartWhen
from chronopype_mp.processors.remote_methods import remote
from chronopype_mp.processors.spec import ProcessorSpec

__all__ = [
    "NetworkProcessor",
    "NetworkStatus",
    "PermanentFailure",
    "ProcessorSpec",
    "ProcessorState",
    "RetryAfter",
    "StartWhen",
    "TickProcessor",
    "remote",
]
