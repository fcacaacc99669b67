"""What the status of an HTTP response means for a connection."""

from __future__ import annotations

import email.utils
import http
from collections.abc import Mapping

from chronopype_mp import PermanentFailure, RetryAfter

__all__ = ["failure_of", "retry_after"]

REFUSED = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
BUSY = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)


def failure_of(status: int, headers: Mapping[str, str], expected: str) -> Exception:
    """Return what to raise for a status that is not the expected one.

    401 and 403 are permanent. 429 and 503 with Retry-After are tried again when that says, and
    everything else after a backoff.

    Args:
        status: the status.
        headers: of the response; their names may be in any case if the mapping takes them so.
        expected: what was expected, for the reason.
    """
    try:
        named = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        named = str(status)
    if status in REFUSED:
        return PermanentFailure(f"the server answered {named}; check the user, password or key")
    if status in BUSY and (seconds := retry_after(headers)) is not None:
        return RetryAfter(seconds, f"the server answered {named}")
    return ConnectionError(f"the server answered {named}, not {expected}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After; a date is compared with that of the response itself."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):  # no dates, or one without a time zone
        return None
