import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness import on_terminal, plain
from msgspec.structs import replace

from agent.cli import group
from agent.cli.incident_text import COUNTS, HEADINGS, row_of
from agent.cli.incidents import pack
from agent.cli.printing import lay_out
from agent.core import folding
from agent.core.cursor import Resume
from agent.core.delivery import Receipt, Trouble
from agent.core.model import (
    Advice,
    Diagnosis,
    Event,
    Finding,
    Holder,
    Incident,
    LogRecord,
    Mechanism,
    Notice,
    Pressure,
    Recurrence,
    Sample,
    Silence,
    Snapshot,
)
from agent.core.readings import Gap, Sockstat, TcpSockstat
from agent.core.settings import StoreSettings
from agent.store import Outbox, Store, keep_samples, write_silence

Run = Callable[..., Result]
Keep = Callable[..., str]
Tell = Callable[..., None]

DIAGNOSIS = Diagnosis(
    cause="orphans",
    confidence="certain",
    summary="The kernel ran out of orphaned sockets.",
    mechanism=Mechanism(page_size_bytes=4096),
    findings=(Finding(claim="orphans at the limit", cause="orphans", confidence="certain"),),
    advice=(Advice(action="Find who leaves them", why="they are somebody's", risk="none", commands=("ss -tan",)),),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "state", StoreSettings(min_free_bytes=0))
    store.open_for_writing()
    return store


@pytest.fixture
def keep(store: Store, clock: Callable[[], datetime], make_decided: Callable[..., tuple[LogRecord, Event]]) -> Keep:
    """Commit an incident that opened ``seconds`` from now, with two channels to be told and no receipts."""

    def commit(seconds: float = 0, *, closed: bool = True, host: str = "web1") -> str:
        at = clock.time + timedelta(seconds=seconds)
        record, event = make_decided(at=at, count=12)
        sockstat = Sockstat(tcp=TcpSockstat(orphan=65_535, mem=12_345))
        snapshot = Snapshot(
            taken_at=at,
            trigger="event",
            host=host,
            kernel="6.1.0-37-amd64",
            sockstat=sockstat,
            sysctls={"net.ipv4.tcp_max_orphans": (65_536,), "net.ipv4.tcp_mem": (50_000, 66_000, 100_000)},
        )
        incident = folding.open_incident(replace(event, host=host), at, snapshot, DIAGNOSIS)
        store.new_directory(incident.id)
        name = store.write_snapshot(incident.id, 1, snapshot)
        end = at + timedelta(seconds=300)
        incident = replace(
            incident, suppressed_at_least=240, snapshots=(name,), last_seen_at=end, closed_at=end if closed else None
        )
        notice = Notice(
            id="msg",
            type="sockmem.incident.opened",
            at=at,
            reason="the kernel ran out",
            channels=("ops", "pager"),
            data=incident,
        )
        incident = replace(incident, notices=(store.write_notice(incident.id, 1, notice),))
        store.commit(replace(incident, resume=Resume(generation=1, cursor=record.cursor)))
        return incident.id

    return commit


@pytest.fixture
def tell(store: Store, clock: Callable[[], datetime]) -> Tell:
    """Write the receipt of a channel."""

    def write(incident_id: str, channel: str, outcome: str, detail: str = "HTTP 200") -> None:
        stem, notice, _ = store.notices(incident_id)[0]
        receipt = Receipt(notice=notice.id, channel=channel, outcome=outcome, at=clock.time, attempts=3, detail=detail)
        Outbox(store).write_receipt(incident_id, stem, receipt)

    return write


@pytest.fixture
def run(tmp_path: Path, store: Store) -> Run:
    """Run a command on the store, and return its result."""
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\ndirectory = "{store.directory}"\nmin_free_bytes = 0\n')

    def invoke(*args: str) -> Result:
        command, *rest = args
        environ = {"STATE_DIRECTORY": None, "NO_COLOR": None}
        return CliRunner().invoke(group, ["incidents", command, "--config", str(config), *rest], env=environ)

    return invoke


def test_list_without_incidents_says_where_it_looked(run: Run, store: Store) -> None:
    result = run("list")

    assert (result.exit_code, result.stdout) == (0, f"no incidents in {store.directory}\n")
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.parametrize("command", [["list"], ["show", "last"]])
def test_json_is_written_for_a_directory_whose_name_is_not_utf_8(store: Store, keep: Keep, command: list[str]) -> None:
    kept = keep()
    place = store.directory.rename(store.directory.with_name(os.fsdecode(b"st\xe4te")))
    result = CliRunner().invoke(group, ["incidents", *command, "--json"], env={"STATE_DIRECTORY": str(place)})

    assert (0, True) == (result.exit_code, f"/st\ufffdte/incidents/{kept}" in result.stdout)


def test_list_shows_one_line_an_incident_oldest_first(run: Run, keep: Keep, tell: Tell) -> None:
    second, first = keep(3600, closed=False), keep()
    tell(first, "ops", "delivered")
    tell(first, "pager", "gave_up")

    lines = run("list").stdout.splitlines()

    assert lines[0].split()[:2] == ["ID", "OPENED"]
    assert [first, second] == [line.split()[0] for line in lines[1:]]
    for part in ("orphans (certain)", " 12 ", " 240+ ", "web1", "1/2, 1 GIVEN UP", "5 min"):
        assert part in lines[1], part
    for part in ("OPEN", "0/2, 2 pending"):
        assert part in lines[2], part


def test_list_json_is_one_list(run: Run, keep: Keep, tell: Tell, store: Store) -> None:
    incident_id = keep()
    tell(incident_id, "ops", "delivered")

    (entry,) = json.loads(run("list", "--json").stdout)

    assert entry["id"] == incident_id
    assert entry["events"] == {"too_many_orphans": 12}
    assert entry["suppressed_at_least"] == 240
    assert entry["notices"] == {
        "pending": 1,
        "delivered": 1,
        "gave_up": 0,
        "digested": 0,
        "superseded": 0,
        "skipped": 0,
    }
    assert entry["path"] == str(store.path(incident_id))


def test_what_was_told_in_a_digest_or_not_sent_is_shown_as_that(run: Run, keep: Keep, tell: Tell) -> None:
    incident_id = keep()
    tell(incident_id, "ops", "digested", "msg_digest_07: HTTP 200")
    tell(incident_id, "pager", "skipped", "its opening was not sent to this channel")

    page = run("show", incident_id).stdout

    assert re.search(r"ops: +opened: the kernel ran out; +sent in a digest .*msg_digest_07: HTTP 200", page)
    assert re.search(r"pager: +opened: the kernel ran out; +not sent", page)
    assert "0/2, 1 digested, 1 not sent" in run("list").stdout


@pytest.mark.parametrize(
    "option", ["--json", "--by-kind", "--by-kind --json", "--limit 1", "--open", "--since 2030-01-01"]
)
@pytest.mark.parametrize("broken", [("{", ""), ('"advice": [', '"advice": [7, ')])
def test_list_names_what_cannot_be_read_in_a_line_each_and_shows_the_rest(
    run: Run, keep: Keep, store: Store, option: str, broken: tuple[str, str]
) -> None:
    bad, good, worse = keep(), keep(60, closed=False), keep(120)
    for each in (bad, worse):
        path = store.path(each) / "incident.json"
        path.write_text(path.read_text().replace(*broken, 1))

    result = run("list", *option.split())

    assert result.exit_code == 66
    assert ("web1" if "--by-kind" in option else good) in result.stdout
    assert bad not in result.stdout
    assert [bad, worse] == [line.split(": ")[1].removeprefix("incident ") for line in result.stderr.splitlines()]


@pytest.mark.parametrize("option", ["", "--json", "--by-kind"])
def test_list_has_one_whole_incident_in_memory_at_a_time(run: Run, keep: Keep, store: Store, option: str) -> None:
    size, count = 1_000_000, 10
    for number in range(count):
        incident = store.load(keep(60 * number))
        whole = replace(incident, diagnosis=replace(DIAGNOSIS, gaps=(Gap(what="x" * size, why="it is long"),)))
        store.commit(replace(whole, recurrence=Recurrence(count=number + 1, since=incident.opened_at)))
    run("list")

    tracemalloc.start()
    try:
        result = run("list", *option.split())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result.exit_code == 0
    # Its text and what was read of it; by kind, also the newest.
    assert peak < 5 * size


def test_an_incident_that_cannot_be_read_is_not_denied(run: Run, keep: Keep, store: Store) -> None:
    (store.path(keep()) / "incident.json").write_text("{")

    assert f"no readable incidents in {store.directory}\n" == run("list").stdout


def test_what_was_interrupted_is_named_and_no_failure(run: Run, keep: Keep, store: Store) -> None:
    keep()
    (store.path(keep(60)) / "incident.json").unlink()

    result = run("list")

    assert (0, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "interrupted before it was committed" in result.stderr


@pytest.mark.parametrize("removed", ["incident.json", "."])
def test_what_prune_removes_while_it_is_listed_is_no_failure(
    run: Run, keep: Keep, store: Store, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    pruned, stays = keep(), keep(60)
    load = Store.load

    def prune_before(asked: Store, incident_id: str) -> Incident:
        path = store.path(pruned) / removed
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return load(asked, incident_id)

    monkeypatch.setattr(Store, "load", prune_before)
    result = run("list", "--json")

    assert (0, [stays]) == (result.exit_code, [entry["id"] for entry in json.loads(result.stdout)])


def test_an_incident_that_prune_removes_before_its_notices_are_read_is_listed(
    run: Run, keep: Keep, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = keep()
    load = Store.load

    def prune_after(asked: Store, incident_id: str) -> Incident:
        found = load(asked, incident_id)
        shutil.rmtree(store.path(pruned))
        return found

    monkeypatch.setattr(Store, "load", prune_after)
    result = run("list")

    assert (0, "") == (result.exit_code, result.stderr)
    assert pruned in result.stdout


def listed(run: Run, *args: str) -> list[str]:
    """Give the ids that are listed, which are the same in both forms."""
    ids = [entry["id"] for entry in json.loads(run("list", "--json", *args).stdout)]
    assert ids == re.findall(r"^\d{8}T\d{6}Z-[0-9a-f]{4}", run("list", *args).stdout, re.MULTILINE)
    return ids


def test_since_leaves_out_what_was_over_before(run: Run, keep: Keep) -> None:
    # Each lasts 300 s, from 15:05:39Z on.
    first, second, going_on = keep(), keep(3600), keep(-86_400, closed=False)

    assert [going_on, first, second] == listed(run, "--since", "2026-11-22T15:10:39Z")
    assert [going_on, second] == listed(run, "--since", "2026-11-22T15:10:40Z")
    assert [going_on] == listed(run, "--since", "2030-01-01")


def test_limit_keeps_the_newest(run: Run, keep: Keep) -> None:
    ids = [keep(seconds) for seconds in (0, 60, 120)]

    assert ids[1:] == listed(run, "--limit", "2")
    assert ids == listed(run, "--limit", "9")
    assert 2 == run("list", "--limit", "0").exit_code


def test_open_leaves_out_what_is_over(run: Run, keep: Keep) -> None:
    still, newer = keep(closed=False), keep(60, closed=False)
    keep(120)

    assert [still, newer] == listed(run, "--open")
    assert [newer] == listed(run, "--open", "--limit", "1", "--since", "2h")


def test_nothing_that_was_asked_for_is_said_with_what_was_asked_for(run: Run, keep: Keep, store: Store) -> None:
    keep()

    result = run("list", "--open", "--since", "2030-01-01T00:00:00Z")
    assert 0 == result.exit_code
    assert re.fullmatch(rf"no open incidents since 20\S+ \S+ \S+ in {store.directory}\n", result.stdout)
    assert "[]\n" == run("list", "--open", "--json").stdout


@pytest.fixture
def kinds(keep: Keep, store: Store) -> list[str]:
    """Keep four incidents of three kinds: nginx twice, the second still open, haproxy, and a warning."""

    def put(seconds: float, unit: str, **changes: Any) -> str:
        incident = store.load(keep(seconds, closed="class_" in changes or unit == "haproxy" or not seconds))
        holder = Holder(unit=unit, sockets=9, orphans=900, bytes=1)
        store.commit(replace(incident, diagnosis=replace(DIAGNOSIS, holders=(holder,)), **changes))
        return incident.id

    pressure = Pressure(level=2, cause="tcp_memory", claim="TCP memory is high", value=2, limit=1)
    warning = {"class_": "pressure", "events": {}, "suppressed_at_least": 0, "pressure": pressure}
    return [
        put(0, "nginx@1.service"),
        put(3600, "haproxy"),
        put(7200, "nginx@2.service"),
        put(10800, "nginx@2.service", **warning),
    ]


@pytest.mark.usefixtures("kinds")
def test_by_kind_groups_by_cause_mechanism_and_holder(run: Run) -> None:
    found = json.loads(run("list", "--by-kind", "--json").stdout)
    table = [re.split("  +", line) for line in run("list", "--by-kind").stdout.splitlines()]

    assert [
        ("orphans", "limit", "haproxy", 1),
        ("orphans", "limit", "nginx@*.service", 2),
        ("tcp_memory", "warning", None, 1),
    ] == [(kind["cause"], kind["mechanism"], kind["holder"], kind["incidents"]) for kind in found]
    assert ("2026-11-22T15:05:39Z", "2026-11-22T17:10:39Z") == (found[1]["first_at"], found[1]["last_at"])
    assert 3 == len({kind["signature"] for kind in found})
    assert ["KIND", "INCIDENTS", "FIRST", "LAST", "CAUSE", "HELD BY", "HOST"] == table[0]
    assert [found[1]["signature"], "2"] == table[2][:2]
    assert ["orphans (limit)", "nginx@*.service", "web1"] == table[2][4:]


def test_by_kind_takes_since_open_and_limit(run: Run, kinds: list[str]) -> None:
    def found(*options: str) -> list[tuple[str | None, int]]:
        text = run("list", "--by-kind", "--json", *options).stdout
        return [(kind["holder"], kind["incidents"]) for kind in json.loads(text)]

    assert [("nginx@*.service", 2), (None, 1)] == found("--limit", "2")
    assert [("nginx@*.service", 1)] == found("--open")
    assert [("haproxy", 1), ("nginx@*.service", 1), (None, 1)] == found("--since", "2026-11-22T16:00:00Z")
    assert [(None, 1)] == found("--since", "2026-11-22T16:00:00Z", "--limit", "1")
    assert 4 == len(kinds)


@pytest.mark.usefixtures("kinds")
def test_by_kind_tells_hosts_apart(run: Run, keep: Keep, store: Store) -> None:
    for seconds in (20_000, 24_000):
        elsewhere = store.load(keep(seconds, host="web-7"))
        store.commit(replace(elsewhere, read_on="log1"))

    found = json.loads(run("list", "--by-kind", "--json", "--limit", "1").stdout)
    assert [("web-7", 2)] == [(kind["host"], kind["incidents"]) for kind in found]


def test_list_says_how_many_of_its_kind_an_incident_is(run: Run, kinds: list[str], store: Store) -> None:
    ninth = Recurrence(
        count=9, since=datetime.fromisoformat("2026-11-03T15:00:00+00:00"), previous_at=store.load(kinds[2]).opened_at
    )
    store.commit(replace(store.load(kinds[2]), recurrence=ninth))
    table = [re.split("  +", line) for line in run("list").stdout.splitlines()]
    found = json.loads(run("list", "--json").stdout)

    seen = table[0].index("SEEN")
    first = "first of its kind on record"
    assert [first, first, "9th since 3 Nov, nginx@*.service", first] == [row[seen] for row in table[1:]]
    assert [1, 1, 9, 1] == [each["recurrence"]["count"] for each in found]
    assert found[0]["signature"] == found[2]["signature"]
    assert "bold" == row_of(store.load(kinds[2]), []).style
    first_of_all = replace(store.load(kinds[0]), recurrence=Recurrence(count=1, since=ninth.since))
    assert "yellow" == row_of(first_of_all, []).style
    assert "sent -, first of its kind on record, web1" in row_of(first_of_all, []).below


def test_the_date_in_the_list_is_of_the_same_zone_as_its_times(
    run: Run, kinds: list[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = datetime.fromisoformat("2026-11-03T23:30:00+00:00")
    store.commit(replace(store.load(kinds[0]), opened_at=first, recurrence=Recurrence(count=2, since=first)))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        row = run("list").stdout.splitlines()[1]
    time.tzset()

    assert "2026-11-04 08:30" in row
    assert "2nd since 4 Nov" in row


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.usefixtures("kinds")
def test_a_narrow_terminal_breaks_no_word_of_the_kinds(store: Store, width: int) -> None:
    program = [sys.executable, "-m", "agent", "incidents", "list", "--by-kind", "--config", "/dev/null"]

    lines = plain(on_terminal(program, width, STATE_DIRECTORY=str(store.directory)))

    assert [] == [line for line in lines if len(line) > width]
    text = " ".join(line.strip() for line in lines)
    for part in ("orphans (limit), held by nginx@*.service, ", "2 incidents, ", "2026-11-22"):
        assert part in text, part


def test_where_nobody_has_most_a_narrow_terminal_names_no_holder(keep: Keep, store: Store) -> None:
    incident = store.load(keep())
    store.commit(replace(incident, diagnosis=replace(DIAGNOSIS, holders=())))
    program = [sys.executable, "-m", "agent", "incidents", "list", "--by-kind", "--config", "/dev/null"]
    text = " ".join(line.strip() for line in plain(on_terminal(program, 40, STATE_DIRECTORY=str(store.directory))))

    assert "orphans (limit), 1 incident, 2026-11-22" in text


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_breaks_no_word_of_the_list(keep: Keep, store: Store, width: int) -> None:
    over, going_on = store.load(keep()), store.load(keep(3600, closed=False))
    over = replace(over, events={"tcp_mem": 12_345}, cause="tcp_memory", confidence="possible")
    going_on = replace(going_on, events={"too_many_orphans": 1}, suppressed_at_least=0, host="web1.example.org")
    notices = store.notices(over.id)

    lines = [line for line, _ in lay_out(HEADINGS, [row_of(over, notices), row_of(going_on, [])], COUNTS, width)]

    assert [over.id, going_on.id] == [line for line in lines if not line.startswith(" ")]
    assert [] == [line for line in lines if len(line) > width]
    text = " ".join(line.strip() for line in lines)
    for part in (
        "tcp_memory (possible), ",
        "lasted 5 min, 12,345 events, 240+ suppressed, ",
        "sent 0/2, 2 pending, web1",
        "OPEN, 1 event, sent -",
    ):
        assert part in text


def test_the_list_asks_a_terminal_how_wide_it_is(keep: Keep, store: Store) -> None:
    incident_id = keep()
    program = [sys.executable, "-m", "agent", "incidents", "list", "--config", "/dev/null"]

    narrow = plain(on_terminal(program, 60, STATE_DIRECTORY=str(store.directory)))
    wide = plain(on_terminal(program, 160, STATE_DIRECTORY=str(store.directory)))

    assert incident_id == narrow[0]
    assert ["ID", "OPENED", "LASTED"] == wide[0].split()[:3]


def test_a_hostile_host_name_cannot_steer_the_terminal(run: Run, keep: Keep) -> None:
    keep(host="web1\x1b[2J\u202eevil")

    shown = run("list").stdout + run("show", "last").stdout

    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_show_tells_the_whole_story(run: Run, keep: Keep, tell: Tell) -> None:
    incident_id = keep()
    tell(incident_id, "ops", "delivered")
    tell(incident_id, "pager", "gave_up", "HTTP 503")

    page = run("show", incident_id).stdout

    for part in (
        incident_id,
        DIAGNOSIS.summary,
        "web1 reset TCP connections: orphan limit reached",
        "Linux 6.1.0-37-amd64",
        "12 x too many orphans, at least 240 suppressed by its rate limit",
        "Source           kernel\n",
        "5 min from the first to the last message (resolved)",
        "65,535 orphaned sockets at the peak (100 % of the limit, 65,536)",
        "48 MiB TCP memory at the peak (12 % of the limit, 391 MiB)",
        "TCP: too many orphaned sockets",
        "snapshot-001.json (event): orphan 65,535, mem 12,345",
        "notice-001: opened, the kernel ran out",
        "ops:    opened: the kernel ran out;  delivered",
        "pager:  opened: the kernel ran out;  given up",
        "3 attempts: HTTP 503",
    ):
        assert part in page, part


def test_show_says_since_when_a_channel_waits_and_why(run: Run, keep: Keep, tell: Tell, store: Store, clock) -> None:
    incident_id = keep()
    tell(incident_id, "ops", "delivered")
    page = run("show", incident_id).stdout
    assert re.search(r"pager: +opened: the kernel ran out; +waiting since \d\d:\d\d:\d\d$", page, re.MULTILINE)

    now = datetime.now(timezone.utc)
    write_silence(store.directory, Silence(since=now, until=now + timedelta(hours=1), reason="deploying"))
    page = " ".join(run("show", incident_id).stdout.split())
    assert re.search(r"pager: opened: the kernel ran out; waiting since [\d:]+: silenced until .+: deploying", page)

    Outbox(store).write_trouble("pager", Trouble(channel="pager", why="HTTP 503", since=clock.time, at=clock.time))
    assert re.search(r"waiting since [\d:]+: HTTP 503$", run("show", incident_id).stdout, re.MULTILINE)
    shown = json.loads(run("show", "last", "--json").stdout)["deliveries"]
    assert [("ops", "HTTP 200"), ("pager", "HTTP 503")] == [(each["channel"], each["detail"]) for each in shown]
    assert "HTTP 503" in (run("report", incident_id, "--output", "-").stdout)


@pytest.mark.parametrize("damage", ["", "{", "null", '{"channel": "pager", "why": 7}'])
def test_show_bears_damage_in_what_says_why(run: Run, keep: Keep, store: Store, damage: str) -> None:
    incident_id = keep()
    (store.directory / "channels").mkdir()
    for name in ("channels/pager.json", "silence.json"):
        (store.directory / name).write_text(damage)

    shown = run("show", incident_id)
    assert 0 == shown.exit_code
    assert "waiting since" in shown.stdout


def test_show_takes_a_beginning_and_last(run: Run, keep: Keep) -> None:
    first, second = keep(), keep(3600)

    assert first in run("show", first[:14]).stdout
    assert second in run("show", "last").stdout


def test_show_json_is_the_incident_with_its_deliveries(run: Run, keep: Keep, tell: Tell, store: Store) -> None:
    incident_id = keep()
    tell(incident_id, "ops", "delivered")
    on_disk = json.loads((store.path(incident_id) / "incident.json").read_text())

    shown = json.loads(run("show", "last", "--json").stdout)

    assert {key: shown[key] for key in on_disk} == on_disk
    assert shown.keys() - on_disk.keys() == {"path", "deliveries"}
    assert [(d["channel"], d["outcome"], d["attempts"]) for d in shown["deliveries"]] == [
        ("ops", "delivered", 3),
        ("pager", "pending", None),
    ]


def test_show_has_what_a_channel_was_sent_that_was_added_while_the_incident_was_open(
    run: Run, keep: Keep, tell: Tell
) -> None:
    incident_id = keep(closed=False)
    tell(incident_id, "later", "delivered", "taken by am:9093")
    deliveries = json.loads(run("show", "last", "--json").stdout)["deliveries"]

    assert ["ops", "pager", "later"] == [each["channel"] for each in deliveries]
    assert "later" in run("show", "last").stdout.partition("Notifications")[2]


@pytest.mark.parametrize("command", ["show", "export", "report"])
@pytest.mark.parametrize("text", ["last", "2026", "../../etc", ""])
def test_no_such_incident_is_66_and_one_line(run: Run, command: str, text: str) -> None:
    result = run(command, text)

    assert result.exit_code == 66
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def test_an_ambiguous_beginning_lists_the_candidates(run: Run, keep: Keep) -> None:
    first, second = keep(), keep(3600)

    result = run("show", "2026")

    assert result.exit_code == 66
    assert first in result.stderr
    assert second in result.stderr


def test_a_broken_incident_is_66_and_named(run: Run, keep: Keep, store: Store) -> None:
    (store.path(keep()) / "incident.json").write_text("{")

    result = run("show", "last")

    assert result.exit_code == 66
    assert "incident.json: cannot be read" in result.stderr


def test_a_broken_snapshot_is_told_beside_the_page(run: Run, keep: Keep, store: Store) -> None:
    incident_id = keep()
    (store.path(incident_id) / "snapshot-001.json").write_text("{")

    result = run("show", incident_id)

    assert result.exit_code == 0
    assert DIAGNOSIS.summary in result.stdout
    assert "snapshot-001.json: cannot be read" in result.stderr


def test_show_draws_both_gauges_against_their_limits(
    run: Run, keep: Keep, store: Store, clock: Callable[[], datetime]
) -> None:
    keep()
    rise = [(-3000, 100, 1_000), (-2000, 8_000, 1_000), (-10, 16_000, 50_000), (300, 30, 1_000)]
    for seconds, orphan, mem in rise:
        store.samples.append(Sample(at=clock.time + timedelta(seconds=seconds), orphan=orphan, mem=mem))

    lines = run("show", "last").stdout.splitlines()

    place = lines.index("Gauges")
    orphan, mem, times = lines[place + 1 : place + 4]
    assert re.match(r"  orphan  \S *\S *█ *\S$", orphan), orphan
    assert re.match(r"  mem     \S *\S *[▄▅]+ *\S$", mem), mem
    assert len(orphan) == len(mem)
    assert times.endswith("a full column is the limit")


def test_show_without_readings_says_so(run: Run, keep: Keep, store: Store) -> None:
    (store.path(keep()) / "snapshot-001.json").unlink()

    result = run("show", "last")

    assert "no readings" in result.stdout
    assert "snapshot-001.json" in result.stderr


def test_show_on_a_terminal_without_unicode_draws_with_plain_characters(keep: Keep, store: Store) -> None:
    keep()
    environ = os.environ | {"STATE_DIRECTORY": str(store.directory), "PYTHONIOENCODING": "ascii"}

    program = [sys.executable, "-m", "agent", "incidents", "show", "last", "--config", "/dev/null"]
    done = subprocess.run(program, capture_output=True, check=False, env=environ)

    assert (0, b"") == (done.returncode, done.stderr)
    shown = done.stdout.decode("ascii")
    assert re.search(r"^  orphan  #$", shown, re.MULTILINE)
    assert '"Nov 22 15:05:39 web1 kernel: [100.000001] TCP: too many orphaned sockets"' in shown


def test_report_writes_one_page_under_the_incidents_name(
    run: Run, keep: Keep, tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = keep()
    tell(incident_id, "pager", "gave_up", "HTTP 503")
    monkeypatch.chdir(tmp_path)

    result = run("report", "last")

    target = tmp_path / f"{incident_id}.html"
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{incident_id}.html\n", "")
    assert target.stat().st_mode & 0o007 == 0
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    for part in (incident_id, DIAGNOSIS.summary, "65,535", "snapshot-001.json", "the kernel ran out", "HTTP 503"):
        assert part in page, part


def test_report_takes_its_charts_from_history(
    run: Run, keep: Keep, store: Store, clock: Callable[[], datetime]
) -> None:
    keep()
    before = run("report", "last", "--output", "-").stdout
    for seconds in range(-600, 0, 10):
        store.samples.append(Sample(at=clock.time + timedelta(seconds=seconds), orphan=4_321, mem=1_000))

    after = run("report", "last", "--output", "-").stdout

    assert "4,321 at first" not in before
    assert "4,321 at first" in after


def test_report_goes_into_a_file_a_directory_or_standard_output(run: Run, keep: Keep, tmp_path: Path) -> None:
    incident_id = keep()
    (tmp_path / "there").mkdir()

    run("report", "last", "--output", str(tmp_path / "page.html"))
    into = run("report", "last", "--output", str(tmp_path / "there"))
    out = run("report", "last", "--output", "-")

    assert f"{tmp_path}/there/{incident_id}.html\n" == into.stdout
    pages = [(tmp_path / "page.html").read_text(), (tmp_path / "there" / f"{incident_id}.html").read_text(), out.stdout]
    assert 1 == len(set(pages))


@pytest.mark.parametrize("name", ["snapshot-001.json", "notice-001.json"])
def test_report_tells_on_the_page_which_file_could_not_be_read(run: Run, keep: Keep, store: Store, name: str) -> None:
    (store.path(keep()) / name).write_text("{")

    result = run("report", "last", "--output", "-")

    assert result.exit_code == 0
    assert f"{name}: cannot be read" in result.stdout


def test_report_that_cannot_be_written_is_one_line(run: Run, keep: Keep, tmp_path: Path) -> None:
    keep()

    result = run("report", "last", "--output", str(tmp_path / "none" / "x.html"))

    assert (1, 1) == (result.exit_code, len(result.stderr.splitlines()))
    assert "No such file or directory" in result.stderr


def test_export_packs_every_file_with_nobodys_name(run: Run, keep: Keep, store: Store, tmp_path: Path) -> None:
    incident_id = keep()
    (store.path(incident_id) / ".notice-002.json.new").write_text("half")
    target = tmp_path / "out.tar.gz"

    result = run("export", "last", "--output", str(target))

    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    with tarfile.open(target) as archive:
        members = archive.getmembers()
        assert [f"{incident_id}/{n}" for n in ("incident.json", "notice-001.json", "snapshot-001.json")] == [
            member.name for member in members
        ]
        assert {(0, 0, "", "", 0o640)} == {(m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}
        stored = archive.extractfile(members[0])
        assert stored is not None
        assert (store.path(incident_id) / "incident.json").read_bytes() == stored.read()


def test_export_of_one_incident_is_always_the_same_bytes(run: Run, keep: Keep, store: Store, tmp_path: Path) -> None:
    incident_id = keep()
    before = pack(store.path(incident_id))
    for path in store.path(incident_id).iterdir():
        os.utime(path, (1, 1))

    assert before == pack(store.path(incident_id))


def test_export_goes_into_a_directory_and_the_working_directory(
    run: Run, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = keep()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()

    run("export", "last", "--output", str(tmp_path / "there"))
    run("export", "last")

    assert (tmp_path / "there" / f"{incident_id}.tar.gz").is_file()
    assert (tmp_path / f"{incident_id}.tar.gz").stat().st_mode & 0o007 == 0


def test_export_that_cannot_be_written_is_one_line(run: Run, keep: Keep, tmp_path: Path) -> None:
    keep()

    result = run("export", "last", "--output", str(tmp_path / "none" / "x.tar.gz"))

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "No such file or directory" in result.stderr


def test_export_to_standard_output_is_the_archive_alone(keep: Keep, store: Store) -> None:
    incident_id = keep()
    environ = os.environ | {"STATE_DIRECTORY": str(store.directory)}

    done = subprocess.run(
        [sys.executable, "-m", "agent", "incidents", "export", "last", "--output", "-", "--config", "/dev/null"],
        capture_output=True,
        check=True,
        env=environ,
        stdin=subprocess.DEVNULL,
    )

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert f"{incident_id}/incident.json" in archive.getnames()


def test_prune_says_what_it_would_remove_and_then_removes_it(run: Run, keep: Keep, tell: Tell, tmp_path: Path) -> None:
    old, new = keep(-400 * 86_400), keep()
    for channel in ("ops", "pager"):
        tell(old, channel, "delivered")

    would = run("prune", "--dry-run", "--json")
    assert json.loads(would.stdout) == {"dry_run": True, "removed": [old]}
    assert old in run("list").stdout

    result = run("prune")

    assert (result.exit_code, result.stdout) == (0, f"{old}\n")
    assert "1 incident removed" in result.stderr
    assert [new] == [entry["id"] for entry in json.loads(run("list", "--json").stdout)]


def test_prune_goes_by_no_clock_that_is_years_ahead_of_the_newest_sample(
    run: Run, keep: Keep, tell: Tell, store: Store, clock: Callable[[], datetime]
) -> None:
    last = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(days=1000)
    ago = (last - clock.time).total_seconds()
    expired, kept, _ = keep(ago - 400 * 86_400), keep(ago - 86_400), keep(ago)
    for incident_id in (expired, kept):
        for channel in ("ops", "pager"):
            tell(incident_id, channel, "delivered")
    store.samples.append(Sample(at=last, orphan=1))

    result = run("prune")

    assert (0, f"{expired}\n") == (result.exit_code, result.stdout)
    assert f"ages are counted from {last.astimezone():%Y-%m-%d}" in result.stderr


def test_a_bad_store_table_is_78_and_another_tables_mistake_is_not_ours(tmp_path: Path, store: Store) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[store]\nkeep_days = 0\n[[notify]]\nname = "x"\n')
    result = CliRunner().invoke(group, ["incidents", "list", "--config", str(config)])

    assert result.exit_code == 78
    assert result.stderr == f"{config}: [store]: key `keep_days` must be a whole number, 1 to 36500 days, not 0\n"

    config.write_text(f'[store]\ndirectory = "{store.directory}"\n[[notify]]\nname = "x"\n')
    result = CliRunner().invoke(group, ["incidents", "list", "--config", str(config)], env={"STATE_DIRECTORY": None})

    assert result.exit_code == 0


def test_a_directory_that_may_not_be_read_is_one_line(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("agent.store.incidents.os.scandir", refuse)

    result = run("list")

    assert result.exit_code == 66
    assert result.stderr.endswith("Permission denied; use sudo\n")


@pytest.mark.parametrize("args", [[], ["list"], ["show"], ["report"], ["export"], ["prune"]])
def test_every_help_has_an_example(args: list[str]) -> None:
    result = CliRunner().invoke(group, ["incidents", *args, "--help"])

    assert result.exit_code == 0
    assert "Example: sockmem-agent incidents" in result.stdout


@pytest.mark.parametrize("command", [["list"], ["show", "last"]])
def test_a_state_directory_that_is_none_is_said_as_it_is(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    file = CliRunner().invoke(group, ["incidents", *command], env={"STATE_DIRECTORY": str(tmp_path / "file")})
    dangling = CliRunner().invoke(group, ["incidents", *command], env={"STATE_DIRECTORY": str(tmp_path / "dangling")})

    assert (66, f"sockmem-agent: {tmp_path}/file/incidents: Not a directory\n") == (file.exit_code, file.stderr)
    assert "ermission" not in dangling.output


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    missing = tmp_path / "none"

    result = CliRunner().invoke(group, ["incidents", "list"], env={"STATE_DIRECTORY": str(missing)})

    assert result.stdout == f"no incidents in {missing}, which does not exist\n"
    assert not Path(missing).exists()


def test_report_takes_its_charts_from_what_is_kept_with_an_old_incident(
    run: Run, keep: Keep, store: Store, clock: Callable[[], datetime]
) -> None:
    incident_id = keep()
    samples = [
        Sample(at=clock.time + timedelta(seconds=seconds), orphan=4_321, mem=1_000) for seconds in range(-600, 0, 10)
    ]
    keep_samples(store.path(incident_id), samples)

    assert "4,321 at first" in run("report", "last", "--output", "-").stdout
    assert "orphan" in run("show", "last").stdout


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a symbolic link": lambda target, path: path.symlink_to(target),
    "another hard link": lambda target, path: path.hardlink_to(target),
    "not a regular file": lambda _, path: os.mkfifo(path),
    "another user": lambda _, path: (path.write_text("theirs"), os.chown(path, 12345, 12345)),
}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("command", ["report", "export"])
def test_nothing_but_a_plain_file_of_the_callers_is_overwritten(
    run: Run, keep: Keep, tmp_path: Path, command: str, what: str
) -> None:
    if what == "another user" and os.geteuid():
        pytest.skip("only root can give a file away")
    keep()
    target, planted = tmp_path / "shadow", tmp_path / "page"
    target.write_text("precious")
    PLANTED[what](target, planted)
    before = planted.lstat()

    result = run(command, "last", "--output", str(planted))

    assert (1, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert f"{planted}: not overwritten" in result.stderr
    assert what in result.stderr
    assert "--output" in result.stderr
    assert "precious" == target.read_text()
    assert (before.st_ino, before.st_size) == (planted.lstat().st_ino, planted.lstat().st_size)


def test_a_file_of_the_callers_is_overwritten_whole(run: Run, keep: Keep, tmp_path: Path) -> None:
    keep()
    page = tmp_path / "page.html"
    page.write_text("x" * 10_000_000)

    assert 0 == run("report", "last", "--output", str(page)).exit_code
    assert page.read_text().endswith("</html>\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_somebody_elses_to_a_directory_is_not_followed(run: Run, keep: Keep, tmp_path: Path) -> None:
    keep()
    there, mine, theirs = tmp_path / "there", tmp_path / "mine", tmp_path / "theirs"
    there.mkdir()
    mine.symlink_to(there)
    theirs.symlink_to(there)
    os.chown(theirs, 12345, 12345, follow_symlinks=False)

    assert "not overwritten" in run("export", "last", "--output", str(theirs)).stderr
    assert [] == list(there.iterdir())
    assert 0 == run("export", "last", "--output", str(mine)).exit_code


def test_export_leaves_out_and_names_what_is_no_file_of_ours(
    run: Run, keep: Keep, store: Store, tmp_path: Path
) -> None:
    directory = store.path(keep())
    (directory / "huge.json").touch()
    os.truncate(directory / "huge.json", 3 * 1024**3)
    (directory / "link.json").symlink_to(tmp_path / "config.toml")

    result = run("export", "last", "--output", str(tmp_path / "x.tar.gz"))

    assert 0 == result.exit_code
    assert f"{directory}/huge.json: skipped (larger than 16 MiB)" in result.stderr
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        assert ["incident.json", "notice-001.json", "snapshot-001.json"] == [
            Path(member).name for member in sorted(archive.getnames())
        ]
