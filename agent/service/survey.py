"""Who holds the sockets, now and then while all is quiet: so that growth can be told by unit, and a full cgroup.

A dump of 200,000 sockets takes half a second and a walk over all processes more, and the kernel's line must not wait
for it. So it runs in a thread of its own that lives for this one dump; it reads, and touches nothing of ours but its
result. Its clock is the way to stop it: the moment that the main thread has an event to look at, the dump's time is
over. What it cost decides when the next one is due: it may take half a percent of one processor.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from threading import Event, Thread

from agent.core.history.unit_growth import shares_of
from agent.core.model import UnitShare
from agent.core.readings import FullGroup, SocketTable
from agent.probe import Names, take_sockets
from agent.probe.pagesize import is_this_host

FIRST_AFTER = timedelta(seconds=60)
SPACING = timedelta(minutes=5)
AGAIN_AFTER = timedelta(seconds=60)
DEADLINE_SECONDS = 4.0
CPU_SHARE = 0.005

Take = Callable[..., SocketTable]
log = logging.getLogger("sockmem-agent")


class Survey:
    """One dump at a time, and what the last one found."""

    def __init__(
        self, proc_root: Path, now: datetime, take: Take = take_sockets, make_thread: type[Thread] = Thread
    ) -> None:
        self.due = now + FIRST_AFTER
        self._proc_root = proc_root
        self._take, self._make_thread = take, make_thread
        self._names = Names()
        self._stop = Event()
        self._thread: Thread | None = None
        self._found: tuple[UnitShare, ...] = ()
        # The cgroups at their own limits, most of it socket memory, as the last whole dump saw them.
        self.groups: tuple[FullGroup, ...] = ()
        self._failure: Exception | None = None
        self._cost_seconds = 0.0
        self._is_refused = False
        self._possible = is_this_host(proc_root)

    def start(self, now: datetime) -> None:
        """Start a dump if it is time for one and none is under way; later, where the host has no room for a thread."""
        if now < self.due or self._thread or not self._possible:
            return
        self._stop.clear()
        self._found = ()
        thread = self._make_thread(target=self.step, name="survey", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # TasksMax= of the unit is reached, or the host's own limit.
            self.due = now + AGAIN_AFTER
            if not self._is_refused:
                log.warning("socket survey skipped, tried again every minute: %s", error)
            self._is_refused = True
            return
        self._thread, self._is_refused = thread, False

    def cancel(self) -> None:
        """Let the dump under way end at once, unfinished."""
        self._stop.set()

    def collect(self, now: datetime) -> tuple[UnitShare, ...]:
        """Take what a dump that has ended found, once; nothing while there is none, or when it is not whole."""
        if self._thread is None or self._thread.is_alive():
            return ()
        self._thread = None
        if self._failure:
            raise self._failure
        spacing = AGAIN_AFTER if self._stop.is_set() and not self._found else SPACING
        self.due = now + max(spacing, timedelta(seconds=self._cost_seconds / CPU_SHARE))
        return self._found

    def clock_set_back(self, now: datetime) -> None:
        """Follow a clock that was set back."""
        self.due = min(self.due, now + SPACING)

    def step(self) -> None:
        """Take one dump, as its thread does."""
        began = time.thread_time()
        try:
            table = self._take(self._proc_root, DEADLINE_SECONDS, names=self._names, clock=self._clock)
            self._found = shares_of(table)
            if self._found:
                self.groups = tuple(each for each in table.full_groups if each.is_of_sockets)
        except Exception as error:  # noqa: BLE001 - a surprise: the main thread raises it, and the process ends
            self._failure = error
        self._cost_seconds = time.thread_time() - began

    def _clock(self) -> float:
        return inf if self._stop.is_set() else time.monotonic()
