"""What becomes of a notice: an attempt ends in a Delivery, the matter ends in a Receipt."""

from datetime import datetime
from typing import Literal

import msgspec

Outcome = Literal["delivered", "gave_up"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a channel took a notice, or that it was given up, after how many attempts and why."""

    schema: Literal["sockmem-agent/receipt/1"] = "sockmem-agent/receipt/1"
    notice: str
    channel: str
    outcome: Outcome
    at: datetime
    attempts: int
    detail: str


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver took it."""

    detail: str = "taken"


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Busy or out of reach: try again, no sooner than ``after_seconds`` when the receiver said so."""

    why: str
    after_seconds: float | None = None


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint is dead or refuses this: somebody has to mend the configuration or the receiver."""

    why: str


Delivery = Delivered | Retry | Rejected
