"""The line of another host, in a log that is read here: its text is all that is known, and nothing was measured there.

May  6 07:08:09 web-7 kernel: TCP: too many orphaned sockets        in the file of a log server, log1
"""

import shlex

from agent.core.budget import OTHER_HOSTS_AN_HOUR, THE_REST
from agent.core.diagnosis.evidence import build_finding
from agent.core.diagnosis.gaps import gap_of_clock
from agent.core.facts import Facts
from agent.core.format import printable
from agent.core.model import Advice, Cause, Confidence, Diagnosis, Evidence
from agent.core.readings import Gap

_TOO_MANY = f"Besides the {OTHER_HOSTS_AN_HOUR} hosts that have incidents of this hour,"
_SAID: dict[Cause, str] = {
    "orphans": "reset TCP connections because of too many orphaned sockets",
    "tcp_memory": "ran out of TCP memory",
    "both": "reached both limits, orphaned sockets and TCP memory",
    "undetermined": "ran out of TCP sockets or memory (up to kernel 3.2 the message does not say which)",
}


def diagnose_elsewhere(facts: Facts, host: str) -> Diagnosis:
    """Diagnose what another host reported, from its lines alone."""
    there, here = printable(host, 64), printable(facts.snapshot.host or "this host", 64)
    cause: Cause = "both" if len(facts.named_causes) > 1 else next(iter(facts.named_causes), "undetermined")
    proven = bool(facts.named_causes) and any(event.provenance == "kernel" for event in facts.lines.values())
    sure: Confidence = "likely" if proven else "possible"
    where = (
        Evidence(name="host of the line", value=host, source="line"),
        Evidence(name="read on", value=facts.snapshot.host or "", source="sys/kernel/hostname"),
    )
    said, step = f"{there} {_SAID[cause]}, according to its line", _run_there(there)
    gap = Gap(what="host of the line", why=f"the line is from {there}: nothing was measured there")
    if host == THE_REST:
        said, step = f"{_TOO_MANY} {there} {_SAID[cause]}, according to lines", _list_hosts(facts)
        gap = Gap(what="hosts of the lines", why="only the log has their names; nothing was measured there")
    return Diagnosis(
        cause=cause,
        confidence=sure,
        summary=f"{said} in a log on {here}. Nothing was measured on {there}.",
        findings=(build_finding(facts, "line_of_another_host", cause, sure, *where),),
        advice=(step,),
        gaps=(gap, *gap_of_clock(facts)),
    )


def _run_there(there: str) -> Advice:
    """Advise what to run on the other host; the name goes with each command, since commands are copied alone."""
    commands = (
        "sockmem-agent diagnose",
        "cat /proc/net/sockstat /proc/sys/net/ipv4/tcp_max_orphans /proc/sys/net/ipv4/tcp_mem",
        "ss -tanp",
    )
    return Advice(
        action=f"On {there}, run sockmem-agent diagnose.",
        why=f"Which limit was reached, who holds the sockets and what to change can only be seen on {there}. "
        "Without the agent there, compare sockstat with the two limits.",
        risk="None: these commands only read.",
        commands=tuple(f"{command}  # on {there}" for command in commands),
    )


def _list_hosts(facts: Facts) -> Advice:
    """Advise how to find out whose the lines are that are counted together."""
    sources = sorted({event.source.rpartition("@")[0] for event in facts.lines.values()} - {""})
    logs = " ".join(map(shlex.quote, sources)) or "--journal"
    return Advice(
        action="List the hosts whose lines are in the log.",
        why=f"Beyond {OTHER_HOSTS_AN_HOUR} other hosts an hour, lines are only counted. If fewer hosts log here, "
        "some lines are forged: any local user can write to a text log.",
        risk="None: this command only reads.",
        commands=(f'sockmem-agent scan --json {logs} | grep -o \'"host":"[^"]*"\' | sort | uniq -c | sort -n',),
    )
