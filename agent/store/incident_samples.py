"""The samples around an incident, kept with it when it closes: ``<state>/incidents/<id>/samples.jsonl``.

History lasts two days, an incident a year. The file is written before the commit that closes the incident: a crash in
between leaves the incident open, and the next close rewrites it. incident.json does not name it, since only charts
need it; an incident closed on a full disk has none.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from agent.core.history.downsample import extremes
from agent.core.model import Sample
from agent.core.times import second_of
from agent.store.disk import read_regular, reason, write_whole
from agent.store.history import read_lines
from agent.store.incidents import Store

log = logging.getLogger("sockmem-agent")

NAME = "samples.jsonl"
# With all their counters some 200 kB: as much as two snapshots.
AT_MOST = 360


def keep_samples(directory: Path, samples: Iterable[Sample]) -> None:
    """Write the samples, downsampled to about ``AT_MOST``."""
    found = sorted(samples, key=lambda sample: second_of(sample.at))
    if found:
        write_whole(directory / NAME, b"".join(msgspec.json.encode(sample) + b"\n" for sample in fit(found, AT_MOST)))


def read_around(store: Store, incident_id: str, start: datetime, end: datetime) -> tuple[Sample, ...]:
    """Read the samples from ``start`` to ``end``, oldest first: from the history, else those kept with the incident."""
    path, kept = store.path(incident_id) / NAME, []
    try:
        kept = read_lines(read_regular(path))
    except FileNotFoundError:
        pass  # See the top.
    except OSError as error:
        log.warning("%s: cannot be read (%s); going on without it", path, reason(error))
    by_time = {sample.at: sample for sample in kept if start <= sample.at <= end}
    by_time |= {sample.at: sample for sample in store.samples.read(start, end)}
    return tuple(by_time[at] for at in sorted(by_time))


def fit(samples: list[Sample], most: int) -> list[Sample]:
    """Downsample to about ``most``, doubling the stretches until they fit; peaks and resets stay."""
    seconds = 10
    found = samples
    while len(found) > most:
        seconds *= 2
        found = extremes(samples, seconds)
        if seconds > timedelta(days=1).total_seconds():
            break
    return found
