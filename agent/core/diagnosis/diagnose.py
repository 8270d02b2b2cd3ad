"""diagnose(snapshot, events, history) -> Diagnosis: total and deterministic, with every hole in the evidence told.

Mirrors tcp_check_oom() of net/ipv4/tcp.c and tcp_out_of_resources() of net/ipv4/tcp_timer.c; the rules are in
rules_cause, the remedies are in advice.
"""

from agent.core.advice.main_holder import find_main_holders
from agent.core.advice.steps import advise
from agent.core.diagnosis.elsewhere import diagnose_elsewhere
from agent.core.diagnosis.gaps import all_gaps
from agent.core.diagnosis.rules_cause import apply_rules
from agent.core.diagnosis.summary import summarise
from agent.core.facts import Facts, gather_facts
from agent.core.history.look_back import look_back
from agent.core.model import Diagnosis, Event, Finding, Holder, Mechanism, Sample, Snapshot, Witness
from agent.core.readings import Gap
from agent.core.sockets.holder_names import gauge_of


def diagnose(
    snapshot: Snapshot,
    events: tuple[Event, ...],
    history: tuple[Sample, ...],
    witness: Witness | None = None,
    untraced: tuple[Gap, ...] = (),
) -> Diagnosis:
    """Work out why it happened, as far as the evidence goes.

    ``events`` may be empty. Of each kind the first in it is shown, best the newest; the gauges are those around the
    newest of each kind, the counters those from before the earliest, ten minutes at most. ``history`` is oldest first
    and may reach past the snapshot; samples of another boot are left out. ``witness`` is what the kernel's trace
    showed of the incident, ``untraced`` is what it could not. Never raises.
    """
    facts = gather_facts(snapshot, events, history)._replace(witness=witness)
    if facts.reported_by:
        return diagnose_elsewhere(facts, facts.reported_by)
    past = look_back(facts)
    findings = (*apply_rules(facts), *past.findings)
    main = find_main_holders(facts, findings)
    held_by, unseen = _holders(facts, findings)
    return Diagnosis(
        cause=findings[0].cause,
        confidence=findings[0].confidence,
        mechanism=_mechanism(facts),
        summary=summarise(facts, findings, past, main),
        findings=findings,
        holders=held_by,
        advice=advise(facts, findings, main),
        # Where the trace is not on, who holds most is an answer, and no drop-in is missed.
        gaps=all_gaps(facts, unseen, () if main and witness is None else untraced),
    )


def _mechanism(facts: Facts) -> Mechanism:
    limit, shift = facts.orphans.limit, facts.shift
    return Mechanism(
        penalty_shift=shift,
        orphan=facts.orphans.value,
        tcp_max_orphans=limit,
        limit_reached=limit >> shift if limit is not None and shift is not None else None,
        mem_pages=facts.memory.pages,
        tcp_mem_pages=facts.limits,
        mem_bytes=facts.memory.value,
        mem_unit_bytes=facts.memory.sample_unit,
        tcp_mem_bytes=facts.limits_bytes,
        page_size_bytes=facts.page_bytes,
    )


def _holders(facts: Facts, findings: tuple[Finding, ...]) -> tuple[tuple[Holder, ...], tuple[Gap, ...]]:
    if facts.snapshot.sockets is None:
        return (), (Gap(what="holders", why="sock_diag was not read for this snapshot"),)
    return facts.holders[gauge_of(findings[0].cause)]
