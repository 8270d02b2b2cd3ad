"""What an event needs of the interpreter, done once in memory while nothing waits.

Whatever Python does for the first time takes two to three times as long: code is specialized, tables and expressions
are filled in, memory is fetched. The first event of a service is often the only one, and should not pay for that.
"""

from collections.abc import Sequence

from agent.core import folding
from agent.core.diagnosis.diagnose import diagnose
from agent.core.kernel.detector import Detector
from agent.core.model import INCIDENT, NOTICE, LogRecord, Sample, Snapshot
from agent.core.recurrence import kind_of
from agent.service.open_incident import summary_of
from agent.store.disk import encode_json

_TEXTS = ("TCP: too many orphaned sockets", "TCP: out of memory -- consider tuning tcp_mem")


def warm_up(snapshot: Snapshot, samples: Sequence[Sample]) -> None:
    """Go the way of one line of each kind, up to what would be written; nothing is written, counted or sent."""
    now = snapshot.taken_at
    for number, text in enumerate(_TEXTS):
        record = LogRecord(
            text=text,
            line=text,
            source="",
            provenance="kernel",
            ordinal=number,
            at=now,
            uptime=None,
            host=snapshot.host,
        )
        for _, event in Detector().feed(record):
            diagnosis = diagnose(snapshot, (event,), tuple(samples))
            incident = folding.open_incident(event, now, snapshot, diagnosis, 0)
            notice = folding.notice(incident, ("sockmem.incident.opened", ""), (), now)
            kind_of(incident)
            summary_of(incident, ("", snapshot))
            encode_json(snapshot)
            INCIDENT.decode(encode_json(incident))
            NOTICE.decode(encode_json(notice))
