"""Print notices for a terminal or the journal: the channel when nothing is configured."""

import os
import sys

from agent.core.delivery import Delivered, Delivery, Retry
from agent.core.model import Notice
from agent.core.report import notice_text


class StdoutNotifier:
    """Writes one readable block a notice to standard output."""

    def __init__(self, name: str) -> None:
        self.name = name

    def notify(self, notice: Notice) -> Delivery:
        """Print the notice; a pipe that nobody reads any more, or a full disk, is worth another try."""
        encoding = sys.stdout.encoding or "utf-8"
        text = notice_text(notice).rstrip("\n") + "\n\n"
        try:
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
        except OSError as error:
            return Retry(why=f"standard output: {os.strerror(error.errno or 0).lower()}")
        except ValueError:
            return Retry(why="standard output is closed")
        return Delivered(detail="printed")
