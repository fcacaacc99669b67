"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# A background shell starts pytest with SIGINT ignored, and an ignored signal is inherited by every
# program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Another process' turn on a shared machine says nothing about the code under test.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
