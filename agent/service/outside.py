"""What the service stands on and is handed: `sockmem-agent run` hands it this host, tests/world another one."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from agent.core.cursor import Cursor
from agent.core.dispatch import Rules
from agent.core.settings import ChannelSettings, SourceSettings
from agent.notifiers import Notifier, StateNotifier, build
from agent.service.courier import Courier
from agent.service.survey import Survey
from agent.sources import Source, local_now, open_source
from agent.store import Outbox


class Outside(NamedTuple):
    """The host, its clocks, the log, and what has threads; the disk is the store.

    ``runtime`` is the directory of status.json: by default the state directory.
    """

    proc_root: Path = Path("/proc")
    runtime: Path | None = None
    now: Callable[[], datetime] = local_now
    monotonic: Callable[[], float] = time.monotonic
    open_source: Callable[[SourceSettings, Cursor, Callable[[], datetime], Callable[[], None]], Source] = open_source
    build: Callable[[ChannelSettings], Notifier | StateNotifier] = build
    make_courier: Callable[[Notifier | StateNotifier, Outbox, Rules], Courier] = Courier
    make_survey: Callable[[Path, datetime], Survey] = Survey
