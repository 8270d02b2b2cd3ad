"""``sockmem-agent diagnose --watch``: who is killed or refused memory now, by two tracing instances of its own.

They are named with its process id, so that they disturb neither the service nor another watch, and go away with it. A
sample of what it prints::

    14:03:12  killed 86     shop.service (python3)  port 8080
"""

import os
import signal
import threading
import time
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

import click

from agent.cli.printing import Row, fail, print_json, print_table, warn
from agent.core.format import count_text, counted, duration_text, printable
from agent.core.kernel.limits import KILLED, counter_deltas
from agent.core.model import Witness, WitnessedBy
from agent.core.readings import Gap
from agent.core.witness import Account
from agent.probe import Counters, take_sample, take_sockets
from agent.probe.pagesize import PROC
from agent.probe.witness import Reader, own_instances
from agent.service.witness import Watch
from agent.sources import local_now

OPTION = "sockmem-agent: diagnose --watch"
LOOK_SECONDS = 1.0
ATTRIBUTION_SECONDS = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HEADINGS = ("WHO", "KILLED", "REFUSED", "PORTS", "PEERS")
LIVE_WIDTH = 12
SHOWN = 3


class Watched(NamedTuple):
    """What was seen between two moments, and what could not be."""

    since: datetime
    until: datetime
    witness: Witness
    gaps: tuple[Gap, ...]


def watch(seconds: int, *, as_json: bool) -> None:
    """Print who is killed or refused memory, at once and in total; a signal only ends it earlier."""
    if os.geteuid() != 0:
        fail(2, f"{OPTION}: only root can read the kernel's trace; use sudo")
    stop = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    with own_instances() as (them, gaps), closing(Reader(them)) as reader:
        if not reader.sees_kills and not reader.sees_refusals:
            fail(os.EX_NOINPUT, *(f"{OPTION}: {gap.what}: {gap.why}" for gap in gaps or reader.gaps()))
        for gap in gaps:
            warn(f"{gap.what}: {gap.why}")
        found = _look_on(reader, gaps, stop, seconds, as_json=as_json)
    if as_json:
        print_json(found._asdict())
    else:
        _print_total(found)


def _look_on(reader: Reader, gaps: tuple[Gap, ...], stop: threading.Event, seconds: int, *, as_json: bool) -> Watched:
    looking, counters, total = Watch(PROC, reader), Counters(PROC), Account(sees_kills=reader.sees_kills)
    before = take_sample(PROC, local_now(), counters)
    # Who ends meanwhile has its sockets only now.
    first = take_sockets(PROC, ATTRIBUTION_SECONDS)
    if not as_json:
        click.echo(f"Watching for {duration_text(seconds)}; Ctrl-C ends it earlier.")
    deadline = time.monotonic() + seconds
    is_over = False
    while not is_over:
        is_over = stop.wait(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))) or time.monotonic() >= deadline
        looking.look(local_now())
        seen = looking.take()
        if not as_json:
            _print_live(seen.witness(None))
        total.merge(seen)
    after = take_sample(PROC, local_now(), counters)
    for table in (take_sockets(PROC, ATTRIBUTION_SECONDS), first):
        looking.forget_homes()
        looking.name(total, table)
    risen = counter_deltas(before.counters, after.counters).get(KILLED)
    return Watched(before.at, after.at, total.witness(risen), gaps)


def _print_live(seen: Witness) -> None:
    for each in seen.by:
        where = [f"port {port}" for port in each.ports[:1]] or [f"to {peer}" for peer in each.peers[:1]]
        click.echo("  ".join([f"{local_now():%H:%M:%S}", _counts(each).ljust(LIVE_WIDTH), _who(each), *where]))


def _print_total(found: Watched) -> None:
    witness, lasted = found.witness, duration_text((found.until - found.since).total_seconds())
    kills = "" if witness.kills is None else f"killed {counted(witness.kills, 'connection')} and "
    click.echo(f"In {lasted} the kernel {kills}refused memory {counted(witness.refusals, 'time')}.")
    if witness.unseen:
        click.echo(f"{KILLED} rose by {count_text(witness.unseen)} more, which the trace does not show.")
    if witness.lost:
        click.echo(f"{counted(witness.lost, 'event')} came too fast to be read; each name has its share of them.")
    if witness.by:
        print_table(HEADINGS, list(map(_row, witness.by)), right={1, 2})


def _row(each: WitnessedBy) -> Row:
    ports, peers = ", ".join(map(str, each.ports[:SHOWN])), ", ".join(each.peers[:SHOWN])
    below = "; ".join(filter(None, [_counts(each), ports and f"port {ports}", peers and f"to {peers}"]))
    return Row((_who(each), count_text(each.kills), count_text(each.refusals), ports, peers), below)


def _who(each: WitnessedBy) -> str:
    place = each.container or each.unit
    process = f"({each.process})" if place and each.process else each.process
    return printable(" ".join(filter(None, (place, process))) or "unattributed") + (" (a guess)" if each.guess else "")


def _counts(each: WitnessedBy) -> str:
    counts = (("killed", each.kills), ("refused", each.refusals))
    return ", ".join(f"{verb} {count_text(count)}" for verb, count in counts if count)
