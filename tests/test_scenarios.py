"""Every file of scenarios/ through the real probe, the real detector and the diagnosis.

A scenario is a tree shaped like /proc (``proc/``), the lines that were logged (``line``), what to expect
(``expected.json``) and, where it matters, samples from around it (``history.json``), cgroups (``cgroup/``), what a
dump of the sockets came down to (``sockets.json``) and what the kernel's trace showed (``witness.json``).
"""

import json
import re
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import lay_out, reason, scenario_names, schema_errors
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.advice.programs import PROGRAMS
from agent.core.diagnosis.diagnose import diagnose
from agent.core.diagnosis.rules_cause import HOLDER_RULES, REMARKS, RULES
from agent.core.kernel import messages
from agent.core.logs.records import to_record
from agent.core.model import Diagnosis, Event, Provenance, Sample, Witness
from agent.core.readings import PAGE_SIZE, SocketTable
from agent.core.report import diagnosis_text
from agent.probe import take_snapshot

NOW = datetime(2026, 11, 22, 15, 5, 40, tzinfo=timezone.utc)
SCENARIOS = [lay_out(name) for name in scenario_names()]
WITH_SOCKETS = [path for path in SCENARIOS if (path / "sockets.json").exists()]


def events_of(text: str, provenance: Provenance) -> tuple[Event, ...]:
    records = [
        to_record(line.encode(), now=NOW, source=f"line:{number}", ordinal=number)
        for number, line in enumerate(text.splitlines(), 1)
    ]
    found = [messages.detect(replace(record, provenance=provenance)) for record in records if record]
    return tuple(event for event in found if event)


def run(scenario: Path, expected: dict[str, Any]) -> Diagnosis:
    cgroup = scenario / "cgroup"
    snapshot = take_snapshot(scenario / "proc", NOW, expected["trigger"], cgroup if cgroup.is_dir() else None)
    history = scenario / "history.json"
    sockets = scenario / "sockets.json"
    if sockets.exists():
        snapshot = replace(snapshot, sockets=msgspec.json.decode(sockets.read_bytes(), type=SocketTable))
    samples = msgspec.json.decode(history.read_bytes(), type=tuple[Sample, ...]) if history.exists() else ()
    traced = scenario / "witness.json"
    witness = msgspec.json.decode(traced.read_bytes(), type=Witness) if traced.exists() else None
    return diagnose(snapshot, events_of((scenario / "line").read_text(), expected["provenance"]), samples, witness)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_scenario_is_diagnosed_as_expected(scenario: Path) -> None:
    expected = json.loads((scenario / "expected.json").read_text())
    diagnosis = run(scenario, expected)
    proposed = {
        step.sysctl.key: list(step.sysctl.proposed) if isinstance(step.sysctl.proposed, tuple) else step.sysctl.proposed
        for step in diagnosis.advice
        if step.sysctl
    }
    gaps = " ".join(gap.what for gap in diagnosis.gaps)
    assert {key: expected[key] for key in ("cause", "confidence", "penalty_shift", "claims")} == {
        "cause": diagnosis.cause,
        "confidence": diagnosis.confidence,
        "penalty_shift": diagnosis.mechanism.penalty_shift,
        "claims": [finding.claim for finding in diagnosis.findings],
    }
    assert [] == [words for words in expected.get("summary", []) if words not in diagnosis.summary]
    assert expected.get("proposed", proposed) == proposed
    advised = " ".join(f"{step.action} {step.why} {step.risk} {step.commands}" for step in diagnosis.advice)
    assert advised.startswith(expected.get("first_step") or "")
    assert [] == [words for words in expected.get("advice", []) if words not in advised]
    assert [] == [words for words in expected.get("not_advised", []) if words in advised]
    assert [] == [what for what in expected.get("gaps", []) if what not in gaps]
    assert [] == [what for what in expected.get("no_gaps", []) if what in gaps]
    assert diagnosis.summary in " ".join(diagnosis_text(diagnosis).split())
    assert [] == schema_errors("diagnosis", msgspec.json.encode(diagnosis))


@pytest.mark.parametrize("scenario", WITH_SOCKETS, ids=lambda path: path.name)
def test_who_holds_the_sockets_is_named_first_and_told_what_to_do(scenario: Path) -> None:
    expected = json.loads((scenario / "expected.json").read_text())
    diagnosis = run(scenario, expected)
    first = msgspec.to_builtins(diagnosis.holders[0])
    step = diagnosis.advice[0].action if diagnosis.advice else None
    text = diagnosis_text(diagnosis) + diagnosis.summary + str(msgspec.to_builtins(diagnosis.advice))

    assert expected.get("first_holder", {}) == {key: first[key] for key in expected.get("first_holder", {})}
    assert (step or "").startswith(expected["first_step"] or "\0") or step is expected["first_step"]
    assert [] == [words for words in expected.get("summary", []) if words not in diagnosis.summary]
    assert [] == [words for words in expected.get("not_said", []) if words in text]


@pytest.mark.parametrize("scenario", WITH_SOCKETS, ids=lambda path: path.name)
def test_the_holders_add_up_to_what_the_host_counts(scenario: Path) -> None:
    diagnosis = run(scenario, json.loads((scenario / "expected.json").read_text()))
    table = msgspec.json.decode((scenario / "sockets.json").read_bytes(), type=SocketTable)
    tcp = table.sockstat.tcp if table.sockstat else None
    assert tcp
    assert tcp.orphan == sum(holder.orphans for holder in diagnosis.holders)
    assert tcp.alloc == sum(holder.sockets for holder in diagnosis.holders)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_scenario_survives_json_whole(scenario: Path) -> None:
    diagnosis = run(scenario, json.loads((scenario / "expected.json").read_text()))
    assert diagnosis == msgspec.json.decode(msgspec.json.encode(diagnosis), type=Diagnosis)


@settings(max_examples=80, deadline=None)
@given(
    scenario=st.sampled_from([path for path in SCENARIOS if path not in WITH_SOCKETS]),
    release=st.sampled_from(
        [
            "2.6.18-419.el5.ppc64",
            "2.6.32-754.el6.ppc64",
            "3.10.0-1160.el7.ppc64le",
            "4.18.0-553.el8_10.aarch64",
            "6.12.0-55.el10.aarch64+64k",
        ]
    ),
    dropped=st.sets(st.integers(0, 19)),
)
def test_no_part_of_a_tree_is_told_in_bytes_of_a_guessed_page(scenario: Path, release: str, dropped: set[int]) -> None:
    files = [path for path in sorted((scenario / "proc").rglob("*")) if path.is_file() and path.name != "auxv"]
    with tempfile.TemporaryDirectory() as folder:
        for path in (path for number, path in enumerate(files) if number % 20 not in dropped):
            copy = Path(folder) / path.relative_to(scenario)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        kernel = Path(folder) / "proc/sys/kernel/osrelease"
        kernel.parent.mkdir(parents=True, exist_ok=True)
        kernel.write_text(release)
        snapshot = take_snapshot(Path(folder) / "proc", NOW, "event", None)
    diagnosis = diagnose(snapshot, events_of((scenario / "line").read_text(), "kernel"), ())
    found = diagnosis.mechanism
    guessed = (found.page_size_bytes, found.mem_bytes, found.mem_unit_bytes, found.tcp_mem_bytes)
    assert (None, None, None, None) == guessed
    assert "net.ipv4.tcp_mem" not in {step.sysctl.key for step in diagnosis.advice if step.sysctl}
    assert PAGE_SIZE in {gap.what for gap in diagnosis.gaps}


def test_scenarios_cover_the_decision_table() -> None:
    reasons = " ".join(reason(path.name) for path in SCENARIOS)
    rows = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "14b", "15", "18", "19"]
    missing = [row for row in [*rows, "20", "21", "22"] if not re.search(rf"\b[Rr]ow {row}\b", reasons)]
    assert [] == missing


def test_every_rule_has_a_scenario() -> None:
    claims = {claim for path in SCENARIOS for claim in json.loads((path / "expected.json").read_text())["claims"]}
    assert [] == [rule.__name__ for rule in RULES if rule.__name__ not in claims]


def test_everything_else_that_can_be_claimed_has_a_scenario_too() -> None:
    claims = {claim for path in SCENARIOS for claim in json.loads((path / "expected.json").read_text())["claims"]}
    assert [] == [rule.__name__ for rule in (*HOLDER_RULES, *REMARKS) if rule.__name__ not in claims]


def test_every_command_of_the_advice_can_be_typed_as_printed() -> None:
    found = {command for each in PROGRAMS for command in each.commands}
    for scenario in SCENARIOS:
        steps = run(scenario, json.loads((scenario / "expected.json").read_text())).advice
        found.update(command for step in steps for command in step.commands)
    # A comment may name a column or an argument.
    assert [] == [each for each in found if re.search(r"-t PID|\b(GROUP|ADMIN)\b|<\w+>", each.partition("   #")[0])]
    assert 0 == subprocess.run(["/bin/sh", "-n", "-c", "\n".join(sorted(found))], check=False, timeout=30).returncode
