"""Every published case as a /proc-shaped tree, put through ``diagnose --proc-root``; corpus/README.md has the origin.

Decisions, where a case does not hold what a tree needs:

* ``sockstat: null`` with the kernel's own debug print (mcquack-2.4.1): its counts stand for the gauges of that moment.
* Sockets by state or by ``ss -s`` (i2pd-825, maoyidao-states): those that the kernel counts as orphans are the gauge.
* A reproduction told in connections and bytes (menglong-repro): the pages that those bytes take.
* kolev-ircd was told by an experiment (raising tcp_mem moved the threshold), with no number that a host could show:
  of the two causes of that old text nobody can name one.
* ``transient``: the reading is of another time. The text decides from 3.3 on; an older text leaves it undetermined.
* ``unknown``: nobody can tell, so any answer to an event but ``none`` is right.
"""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from agent.cli import group
from agent.core.model import Diagnosis

PAGE = 4096
ORPHAN_STATES = ("FIN_WAIT1", "FIN_WAIT2", "CLOSING", "LAST_ACK")
CASES: list[dict[str, Any]] = [
    msgspec.json.decode(line) for line in (Path(__file__).parent / "corpus/cases.jsonl").read_bytes().splitlines()
]
UNDECIDABLE = {"kolev-ircd"}
NAMED_BY_TEXT = {"TCP: too many orphaned sockets": "orphans", "consider tuning tcp_mem": "tcp_memory"}


def sockstat_of(case: dict[str, Any]) -> str | None:
    if case["sockstat"]:
        return str(case["sockstat"])
    if counters := case.get("internal_counters"):
        return f"TCP: orphan {counters[0]['orphans']} mem {counters[0]['allocated_pages']}\n"
    others = case["other_sysctls"]
    if "bytes_each" in others:
        return f"TCP: orphan 0 mem {others['connections'] * others['bytes_each'] // PAGE}\n"
    if orphaned := re.search(r"orphaned (\d+)", case["netstat"] or ""):
        return f"TCP: orphan {orphaned[1]}\n"
    states = dict(re.findall(r"([A-Z][A-Z_0-9]+) (\d+)", case["netstat"] or ""))
    return f"TCP: orphan {sum(int(states.get(state, 0)) for state in ORPHAN_STATES)}\n" if states else None


def plant(root: Path, case: dict[str, Any]) -> None:
    release = re.search(r"\d+\.\d+(\.\d+)?[\w.-]*", case["kernel"]) if "not stated" not in case["kernel"] else None
    files = {
        "net/sockstat": sockstat_of(case),
        "sys/net/ipv4/tcp_mem": case["tcp_mem"] and "\t".join(map(str, case["tcp_mem"])),
        "sys/net/ipv4/tcp_max_orphans": case["tcp_max_orphans"] and str(case["tcp_max_orphans"]),
        "sys/kernel/osrelease": release and release[0],
    }
    for key in ("tcp_fin_timeout", "tcp_orphan_retries", "tcp_max_tw_buckets"):
        if key in case["other_sysctls"]:
            files[f"sys/net/ipv4/{key}"] = str(case["other_sysctls"][key])
    for name, text in files.items():
        if text:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text.rstrip("\n") + "\n")


def expected_causes(case: dict[str, Any]) -> set[str]:
    reading = "undecidable" if case["id"] in UNDECIDABLE else case["your_reading"]
    if reading == "transient":
        texts = {text: cause for text, cause in NAMED_BY_TEXT.items() if text in "\n".join(case["log_lines"])}
        return set(texts.values()) or {"undetermined"}
    return {
        "undecidable": {"undetermined"},
        "neither": {"none"},
        "unknown": {"tcp_memory", "orphans", "both", "undetermined"},
    }.get(reading, {reading})


def diagnose(root: Path, case: dict[str, Any]) -> Diagnosis:
    messages = [part for line in case["log_lines"] for part in ("--message", line)]
    result = CliRunner().invoke(group, ["diagnose", "--proc-root", str(root), "--json", *messages])
    assert 0 == result.exit_code, result.output
    return msgspec.json.decode(result.stdout, type=Diagnosis)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_published_case_is_read_as_its_numbers_and_text_say(case: dict[str, Any], tmp_path: Path) -> None:
    plant(tmp_path, case)

    assert diagnose(tmp_path, case).cause in expected_causes(case)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_line_that_a_log_claims_is_never_certain(case: dict[str, Any], tmp_path: Path) -> None:
    plant(tmp_path, case)
    diagnosis = diagnose(tmp_path, case)

    assert diagnosis.cause == "none" or diagnosis.confidence != "certain"
