"""Print notices for a terminal or the journal: the default channel."""

import os
import sys

from agent.core.delivery import Delivered, Delivery, Retry
from agent.core.model import Notice
from agent.core.report import news_text
from agent.core.settings import StdoutSettings


class StdoutNotifier:
    """Writes each notice to standard output as a block of text."""

    def __init__(self, settings: StdoutSettings) -> None:
        self.name = settings.name
        self._runbook_url = settings.runbook_url

    def notify(self, notice: Notice) -> Delivery:
        """Print the notice; a pipe without a reader or a full disk is tried again."""
        encoding = sys.stdout.encoding or "utf-8"
        text = news_text(notice, self._runbook_url).rstrip("\n") + "\n\n"
        if notice.data and _is_journal():
            text = f"<4>{text}"  # sd-daemon(3): journald reads a warning's priority before the title.
        try:
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
        except OSError as error:
            return Retry(why=f"standard output: {os.strerror(error.errno or 0).lower()}")
        except ValueError:
            return Retry(why="standard output is closed")
        return Delivered(detail="printed")


def _is_journal() -> bool:
    """Return whether standard output goes to the journal itself, systemd.exec(5): $JOURNAL_STREAM."""
    try:
        there = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"
