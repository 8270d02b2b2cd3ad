"""What an HTTP answer means: taken, busy or dead (RFC 9110, sections 10.2.3 and 15).

HTTP/1.1 429 Too Many Requests
Retry-After: 120                     or: Sun, 22 Nov 2026 15:07:39 GMT
"""

import re
from datetime import datetime, timezone
from typing import NamedTuple

from agent.core.delivery import Delivered, Delivery, Rejected, Retry

LONGEST_RETRY_AFTER_SECONDS = 3600.0
BUSY = frozenset({408, 425, 429})
CHOKED, LOST = 500, 504  # An overloaded receiver says 503, a gateway whose receiver gave no answer 504.
HINTS = {
    400: "the receiver does not understand the message",
    401: "the credentials are missing or wrong",
    403: "the receiver refuses: the token may be revoked",
    404: "nothing at this address: check the url",
    405: "this address accepts no POST: check the url",
    407: "the proxy requires credentials",
    410: "the endpoint no longer exists: create a new one and change the url",
    413: "the message is too large for the receiver",
}


class Answer(NamedTuple):
    """An answer; ``body`` is cut at 64 KiB, and None if it is incomplete. ``date`` is the receiver's clock."""

    status: int
    retry_after: str | None
    body: bytes | None
    date: str | None = None


def sort_answer(answer: Answer | Retry | Rejected, now: datetime) -> Delivery:
    """Sort HTTP's status codes into taken, busy and dead.

    A Retry-After date is compared with the receiver's own Date, else with ``now`` (aware): our clock may be wrong.
    """
    if not isinstance(answer, Answer):
        return answer
    text, status = f"HTTP {answer.status}", answer.status
    if 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
        return Delivered(detail=text)
    if status in BUSY or status >= 500:  # noqa: PLR2004 - as above
        after = retry_after_seconds(answer.retry_after, moment_of(answer.date) or now)
        return Retry(why=text, after_seconds=after, may_be_the_notice=status == CHOKED, may_be_taken=status == LOST)
    if 300 <= status < 400:  # noqa: PLR2004 - as above
        return Rejected(why=f"{text}: redirects are not followed: configure the address it leads to")
    hint = HINTS.get(status)
    return Rejected(why=f"{text}: {hint}" if hint else text)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date, capped at an hour; None when absent, unreadable or past."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,18}", text):
        seconds = float(text)
    elif moment := moment_of(text):
        seconds = (moment - now).total_seconds()
    else:
        return None
    return min(seconds, LONGEST_RETRY_AFTER_SECONDS) if seconds > 0 else None


def moment_of(text: str | None) -> datetime | None:
    """Read an HTTP date, as aware; None when absent or unreadable."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - comes with requests: agent.notifiers.import_late

    try:
        moment = parsedate_to_datetime(text or "")
    except Exception:  # noqa: BLE001 - foreign text: a year of 20 digits is an OverflowError
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
