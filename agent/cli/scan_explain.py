"""What ``scan --explain`` prints: for each line that holds one of the kernel's messages, the steps to an event.

messages:5: Aug 18 08:40:09 jp58 root: TCP: too many orphaned sockets
  |-- yes  text: TCP: too many orphaned sockets
  |-- yes  envelope: Aug 18 08:40:09 jp58
  |-- no   speaker: 'root:' is the tag of another program; the kernel's is 'kernel:'
  `-- no   event: none
"""

from collections import deque
from collections.abc import Iterator

import click

from agent.core.format import printable
from agent.core.kernel.detector import Detector
from agent.core.logs.explain import explain, holds_text
from agent.core.model import Event, LogRecord
from agent.sources.scanner import Candidate


def print_steps(candidates: Iterator[Candidate]) -> int:
    """Print the tree of each line as soon as it is decided; count the events."""
    detector = Detector()
    undecided: deque[Candidate] = deque()
    events: dict[LogRecord, Event] = {}
    found = 0
    for candidate in candidates:
        decided = detector.feed(candidate.record) if candidate.record else []
        events |= decided
        found += len(decided)
        undecided.append(candidate)
        while undecided and not ((first := undecided[0].record) and detector.is_undecided(first)):
            _print(undecided.popleft(), events)
    while undecided:
        _print(undecided.popleft(), events)
    return found


def _print(candidate: Candidate, events: dict[LogRecord, Event]) -> None:
    record = candidate.record
    event = events.pop(record, None) if record else None
    if event is None and not holds_text(candidate.line):
        return
    click.echo(printable(f"{candidate.source}: {candidate.line.strip()}"))
    steps = explain(candidate.line, record, event)
    for step in steps:
        branch = "`--" if step is steps[-1] else "|--"
        click.echo(f"  {branch} {'yes' if step.passed else 'no':3}  {printable(f'{step.name}: {step.detail}')}")
