"""Loading: what a payload needs and the worker does not have is an error that names it."""

from __future__ import annotations

import io
import pickle

import pytest

from chronopype_mp.processors import TickProcessor
from chronopype_mp.processors.transfer import Ending, Prelude
from chronopype_mp.worker.payload import PayloadError, load


class Feed(TickProcessor):
    """A processor's class."""

    extra = 0
    limits: dict[str, int] = {}  # noqa: RUF012 -- restored by the test

    def tick(self, timestamp: float) -> None:
        """Do nothing."""


def payload(**parts: object) -> bytes:
    ending = Ending({}, [], [], [], [], Feed())._replace(**parts)  # type: ignore[arg-type]
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream)
    pickler.dump(Prelude({}, [], {}, ()))
    pickler.dump(ending)
    return stream.getvalue()


def test_attributes_are_set_and_removed_by_their_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feed, "extra", 1)  # and put it back afterwards
    monkeypatch.setitem(Feed.tick.__dict__, "calls", 1)
    attributes = [(Feed, "tick.calls", 5), (Feed, "limits", {"a": 1})]
    monkeypatch.setattr(Feed, "limits", {})
    load(payload(attributes=attributes, removed=[(Feed, "extra"), (Feed, "never_there")]))
    assert vars(Feed.tick)["calls"] == 5
    assert Feed.limits == {"a": 1}
    assert not hasattr(Feed, "extra")


def test_a_late_attribute_that_could_not_be_sent_and_is_not_made_is_named() -> None:
    load(payload(expected=[(Feed, "tick"), (Feed, "limits")]))
    with pytest.raises(PayloadError) as caught:
        load(payload(expected=[(Feed, "client")]))
    assert str(caught.value.__cause__) == (
        "Feed.client was set after the definition of Feed, and cannot be sent to a worker process; "
        "set it in start()"
    )
