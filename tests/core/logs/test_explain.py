import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.core.kernel.messages import TEXT, detect
from agent.core.logs.explain import NO_NEIGHBOR, Step, explain, holds_text, is_refused
from agent.core.logs.records import to_record

NOW = datetime(2024, 11, 22, 12, tzinfo=timezone.utc)
T = "TCP: too many orphaned sockets"
CORPUS = [
    json.loads(line)["line"]
    for line in (Path(__file__).parent.parent.parent / "corpus/lines.jsonl").read_text().splitlines()
]


def steps_of(line: str) -> tuple[Step, ...]:
    record = to_record(line.encode(), now=NOW, source="log:1", ordinal=1)
    event = detect(record) if record else None
    return explain(line, record, event if event and event.kind != "suppressed" else None)


def test_an_event_has_every_step_with_what_was_read() -> None:
    assert (
        Step("text", T),
        Step("envelope", "time 2024-08-18T08:33:14+00:00, uptime 12.5, host jp58"),
        Step("speaker", "kernel"),
        Step("message", T),
        Step("event", "too_many_orphans"),
    ) == steps_of(f"Aug 18 08:33:14 jp58 kernel: [12.5] {T}")


@pytest.mark.parametrize(
    ("line", "step", "reason"),
    [
        (f"Aug 18 08:33:14 jp58 sshd[7]: {T}", "speaker", "'sshd[7]:' is the tag of another program"),
        (f"Aug 18 08:33:14 jp58 kernel[7]: {T}", "speaker", "'kernel[7]:' is the tag of another program"),
        (
            f"<14>Aug 18 08:33:14 jp58 kernel: {T}",
            "speaker",
            "priority <14> is another facility's; the kernel's are <0> to <7>",
        ),
        (f"Aug 18 08:33:14 jp58 user.info kernel: {T}", "speaker", "the facility is user; the kernel's is kern"),
        (f"2024-08-18 08:33:14 INFO kernel: {T}", "speaker", "'INFO' is a level as other programs' logs have it"),
        (f"2024-08-18 08:33:14 jp58 {T}", "speaker", 'no "kernel:" and no printk stamp'),
        (f"[12.345678] shop {T}", "speaker", 'no "kernel:" stands behind the host'),
        (f"2024-08-18T08:33:14Z [main] kernel: {T}", "speaker", "'[main]' is a thread or a module"),
        (f"10.0.0.21: user: info: [2024-08-18T08:33:14Z]: {T}", "speaker", "the facility is user"),
        (f"2024-08-18T08:33:14Z stdout F kernel: {T}", "speaker", "no date of its own stands behind 'stdout F'"),
        (
            f'{{"level":"warn","msg":"Aug 18 08:33:14 jp58 kernel: {T}"}}',
            "speaker",
            "the level 'warn' is that of another",
        ),
        (f'{{"alert":"x","msg":"kernel: {T}"}}', "speaker", "a record with the field alert quotes lines"),
        (f"12,1,1,-;{T}", "speaker", "another facility than the kernel's"),
        (f'{{"ident":"nagios","msg":"{T}"}}', "speaker", "the field ident is 'nagios', not the kernel's"),
        (f'{{"_TRANSPORT":"syslog","MESSAGE":"{T}"}}', "speaker", "the field transport is 'syslog'"),
        (f'{{"facility":3,"msg":"{T}"}}', "speaker", "the field facility is '3'"),
        (f"Aug 18 08:33:14 relay Aug 18 08:33:10 jp58 sshd[7]: {T}", "speaker", "'sshd[7]:' is the tag of another"),
        (f'{{"login":"Aug 18 08:33:14 jp58 kernel: {T}"}}', "speaker", "the field login does not hold log lines"),
        (f'{{"msg":"{T}"}}', "speaker", "no field says that the kernel wrote it"),
        (f'{{"log":"kernel: {T}","stream":"stdout"}}', "speaker", "the line in it has no date and kernel tag"),
        (f'{{"msg":["{T}","x"]}}', "speaker", "the message in it is no field's value"),
        (f'{{"msg":"Aug 18 08:33:13 jp58 kernel: x\\nAug 18 08:33:14 jp58 kernel: {T}"}}', "speaker", "several lines"),
        (f'{{"msg":"Aug 18 08:33:14 jp58 kernel: {T} (x)"}}', "speaker", "more follows the message in its field"),
        (f'{{"role":"user","msg":"Aug 18 08:33:14 jp58 kernel: {T}"}}', "speaker", "with the field role is no log's"),
        (f"<6>1 2024-08-18T08:33:14Z jp58 shop 12 - - {T}", "speaker", "application and process are 'shop 12'"),
        (f"<6>1 2024-08-18T08:33:14Z jp58 kernel 12 - - {T}", "speaker", "application and process are 'kernel 12'"),
        ("kernel: TCP: out of memory \u2013 consider tuning tcp_mem", "text", "the dash is not the kernel's"),
        (f'{{"msg":"{T}"', "speaker", "it is no whole JSON object"),
        (f"he said {T}", "envelope", "'he' is no part of a line of the kernel's"),
        (f"    {T}", "envelope", "it is indented, as a quotation is"),
        (f"kernel: {T} (see below)", "message", "'(see below)' follows the message"),
        (f"kernel: \x1b[1m{T}\x1b[0m!", "message", "'!' follows the message"),
    ],
)
def test_a_refused_line_has_the_step_that_refused_it_and_why(line: str, step: str, reason: str) -> None:
    *_, refused, event = steps_of(line)

    assert (step, False) == (refused.name, refused.passed)
    assert reason in refused.detail
    assert Step("event", "none", passed=False) == event


def test_what_was_read_before_the_refusal_is_shown() -> None:
    assert Step("envelope", "Aug 18 08:33:14 jp58") == steps_of(f"Aug 18 08:33:14 jp58 sshd[7]: {T}")[1]


def test_a_count_of_suppressed_messages_waits_for_a_neighbor() -> None:
    assert Step("event", NO_NEIGHBOR, passed=False) == steps_of("kernel: net_ratelimit: 3 callbacks suppressed")[-1]


@pytest.mark.parametrize("line", [line for line in CORPUS if TEXT.search(line)])
def test_every_line_of_the_corpus_that_holds_a_message_is_an_event_or_has_a_reason(line: str) -> None:
    *_, last = steps = steps_of(line)

    assert last.passed == all(step.passed for step in steps)
    assert all(step.detail and "no order" not in step.detail for step in steps)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (f"Aug 18 08:33:14 jp58 sshd[7]: {T}", True),
        (f"kernel: {T}.", True),
        ("kernel: TCP: out of memory \u2014 consider tuning tcp_mem", True),
        ("kernel: TCP: out of memory &ndash; consider tuning tcp_mem", True),
        (f"kernel: {T}", False),
        (f"kernel: MP{T}", False),
        ("sshd: net_ratelimit: 3 callbacks suppressed", False),
        ("kernel: eth0: link up", False),
    ],
)
def test_a_line_is_refused_that_holds_one_of_the_three_messages_and_makes_no_event(line: str, *, refused: bool) -> None:
    record = to_record(line.encode(), now=NOW, source="log:1", ordinal=1)

    assert refused == is_refused(line, record)


def test_colors_hide_no_message() -> None:
    assert holds_text("TCP: \x1b[1mtoo many\x1b[0m orphaned sockets")
