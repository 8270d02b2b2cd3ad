"""The journal's records: against a socket that the test holds, and against a real journald in a mount namespace."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import fill
from material import make_event, make_sent_incident, make_sent_notice

from agent.core.delivery import Delivered, Retry
from agent.core.model import Diagnosis, Holder, Mechanism
from agent.core.report import title
from agent.core.settings import JournalSettings
from agent.notifiers import journal
from agent.notifiers.body import encode
from agent.notifiers.journal import MESSAGE_IDS, SEALS, JournalNotifier

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "systemd" / "sockmem-agent.catalog"
JOURNALD = Path("/lib/systemd/systemd-journald")
SETTINGS = JournalSettings(name="j", labels={"team": "net"}, runbook_url="https://wiki.example/sockmem")
FORGED = "TCP: too many orphaned sockets"


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Hold the journal's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
        yield listener


def parsed(record: bytes) -> dict[str, str]:
    """Read a record as journald does: a name, a line break, the length, that much of data, a line break."""
    found = {}
    while record:
        name, _, rest = record.partition(b"\n")
        size = int.from_bytes(rest[:8], "little")
        found[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        record = rest[9 + size :]
    return found


def received(listener: socket.socket) -> dict[str, str]:
    record, files, *_ = socket.recv_fds(listener, 1 << 20, 1)
    for file in files:
        assert SEALS == fcntl.fcntl(file, fcntl.F_GET_SEALS)
        with os.fdopen(file, "rb") as memory:
            record += memory.read() or os.pread(file, 1 << 24, 0)
    return parsed(record)


def test_a_record_has_the_fields_of_the_contract(journald: socket.socket) -> None:
    held = Holder(unit="nginx.service", sockets=131_000, orphans=131_000, bytes=1)
    diagnosis = make_sent_incident().diagnosis
    notice = make_sent_notice(
        diagnosis=Diagnosis(
            cause="orphans",
            confidence="certain",
            summary="",
            holders=(held,),
            mechanism=Mechanism(orphan=131_080, tcp_max_orphans=131_072, limit_reached=131_072, penalty_shift=0),
        )
    )
    assert diagnosis.cause == "orphans"

    assert JournalNotifier(SETTINGS).notify(notice) == Delivered(detail="taken by journald")
    assert received(journald) == {
        "MESSAGE_ID": "0d9095ec438347f8996ffb69e3aa2471",
        "MESSAGE": title(notice),
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "sockmem-agent",
        "SOCKMEM_TYPE": "sockmem.incident.opened",
        "SOCKMEM_NOTICE": notice.id,
        "SOCKMEM_HOST": "web1",
        "SOCKMEM_INCIDENT": "20261122T150539Z-7f3a",
        "SOCKMEM_CAUSE": "orphans",
        "SOCKMEM_CONFIDENCE": "certain",
        "SOCKMEM_SEVERITY": "critical",
        "SOCKMEM_HOLDER": "nginx.service",
        "SOCKMEM_RUNBOOK_URL": "https://wiki.example/sockmem",
        "SOCKMEM_LABEL_TEAM": "net",
        "SOCKMEM_JSON": encode(notice, {"team": "net"}, "https://wiki.example/sockmem").decode(),
    }


@pytest.mark.parametrize(
    ("notice", "priority"),
    [
        (make_sent_notice(class_="pressure"), "4"),
        (make_sent_notice("sockmem.incident.updated"), "2"),
        (make_sent_notice("sockmem.incident.resolved"), "5"),
        (make_sent_notice("sockmem.digest"), "6"),
        (make_sent_notice("sockmem.test"), "6"),
    ],
)
def test_the_priority_is_that_of_what_is_said(journald: socket.socket, notice, priority: str) -> None:
    JournalNotifier(SETTINGS).notify(notice)

    assert priority == received(journald)["PRIORITY"]


def test_what_a_value_holds_begins_no_other_field(journald: socket.socket) -> None:
    notice = make_sent_notice(host="web1\nMESSAGE_ID=0\n_TRANSPORT=kernel", id="x\nPRIORITY=0")

    JournalNotifier(SETTINGS).notify(notice)

    fields = received(journald)
    assert ("2", "0d9095ec438347f8996ffb69e3aa2471") == (fields["PRIORITY"], fields["MESSAGE_ID"])
    assert "_TRANSPORT" not in fields
    assert "web1\\x0aMESSAGE_ID=0\\x0a_TRANSPORT=kernel" == fields["SOCKMEM_HOST"]


def test_a_large_record_goes_as_a_sealed_file(journald: socket.socket) -> None:
    notice = make_sent_notice(summary="x" * 1_000_000)

    assert JournalNotifier(SETTINGS).notify(notice) == Delivered(detail="taken by journald")
    assert notice.data.summary == json.loads(received(journald)["SOCKMEM_JSON"])["data"]["summary"]


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_journald_that_does_not_read_is_tried_again_and_delays_nobody(journald: socket.socket, size: int) -> None:
    fill(journald)
    started = time.monotonic()

    delivery = JournalNotifier(SETTINGS).notify(make_sent_notice(summary="x" * size))

    assert delivery == Retry(why="journald does not read its socket, which is full")
    assert time.monotonic() - started < 1


def test_a_host_without_journald_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "none"))
    assert JournalNotifier(SETTINGS).notify(make_sent_notice()) == Retry(why="journald: no such file or directory")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(tmp_path / "gone"))
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "gone"))
    assert JournalNotifier(SETTINGS).notify(make_sent_notice()) == Retry(why="journald: connection refused")


def test_no_descriptor_is_left_open(journald: socket.socket) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    for size in (1, 1_000_000):
        JournalNotifier(SETTINGS).notify(make_sent_notice(summary="x" * size))

    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_the_catalog_has_an_entry_for_every_message_and_names_only_fields_that_all_have(journald) -> None:
    entries = dict(text.split("\n", 1) for text in CATALOG.read_text().split("\n-- ")[1:])

    assert set(MESSAGE_IDS.values()) == set(entries)
    for kind, identifier in MESSAGE_IDS.items():
        JournalNotifier(JournalSettings(name="j")).notify(make_sent_notice(kind))
        named = set(entries[identifier].split("@")[1::2])
        assert named <= received(journald).keys(), kind


# --- a real journald --------------------------------------------------------------------------------------------------

# Everything that it writes is in the namespace's own tmpfs, and is copied out at the end.
NAMESPACE = """
set -e
for place in /run /var/log /var/lib/systemd/catalog /usr/lib/systemd/catalog; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/systemd/journal.sockmemtest /var/log/journal
cp {catalog} /usr/lib/systemd/catalog/
journalctl --update-catalog
{journald} sockmemtest &
pid=$!
{python} -c '
import sys
from harness import wait_for
from pathlib import Path
from agent.core.delivery import Delivered
from agent.notifiers import journal
import test_journal_channel as test
journal.SOCKET = "/run/systemd/journal.sockmemtest/socket"
wait_for("journald", Path(journal.SOCKET).exists)
for notice in test.REAL:
    delivery = journal.JournalNotifier(test.SETTINGS).notify(notice)
    assert isinstance(delivery, Delivered), delivery
'
journalctl --namespace=sockmemtest --sync || sleep 1
kill $pid
wait $pid || true
cp -r /var/log/journal/*/* {out}
journalctl -x --no-pager --directory={out} > {out}/explained
"""
REAL = [
    make_sent_notice(),
    make_sent_notice("sockmem.incident.updated", summary=FORGED, host=FORGED, first_event=make_event(line=FORGED)),
    make_sent_notice("sockmem.incident.resolved", summary="x" * 1_000_000),
    make_sent_notice("sockmem.digest"),
    make_sent_notice("sockmem.test"),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Send all kinds of notice to a real journald; return its directory of journal files."""
    if os.geteuid() != 0 or not JOURNALD.exists() or shutil.which("unshare") is None:
        pytest.skip("a journald of the test's own needs root, systemd and unshare")
    out = tmp_path_factory.mktemp("journal")
    script = NAMESPACE.format(catalog=CATALOG, journald=JOURNALD, python=sys.executable, out=out)
    environ = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/notifiers",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def records(directory: Path) -> list[dict[str, str]]:
    command = ["journalctl", f"--directory={directory}", "--output=json", "--all", "SYSLOG_IDENTIFIER=sockmem-agent"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_a_real_journald_keeps_every_kind_of_notice(real: Path) -> None:
    found = records(real)

    assert [notice.type for notice in REAL] == [record["SOCKMEM_TYPE"] for record in found]
    for notice, record in zip(REAL, found, strict=True):
        assert title(notice) == record["MESSAGE"]
        assert MESSAGE_IDS[notice.type] == record["MESSAGE_ID"]
        assert "journal" == record["_TRANSPORT"]
        assert json.loads(encode(notice, SETTINGS.labels, SETTINGS.runbook_url)) == json.loads(record["SOCKMEM_JSON"])


def test_journalctl_explains_them(real: Path) -> None:
    said = (real / "explained").read_text()

    for subject in (
        "The kernel is running out of TCP socket memory",
        "The shortage of TCP socket memory is over",
        "More incidents than are reported one by one",
        "A test of sockmem-agent's notifications",
    ):
        assert f"Subject: {subject}" in said
    assert "sockmem-agent incidents show 20261122T150539Z-7f3a" in said
    assert "Cause: orphans (certain). Severity: critical." in said
    assert "@" not in said.partition("Subject: The kernel is running out")[2]


def test_none_of_them_is_an_event_to_the_agent_that_follows_the_journal(real: Path) -> None:
    journal_source = pytest.importorskip("agent.sources.journal", reason="systemd-python is not installed")
    source = journal_source.JournalSource(str(real), "beginning")

    texts = [record.text for record in source.read()]
    source.close()

    assert FORGED in str(records(real))
    assert [] == texts
