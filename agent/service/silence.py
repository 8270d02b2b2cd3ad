"""The silence in effect, as the commands write it to silence.json while the service runs."""

import logging
from datetime import datetime
from pathlib import Path

from agent.core.format import printable
from agent.core.model import Silence
from agent.core.status import silence_text
from agent.store import StoreError, read_silence
from agent.store.silence import SILENCE_FILE

log = logging.getLogger("sockmem-agent")


class Silencer:
    """Reads the file again when it has changed; ``trouble`` says that a damaged one silences nothing."""

    def __init__(self, directory: Path) -> None:
        self.trouble: str | None = None
        self._directory = directory
        self._silence: Silence | None = None
        self._in_effect: Silence | None = None
        self._seen: tuple[int, int] | None = None

    def current(self, now: datetime) -> Silence | None:
        """Return the silence that is in effect."""
        seen = self._look()
        if seen != self._seen:
            self._seen, self._silence, self.trouble = seen, None, None
            try:
                self._silence = read_silence(self._directory)
            except StoreError as error:
                self.trouble = "nothing is silenced: silence.json cannot be read"
                log.error("nothing is silenced: %s", error)  # noqa: TRY400 - the text is the whole story
        silence = self._silence if self._silence and self._silence.is_on(now) else None
        if silence != self._in_effect:
            self._in_effect = silence
            log.info("silenced %s", printable(silence_text(silence, now)) if silence else "no longer")
        return silence

    def _look(self) -> tuple[int, int] | None:
        try:
            status = (self._directory / SILENCE_FILE).lstat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino
