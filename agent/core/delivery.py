"""What becomes of a notice: an attempt ends in a Delivery, the matter ends in a Receipt."""

from typing import Literal

import msgspec

from agent.core.stored import Time, check_years

# "digested": told as one of many, in the digest that the detail names. "superseded": a later notice of the incident
# says what this one would have said. "skipped": not for this channel, for the reason in the detail.
Outcome = Literal["delivered", "gave_up", "digested", "superseded", "skipped"]
OUTCOMES: dict[Outcome, str] = {
    "delivered": "delivered",
    "gave_up": "given up",
    "digested": "sent in a digest",
    "superseded": "overtaken",
    "skipped": "not sent",
}


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of what became of a notice on a channel, after how many attempts and why."""

    schema: Literal["sockmem-agent/receipt/1"] = "sockmem-agent/receipt/1"
    notice: str
    channel: str
    outcome: Outcome
    at: Time
    attempts: int
    detail: str

    def __post_init__(self) -> None:
        """Refuse an impossible year."""
        check_years(self)


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a channel's notices wait: ``<state>/channels/<name>.json``, which is there while something waits and fails.

    ``since`` is when the trouble began, ``at`` when this reason was met first.
    """

    schema: Literal["sockmem-agent/trouble/1"] = "sockmem-agent/trouble/1"
    channel: str
    why: str
    since: Time
    at: Time

    def __post_init__(self) -> None:
        """Refuse an impossible year."""
        check_years(self)


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver took it."""

    detail: str = "taken"


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Busy or out of reach: try again, no sooner than ``after_seconds`` when the receiver said so.

    ``may_be_the_notice``: the receiver may be well and choke on this one, so that others are tried before it.
    ``may_be_taken``: the receiver may have it, and its answer was lost. ``taken``: some of its recipients have it, and
    are not sent it again ("taken for 1 of 2 recipients").
    """

    why: str
    after_seconds: float | None = None
    may_be_the_notice: bool = False
    may_be_taken: bool = False
    taken: str = ""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint is dead or refuses this: somebody has to fix the configuration or the receiver."""

    why: str


Delivery = Delivered | Retry | Rejected
