import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from material import make_event

from agent.cli import diagnose as module
from agent.cli import group
from agent.core.model import Diagnosis, Incident, Mechanism, Sample, Snapshot, Witness
from agent.probe import take_snapshot
from agent.store import Store

CORPUS = [
    msgspec.json.decode(line)
    for line in (Path(__file__).parent.parent / "corpus/lines.jsonl").read_bytes().splitlines()
]
NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
ORPHANS = "TCP: too many orphaned sockets"
FULL = {
    "net/sockstat": "sockets: used 1386\nTCP: inuse 24 orphan 0 tw 58 alloc 863 mem 87916\n",
    "sys/net/ipv4/tcp_mem": "43257\t57676\t86514\n",
    "sys/net/ipv4/tcp_max_orphans": "32768\n",
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for name, text in FULL.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Note what the real diagnose() is asked."""
    asked: list[tuple[Any, ...]] = []
    real = module.diagnose

    def spy(*evidence: Any) -> Diagnosis:
        asked.append(evidence)
        return real(*evidence)

    monkeypatch.setattr(module, "diagnose", spy)
    return asked


def run(*args: str) -> Result:
    return CliRunner().invoke(group, ["diagnose", *args])


def decode(result: Result) -> Diagnosis:
    assert 0 == result.exit_code, result.output
    return msgspec.json.decode(result.stdout, type=Diagnosis)


def test_json_is_one_document_and_nothing_else(tree: Path) -> None:
    result = run("--proc-root", str(tree), "--json")

    assert "tcp_memory" == decode(result).cause
    assert "" == result.stderr


def test_text_is_for_people(tree: Path) -> None:
    result = run("--proc-root", str(tree), "--message", "TCP: out of memory -- consider tuning tcp_mem")

    assert 0 == result.exit_code
    assert "tcp_mem" in result.stdout
    assert not result.stdout.startswith("{")


def test_this_host_is_diagnosed_without_a_word_of_complaint() -> None:
    result = run("--json")

    assert decode(result).cause in {"none", "tcp_memory", "orphans", "both"}
    assert "" == result.stderr


def test_an_empty_tree_gives_a_diagnosis_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    diagnosis = decode(run("--proc-root", str(tmp_path / "empty"), "--json"))

    assert "none" == diagnosis.cause
    assert any("sockstat" in gap.what for gap in diagnosis.gaps)


@pytest.mark.parametrize("name", ["nowhere", "", "tree/net/sockstat", "x" * 5000])
def test_no_such_tree_is_66_and_one_line(tree: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    result = run("--proc-root", name, "--json")

    assert 66 == result.exit_code
    assert "" == result.stdout
    assert "is not a directory; name a copy of a /proc tree" in result.stderr
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize(
    "line",
    [
        ORPHANS,
        f"Jan 22 15:05:39 ztm-n08 kernel: [12624150.315458] {ORPHANS}",
        f"[  128.993937] {ORPHANS}",
        f"6,1234,5678,-;{ORPHANS}",
        f"Apr 23 22:43:21 rs1 kernel: […] {ORPHANS}",
        f"kernel: [ ... ] {ORPHANS}",
    ],
)
def test_a_message_is_claimed_evidence_in_any_format(tree: Path, line: str, judged: list[tuple[Any, ...]]) -> None:
    diagnosis = decode(run("--proc-root", str(tree), "--json", "--message", line))

    (event,) = judged[0][1]
    assert ("too_many_orphans", "claimed", line) == (event.kind, event.provenance, event.line)
    assert "orphans" == diagnosis.cause


def test_the_date_of_a_line_is_not_held_against_a_tree_without_one(tree: Path, judged: list[tuple[Any, ...]]) -> None:
    run("--proc-root", str(tree), "--message", f"Jan 22 15:05:39 h kernel: [12624150.315458] {ORPHANS}")

    assert judged[0][1][0].uptime == pytest.approx(12624150.315458)
    assert judged[0][0].taken_at == judged[0][1][0].at


@pytest.mark.parametrize(("clock", "cause"), [("11:05:39", "tcp_memory"), ("15:05:09", "both")])
def test_the_dates_of_two_lines_are_held_against_each_other(tree: Path, clock: str, cause: str) -> None:
    lines = (
        f"Jan 22 {clock} h kernel: {ORPHANS}\nJan 22 15:05:39 h kernel: TCP: out of memory -- consider tuning tcp_mem"
    )
    for messages in (lines, "\n".join(reversed(lines.splitlines()))):
        diagnosis = decode(run("--proc-root", str(tree), "--json", "--message", messages))
        assert cause == diagnosis.cause
        assert ("4 h earlier" in diagnosis.summary) == (cause != "both")


@pytest.mark.parametrize(
    ("orphans", "memory"),
    [
        ("2026-11-28T07:06:39+00:00 h kernel:", "[863999.600000]"),
        ("2026-11-28T08:06:39+01:00 h kernel:", "[863999.600000]"),
        ("[849599.000000]", "2026-11-28T11:06:39+00:00 h kernel:"),
        ("[849600.000000]", "2026-11-28T11:06:39+00:00 h kernel: [863999.600000]"),
        ("2026-11-28T03:00:00+00:00 h kernel: [849600.000000]", "2026-11-28T07:00:00+00:00 h kernel:"),
        ("[849600.000000]", ""),
        ("2026-11-28T06:00:00+00:00 h kernel:", "2026-11-28T10:00:00+00:00 h kernel:"),
    ],
)
def test_two_lines_hours_apart_are_two_bursts_whatever_their_stamps(tree: Path, orphans: str, memory: str) -> None:
    (tree / "uptime").write_text("864000.00 1728000.00\n")
    (tree / "stat").write_text("cpu  1 2\ncpu0 1 2\nbtime 1795000000\n")
    lines = [f"{orphans} {ORPHANS}", f"{memory} {MEMORY}".strip()]
    for messages in (lines, lines[::-1]):
        found = decode(run("--proc-root", str(tree), "--json", "--message", "\n".join(messages)))
        assert "tcp_memory" == found.cause
        assert "4 h earlier" in found.summary


def test_clock_times_are_those_of_the_lines(tree: Path) -> None:
    lines = f"2026-11-28T10:00:00+02:00 h kernel: {ORPHANS}\n2026-11-28T16:26:39+02:00 h kernel: {MEMORY}"
    summary = decode(run("--proc-root", str(tree), "--json", "--message", lines)).summary

    assert "(at 10:00 UTC+02:00; the newest message is from 16:26 UTC+02:00)" in summary


def test_the_date_of_a_line_is_held_against_this_host(judged: list[tuple[Any, ...]]) -> None:
    run("--message", f"Jan 22 15:05:39 h kernel: {ORPHANS}")

    at = judged[0][1][0].at
    assert (1, 22) == (at.month, at.day)


def test_a_line_of_another_host_is_that_hosts_also_by_command() -> None:
    diagnosis = decode(run("--json", "--message", f"May  6 07:08:09 web-7 kernel: {ORPHANS}", "--message", "fine"))

    assert ("orphans", "possible") == (diagnosis.cause, diagnosis.confidence)
    assert Mechanism() == diagnosis.mechanism
    assert () == diagnosis.holders
    assert ["line_of_another_host"] == [finding.claim for finding in diagnosis.findings]
    assert diagnosis.summary.startswith("web-7 reset TCP connections because of too many orphaned sockets")
    assert ["On web-7, run sockmem-agent diagnose."] == [advice.action for advice in diagnosis.advice]
    assert "--message 2" in {gap.what for gap in diagnosis.gaps}


def test_lines_of_several_hosts_are_not_put_together(judged: list[tuple[Any, ...]]) -> None:
    lines = [f"May  6 07:08:09 {host} kernel: {ORPHANS}" for host in ("web-7.example.org", "WEB-7", "db-8")]
    elsewhere = run("--json", "--message", "\n".join(lines))
    assert ["web-7.example.org", "WEB-7"] == [event.host for event in judged[0][1]]
    assert "--message: the line is from db-8: it is left out" in elsewhere.stderr
    assert ["--message"] == [gap.what for gap in decode(elsewhere).gaps if "db-8" in gap.why]

    here = decode(run("--json", "--message", "\n".join([*lines, f"kernel: {ORPHANS}"])))
    assert [None] == [event.host for event in judged[1][1]]
    assert here.mechanism.orphan is not None
    assert 3 == len([gap for gap in here.gaps if gap.what == "--message"])


def test_several_messages_are_several_events(tree: Path, judged: list[tuple[Any, ...]]) -> None:
    both = f"{ORPHANS}\n\nTCP: out of memory -- consider tuning tcp_mem\n"
    diagnosis = decode(run("--proc-root", str(tree), "--json", "--message", both, "--message", "Out of socket memory"))

    assert ["too_many_orphans", "tcp_mem", "out_of_socket_memory"] == [event.kind for event in judged[0][1]]
    assert "both" == diagnosis.cause


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("TCP: time wait bucket table overflow", "it is about another limit: the TIME_WAIT table"),
        ("Jan 22 15:05:39 h kernel: nf_conntrack: table full, dropping packet", "another limit: the connection"),
        ("the weather is fine", "ignored"),
        (f"Jan 22 15:05:39 h sshd[1]: {ORPHANS}", "ignored"),
    ],
)
def test_a_line_of_something_else_is_told_and_left_out(
    tree: Path, line: str, hint: str, judged: list[tuple[Any, ...]]
) -> None:
    result = run("--proc-root", str(tree), "--json", "--message", line)

    assert () == judged[0][1]
    assert "--message 1: not a kernel socket-memory message; " in result.stderr
    assert hint in result.stderr
    assert "tcp_memory" == decode(result).cause


MEMORY = "TCP: out of memory -- consider tuning tcp_mem"


@pytest.mark.parametrize(
    ("line", "kind", "uptime", "text"),
    [
        ("Out of Socket Memory", "out_of_socket_memory", None, "Out of socket memory"),
        ("> [394065.081139] Out of socket memory  ", "out_of_socket_memory", 394065.081139, "Out of socket memory"),
        (f"kernel: [759720.237846] {MEMORY}consider tuning tcp_mem", "tcp_mem", 759720.237846, MEMORY),
        ("TCP: out of memory \u2013 consider tuning tcp_mem", "tcp_mem", None, MEMORY),
        ("TCP: out of memory\u2014consider tuning tcp_mem", "tcp_mem", None, MEMORY),
        ("\u2026 TCP: out of memory - considering tuning tcpmem", "tcp_mem", None, MEMORY),
        ("tcp:out of memory -- consider tuning tcp_mem", "tcp_mem", None, MEMORY),
        (f"] {MEMORY}", "tcp_mem", None, MEMORY),
        ("27341.246171] TCP: too many of orphaned sockets", "too_many_orphans", None, "too many of orphaned"),
        ("TCP: TOO MANY OF ORPHANED SOCKETS", "too_many_orphans", None, "TCP: too many of orphaned sockets"),
        ("TCP:Too many of orphaned sockets", "too_many_orphans", None, "TCP: too many of orphaned sockets"),
        (f"{ORPHANS}.", "too_many_orphans", None, ORPHANS),
        (f"`{ORPHANS}`", "too_many_orphans", None, ORPHANS),
        (f"\u201c{ORPHANS}\u201d", "too_many_orphans", None, ORPHANS),
        (f"... kernel: {MEMORY}", "tcp_mem", None, MEMORY),
        (f"** kernel: {ORPHANS}", "too_many_orphans", None, ORPHANS),
        (f"jp58 kernel: {ORPHANS}", "too_many_orphans", None, ORPHANS),
        (f"14:32:05 kernel: [  245.123] {ORPHANS}", "too_many_orphans", 245.123, ORPHANS),
        (f"aoûts 22 18:50:14 jp58 kernel: [ 12.345678] {ORPHANS}", "too_many_orphans", 12.345678, ORPHANS),
        (f"Jan 22 15:05:39 jp58 {ORPHANS}", "too_many_orphans", None, ORPHANS),
        (f"messages:12:Jan 22 15:05:39 h kernel: {MEMORY}", "tcp_mem", None, MEMORY),
        (f"<14>May 21 23:14:08 h kernel: [4621211.812] {MEMORY}", "tcp_mem", 4621211.812, MEMORY),
    ],
)
def test_a_line_copied_by_hand_is_evidence(
    *, tree: Path, line: str, kind: str, uptime: float | None, text: str, judged: list[tuple[Any, ...]]
) -> None:
    diagnosis = decode(run("--proc-root", str(tree), "--json", "--message", line))

    (event,) = judged[0][1]
    assert (kind, "claimed", uptime) == (event.kind, event.provenance, event.uptime)
    assert text in event.line
    assert not any("--message" in gap.what for gap in diagnosis.gaps)


@pytest.mark.parametrize(
    "line",
    [
        f"14,12,1234567,-;{ORPHANS}",
        f"Mon May  6 07:08:09 2024 user.info kernel: {ORPHANS}",
        f"<6>1 2024-05-06T07:08:09Z web-7 myapp 12 - - {ORPHANS}",
        f"<6>1 2024-05-06T07:08:09Z web-7 kernel 4711 - - {ORPHANS}",
        f"kernel[4711]: {ORPHANS}",
        f"user  :info  : [  123.456789] {ORPHANS}",
        f"> user  :info  : [  123.456789] {ORPHANS}",
        f"[INFO] kernel: {ORPHANS}",
        f"alice [  123.456789] {ORPHANS}",
        f"logger -t kernel {ORPHANS}",
    ],
)
def test_an_envelope_that_names_another_speaker_is_not_taken_off(
    tree: Path, line: str, judged: list[tuple[Any, ...]]
) -> None:
    run("--proc-root", str(tree), "--json", "--message", line)

    assert () == judged[0][1]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('[{"_TRANSPORT": "kernel", "MESSAGE": "%s"}, {"_TRANSPORT": "kernel", "MESSAGE": "%s"}]', 2),
        ('{\n  "_TRANSPORT": "kernel",\n  "MESSAGE": "%s"\n}', 1),
        ('{"hits": {"hits": [{"_source": {"_TRANSPORT": "kernel", "MESSAGE": "%s"}}]}}', 1),
        ("__CURSOR=s=1\n_TRANSPORT=kernel\nMESSAGE=%s\n", 1),
        ('time,host,facility,message\n2024-08-18T06:33:14Z,jp58,kern,"%s"\n2024-08-18T06:33:15Z,jp58,kern,x', 1),
        ('{\n "dmesg": [\n  {"pri": 6, "time": 1.5, "msg": "%s"},\n  {"pri": 6, "time": 2.5, "msg": "x"}\n ]\n}', 1),
    ],
)
def test_records_are_evidence_as_scan_reads_them(
    tree: Path, text: str, count: int, judged: list[tuple[Any, ...]]
) -> None:
    result = run("--proc-root", str(tree), "--json", "--message", text.replace("%s", ORPHANS))

    assert ["too_many_orphans"] * count == [event.kind for event in judged[0][1]]
    assert "" == result.stderr


def test_a_head_that_is_whole_is_read_before_a_garbled_text(judged: list[tuple[Any, ...]]) -> None:
    result = run("--message", "> Jan 22 15:05:39 jp58 kernel: TCP: out of memory \u2013 consider tuning tcp_mem.")

    event = judged[0][1][0]
    assert (1, 22, "jp58") == (event.at.month, event.at.day, event.host)
    assert f"--message 1: read as '{MEMORY}'" in result.stderr


def test_each_kernel_line_of_the_corpus_is_evidence_when_it_is_handed_over(
    tree: Path, judged: list[tuple[Any, ...]]
) -> None:
    rows = [row for row in CORPUS if row["match"]]
    run("--proc-root", str(tree), *(part for row in rows for part in ("--message", row["line"])))

    expected = [(row["kind"], row["suppressed"]) for row in rows]
    assert expected == [(event.kind, event.suppressed) for event in judged[0][1]]


def test_each_other_line_of_the_corpus_is_left_out_and_a_gap(tree: Path, judged: list[tuple[Any, ...]]) -> None:
    # What a mail quotes is no record of that log, but the person who hands it over vouches for it.
    # MPTCP's orphan line is one of ours, as the corpus's README says.
    others = [row for row in CORPUS if not row["match"] and not row["line"].startswith("> ")]
    rows = [row for row in others if "MPTCP: too many" not in row["line"]]
    result = run("--json", "--proc-root", str(tree), *(part for row in rows for part in ("--message", row["line"])))

    assert () == judged[0][1]
    gaps = [gap.what for gap in decode(result).gaps if gap.what.startswith("--message")]
    assert [f"--message {number}" for number in range(1, len(rows) + 1)] == gaps


@pytest.mark.parametrize(
    ("line", "why", "confidence"),
    [
        ("the weather is fine", "not a kernel socket-memory message; ignored", "possible"),
        (f"Jan 22 15:05:39 h sshd[1]: {ORPHANS}", "not a kernel socket-memory message; ignored", "possible"),
        (f"Jan 22 15:05:39 h root: {ORPHANS}", "not a kernel socket-memory message; ignored", "possible"),
        ("too many orphaned sockets make the counter grow", "ignored", "possible"),
        ("Out of memory: Kill process 1 (java)", "another limit: the host's RAM", "likely"),
        ("net_ratelimit: 25 callbacks suppressed", "a count of suppressed messages", "possible"),
        ("", "not a kernel socket-memory message; ignored", "possible"),
    ],
)
def test_all_is_not_well_where_a_line_was_handed_over_and_left_out(
    tree: Path, line: str, why: str, confidence: str
) -> None:
    (tree / "net/sockstat").write_text("TCP: inuse 24 orphan 0 tw 58 alloc 30 mem 7\n")
    result = run("--proc-root", str(tree), "--json", "--message", line)

    diagnosis = decode(result)
    (gap,) = [gap for gap in diagnosis.gaps if gap.what == "--message 1"]
    assert why in gap.why
    assert f"sockmem-agent: {gap.what}: {gap.why}\n" == result.stderr
    assert ("none", confidence, confidence) == (
        diagnosis.cause,
        diagnosis.confidence,
        diagnosis.findings[0].confidence,
    )
    assert "All is well" not in diagnosis.summary
    assert f"but the line passed in was not used: {gap.why.removesuffix('; ignored')}." in diagnosis.summary


def test_lines_that_are_left_out_do_not_hide_one_that_is_not(tree: Path) -> None:
    diagnosis = decode(run("--proc-root", str(tree), "--json", "--message", f"the weather is fine\n{ORPHANS}"))

    assert ("orphans", "likely") == (diagnosis.cause, diagnosis.confidence)
    assert "--message 1" in [gap.what for gap in diagnosis.gaps]


@pytest.mark.parametrize(
    ("line", "missing", "said"),
    [
        (MEMORY, "sys/net/ipv4/tcp_mem", "; the limit could not be read."),
        (MEMORY, "net/sockstat", "; how much it used could not be read."),
        (ORPHANS, "sys/net/ipv4/tcp_max_orphans", "; the limit could not be read."),
        (ORPHANS, "net/sockstat", "; how many there were could not be read."),
    ],
)
def test_what_could_not_be_read_is_what_the_summary_says(tree: Path, line: str, missing: str, said: str) -> None:
    (tree / missing).unlink()

    assert said in decode(run("--proc-root", str(tree), "--json", "--message", line)).summary


@pytest.mark.parametrize("line", [MEMORY, ORPHANS])
def test_neither_number_nor_limit_could_be_read(tmp_path: Path, line: str) -> None:
    summary = decode(run("--proc-root", str(tmp_path), "--json", "--message", line)).summary

    assert "; neither how m" in summary
    assert " nor the limit could be read." in summary


def test_the_other_limit_is_in_the_summary_when_it_is_reached_too(tree: Path) -> None:
    asked = ("--proc-root", str(tree), "--json", "--message")

    assert "TCP memory has reached its limit, too." in decode(run(*asked, ORPHANS)).summary
    (tree / "net/sockstat").write_text("TCP: inuse 24 orphan 40000 tw 58 alloc 863 mem 7\n")
    assert "Orphaned sockets have reached their limit, too." in decode(run(*asked, MEMORY)).summary


def test_samples_of_the_service_are_used_where_they_can_be_read(state: Path, judged: list[tuple[Any, ...]]) -> None:
    store = Store(state)
    os.close(store.open_for_writing())
    sample = Sample(at=datetime.now(timezone.utc) - timedelta(seconds=30), orphan=3)
    store.samples.append(sample)
    run("--json")

    assert (sample,) == judged[0][2]


def test_samples_of_this_host_say_nothing_of_a_tree(state: Path, tree: Path, judged: list[tuple[Any, ...]]) -> None:
    store = Store(state)
    os.close(store.open_for_writing())
    store.samples.append(Sample(at=datetime.now(timezone.utc), orphan=3))
    run("--proc-root", str(tree))

    assert () == judged[0][2]


def test_samples_that_may_not_be_read_are_done_without(state: Path) -> None:
    state.parent.mkdir(exist_ok=True)
    state.write_text("a file where the directory should be")

    assert decode(run("--json")).cause


def test_a_broken_configuration_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[store\n")
    result = run("--json", "--config", str(tmp_path / "config.toml"))

    assert decode(result).cause
    assert f"{tmp_path}/config.toml: " in result.stderr
    assert 1 == result.stderr.count("\n")


def store_incident(state: Path, tree: Path, *, snapshots: bool = True) -> Incident:
    event = make_event("orphans", "claimed", at=NOW, source="x:1", line=ORPHANS)
    old = Diagnosis(cause="undetermined", confidence="possible", summary="an older opinion")
    store = Store(state)
    os.close(store.open_for_writing())
    incident_id = "20261122T150539Z-7f3a"
    store.new_directory(incident_id)
    names = [
        store.write_snapshot(
            incident_id, number, msgspec.structs.replace(take_snapshot(tree, at, "event"), trigger=kind)
        )
        for number, (at, kind) in enumerate(((NOW, "event"), (NOW + timedelta(seconds=5), "follow_up")), 1)
    ]
    incident = Incident(
        id=incident_id,
        host="web1",
        kernel=None,
        boot_id=None,
        opened_at=NOW,
        last_seen_at=NOW,
        events={"too_many_orphans": 1},
        provenance="claimed",
        first_event=event,
        cause=old.cause,
        confidence=old.confidence,
        summary=old.summary,
        diagnosis=old,
        snapshots=tuple(names) if snapshots else (),
        witness=Witness(kills=5),
    )
    store.commit(incident)
    store.samples.append(Sample(at=NOW - timedelta(seconds=10), orphan=9))
    return incident


@pytest.mark.parametrize("text", ["20261122T150539Z-7f3a", "2026", "last"])
def test_a_stored_incident_is_judged_again_from_its_evidence(
    state: Path, tree: Path, judged: list[tuple[Any, ...]], text: str
) -> None:
    incident = store_incident(state, tree)
    diagnosis = decode(run("--incident", text, "--json"))

    snapshot, events, history, witness = judged[0]
    assert isinstance(snapshot, Snapshot)
    assert (NOW, "event") == (snapshot.taken_at, snapshot.trigger)
    assert (incident.first_event,) == events
    assert Witness(kills=5) == witness
    assert [9] == [sample.orphan for sample in history]
    assert "orphans" == diagnosis.cause


def test_no_such_incident_is_66_and_one_line() -> None:
    result = run("--incident", "2019", "--json")

    assert (66, "") == (result.exit_code, result.stdout)
    assert "no incident '2019'" in result.stderr
    assert 1 == result.stderr.count("\n")


def test_a_snapshot_that_is_gone_is_a_gap_and_the_others_are_diagnosed(state: Path, tree: Path) -> None:
    incident = store_incident(state, tree)
    (Store(state).path(incident.id) / "snapshot-001.json").unlink()
    result = run("--incident", "last")

    assert 0 == result.exit_code
    assert "snapshot-001.json" in " ".join(result.stdout.split("Unknown:")[1].split())


def test_an_incident_without_a_snapshot_is_66(state: Path, tree: Path) -> None:
    store_incident(state, tree, snapshots=False)
    result = run("--incident", "last")

    assert 66 == result.exit_code
    assert "has no readable snapshot" in result.stderr


@pytest.mark.parametrize(
    "args", [("--incident", "last", "--proc-root", "/proc"), ("--incident", "last", "--message", ORPHANS), ("extra",)]
)
def test_what_does_not_go_together_is_wrong_usage(args: tuple[str, ...]) -> None:
    assert 2 == run(*args).exit_code


def test_help_has_an_example() -> None:
    assert "Example: sockmem-agent diagnose" in run("--help").stdout


@pytest.mark.parametrize("head", [b"\xff\xfe ", b"Jan 22 15:05:39 caf\xe9 kernel: "])
def test_a_message_that_is_no_utf_8_is_no_traceback(tree: Path, head: bytes) -> None:
    program = [sys.executable, "-m", "agent", "diagnose", "--json", "--proc-root", str(tree), "--message"]
    done = subprocess.run(
        [*program, head + b"TCP: too many orphaned sockets "], capture_output=True, check=False, timeout=60
    )

    assert 0 == done.returncode
    assert b"Traceback" not in done.stderr
    assert "orphans" == msgspec.json.decode(done.stdout, type=Diagnosis).cause


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to another user")
def test_this_host_is_diagnosed_without_root(tmp_path: Path) -> None:
    # Imported before stepping down: the interpreter of the tests may live in root's own home.
    imports = "import heapq, os, msgspec, agent.cli.diagnose as d; msgspec.toml.decode('')"
    steps = f"{imports}; os.setgroups([]); os.setuid(65534); d.command()"
    program = [sys.executable, "-c", steps, "--json", "--config", "/dev/null"]
    done = subprocess.run(program, capture_output=True, check=False, timeout=60)

    assert "none" == msgspec.json.decode(done.stdout, type=Diagnosis).cause
    assert 0 == done.returncode
