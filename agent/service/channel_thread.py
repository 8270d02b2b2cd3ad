"""The thread of one channel: it steps, rests as long as the step says, and is woken by hints."""

import contextlib
import threading
from collections.abc import Callable


class ChannelThread:
    """Calls ``step``, which returns the seconds to rest, until told to stop; the main thread holds it.

    It does not stop in what ``is_settling`` says is half done. ``cannot_start`` returns the seconds until the next try.
    ``last_progress`` is a second of the clock ``monotonic``.
    """

    def __init__(
        self,
        channel: str,
        step: Callable[[], float],
        cannot_start: Callable[[], float],
        is_settling: Callable[[], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self.last_progress = monotonic()
        self._name, self._step, self._cannot_start, self._monotonic = channel, step, cannot_start, monotonic
        self._is_settling = is_settling
        self._not_before = float("-inf")
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs; one that died or could not start is started again after a pause."""
        if self.is_alive():
            return
        self.last_progress = self._monotonic()
        if self.last_progress < self._not_before:
            return
        self._thread = threading.Thread(target=self._run, name=f"courier-{self._name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._not_before = self._monotonic() + self._cannot_start()

    def wake(self) -> None:
        """Hint that there is something new; it ends no pause."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Ask the thread to end, and wait for it and what it is settling up to ``timeout`` seconds."""
        self._stop.set()
        self._wake.set()
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        # What gets here was raised while another exception was handled. The daemon restarts the thread; Python would
        # print the exception's text, which may quote the address.
        with contextlib.suppress(BaseException):
            while not self._stop.is_set() or self._is_settling():
                self._wake.clear()
                delay = self._step()
                self.last_progress = self._monotonic()
                self._wake.wait(delay)
                self.last_progress = self._monotonic()
            # A courier and its thread hold each other, and with them all incidents that it remembers. That Python looks
            # for such pairs may take days; it never sees those of the start, which are frozen (daemon.run).
            del self._step, self._cannot_start, self._is_settling
