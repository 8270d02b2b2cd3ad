import os
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.cli import checks
from agent.cli.checks import (
    check_bindings,
    check_cgroup,
    check_channel,
    check_clock,
    check_log_level,
    check_proc,
    check_sock_diag,
    check_source,
    check_state,
)
from agent.core.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    SlackSettings,
    SourceSettings,
    StdoutSettings,
    StoreSettings,
    WebhookSettings,
)

NOW = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
AUTO = SourceSettings()
JOURNAL = SourceSettings(kind="journal")
KMSG = SourceSettings(kind="kmsg")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- source -----------------------------------------------------------------------------------------------------------


def test_a_log_that_opens_is_ok_and_says_who_chose_it(tmp_path: Path) -> None:
    chosen = SourceSettings(kind="file", paths=(str(write(tmp_path / "messages")),))

    assert "ok" == check_source(chosen, chosen).status
    assert "chosen by auto" in check_source(AUTO, chosen).detail


def test_a_missing_log_fails_and_one_of_two_warns(tmp_path: Path) -> None:
    there, missing = str(write(tmp_path / "messages")), str(tmp_path / "none")

    alone = SourceSettings(kind="file", paths=(missing,))
    beside = SourceSettings(kind="file", paths=(there, missing))

    check = check_source(alone, alone)
    assert (check.status, check.detail) == ("fail", f"{missing} is not there")
    assert check.mend
    assert "warn" == check_source(beside, beside).status


def test_a_log_that_does_not_open_says_so(tmp_path: Path) -> None:
    log = write(tmp_path / "messages")
    os.mkfifo(tmp_path / "fifo")
    chosen = SourceSettings(kind="file", paths=(str(tmp_path / "fifo"), str(log)))

    check = check_source(chosen, chosen)

    assert (check.status, check.detail) == ("warn", f"{tmp_path}/fifo is a FIFO, not a file")


def test_a_journal_needs_a_file_that_opens(tmp_path: Path) -> None:
    assert "fail" == check_source(JOURNAL, JOURNAL, tmp_path).status

    write(tmp_path / "var/log/journal/0123/system.journal")
    check = check_source(AUTO, JOURNAL, tmp_path)

    assert ("ok", "the journal (chosen by auto) can be read, 1 of 1 files") == (check.status, check.detail)


def test_a_journal_that_only_others_may_read_fails_with_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "var/log/journal/0123/system.journal")
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)

    check = check_source(JOURNAL, JOURNAL, tmp_path)

    assert "fail" == check.status
    assert "systemd-journal" in check.mend


def test_a_directory_of_journal_files_is_looked_at_itself(tmp_path: Path) -> None:
    chosen = SourceSettings(kind="journal", directory=str(tmp_path / "far"))
    assert "fail" == check_source(chosen, chosen, tmp_path).status

    write(tmp_path / "far/remote-web1.journal")
    assert "ok" == check_source(chosen, chosen, tmp_path).status


def test_kmsg_is_opened(tmp_path: Path) -> None:
    assert "fail" == check_source(KMSG, KMSG, tmp_path).status

    write(tmp_path / "dev/kmsg")
    assert "ok" == check_source(KMSG, KMSG, tmp_path).status


# --- log level --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("burst", "cost", "expected"),
    [("10", "5", "ok"), ("0", "5", "fail"), ("0", "0", "ok"), ("nonsense", "5", "ok")],
)
def test_a_limiter_that_lets_nothing_through_fails(tmp_path: Path, burst: str, cost: str, expected: str) -> None:
    write(tmp_path / "proc/sys/net/core/message_burst", burst)
    write(tmp_path / "proc/sys/net/core/message_cost", cost)

    assert check_log_level(KMSG, tmp_path, tmp_path / "proc").status == expected


def test_a_journal_that_drops_info_fails_and_names_the_setting(tmp_path: Path) -> None:
    assert "ok" == check_log_level(JOURNAL, tmp_path, tmp_path).status

    write(tmp_path / "etc/systemd/journald.conf", "[Journal]\nMaxLevelStore=warning\n")
    check = check_log_level(JOURNAL, tmp_path, tmp_path)

    assert "fail" == check.status
    assert "MaxLevelStore=warning" in check.detail


def test_of_another_hosts_journal_nothing_is_claimed(tmp_path: Path) -> None:
    chosen = SourceSettings(kind="journal", directory="/srv/journal")

    assert "warn" == check_log_level(chosen, tmp_path, tmp_path).status


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('module(load="imklog")\nkern.* /var/log/messages\n', "ok"),
        ('module(load="imklog")\nkern.warn /var/log/messages\n', "fail"),
        ("kern.* /var/log/messages\n", "warn"),
        ("", "warn"),
    ],
)
def test_a_log_is_judged_by_rsyslogs_rules(tmp_path: Path, rules: str, expected: str) -> None:
    write(tmp_path / "etc/rsyslog.conf", rules)
    chosen = SourceSettings(kind="file", paths=("/var/log/messages",))

    assert check_log_level(chosen, tmp_path, tmp_path).status == expected


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_state_directory_is_ok_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check = check_state(tmp_path, StoreSettings(min_free_bytes=0))

    assert "ok" == check.status
    assert [] == list(tmp_path.iterdir())


def test_a_state_directory_that_will_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check = check_state(tmp_path / "a/b", StoreSettings(min_free_bytes=0))

    assert "ok" == check.status
    assert "will be made" in check.detail
    assert [] == list(tmp_path.iterdir())


def test_a_state_directory_below_a_file_fails(tmp_path: Path) -> None:
    file = write(tmp_path / "file")

    check = check_state(file / "state", StoreSettings())

    assert "fail" == check.status
    assert str(file) in check.detail
    assert check.mend


def test_too_little_room_warns(tmp_path: Path) -> None:
    check = check_state(tmp_path, StoreSettings(min_free_bytes=2**62))

    assert "warn" == check.status


def test_proc_is_ok_with_its_gauges_and_limits(proc_root: Path) -> None:
    assert "ok" == check_proc(proc_root).status


def test_proc_of_another_network_namespace_warns(proc_root: Path) -> None:
    (proc_root / "sys/net/ipv4/tcp_mem").unlink()

    check = check_proc(proc_root)

    assert "warn" == check.status
    assert "tcp_mem" in check.detail
    assert "tcp_max_orphans" not in check.detail


def test_proc_without_sockstat_fails(proc_root: Path) -> None:
    (proc_root / "net/sockstat").write_text("UDP: inuse 4\n")
    assert "fail" == check_proc(proc_root).status

    (proc_root / "net/sockstat").unlink()
    assert "fail" == check_proc(proc_root).status


def test_sock_diag_is_asked_for_real_and_agrees_with_the_socket_itself() -> None:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, checks.NETLINK_SOCK_DIAG).close()
    except OSError:
        assert "warn" == check_sock_diag().status
    else:
        assert "sock_diag" == check_sock_diag().name
        assert "no answer" not in check_sock_diag().detail


def test_sock_diag_that_cannot_be_opened_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NETLINK_SOCK_DIAG", 255)

    check = check_sock_diag()

    assert "warn" == check.status
    assert check.mend


def test_sock_diag_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SOCK_DIAG_BY_FAMILY", 99)

    check = check_sock_diag()

    assert "warn" == check.status
    assert check.detail.startswith("refused: ")


def test_cgroup_ids_need_version_2(tmp_path: Path) -> None:
    assert "warn" == check_cgroup(tmp_path).status

    write(tmp_path / "sys/fs/cgroup/unified/cgroup.controllers")
    assert "unified" in check_cgroup(tmp_path).detail

    write(tmp_path / "sys/fs/cgroup/cgroup.controllers")
    assert check_cgroup(tmp_path).detail == f"cgroup v2 is mounted at {tmp_path}/sys/fs/cgroup"


def test_a_clock_that_was_never_set_fails() -> None:
    assert "fail" == check_clock(datetime(1970, 1, 1, tzinfo=timezone.utc)).status
    assert check_clock(NOW).status != "fail"


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (SlackSettings(name="a", url="https://hooks.slack.com/verysecret"), "ok"),
        (WebhookSettings(name="a", url="http://example.org/verysecret"), "warn"),
        (WebhookSettings(name="a", url="http://127.0.0.1:80/verysecret"), "ok"),
        (AlertmanagerSettings(name="a", urls=("http://am:9093/verysecret",)), "ok"),
        (StdoutSettings(name="a"), "ok"),
    ],
)
def test_a_secret_that_would_travel_in_the_clear_warns_and_is_not_shown(
    channel: ChannelSettings, expected: str
) -> None:
    check = check_channel(channel)

    assert check.status == expected
    assert "verysecret" not in check.detail + check.mend


def test_a_journal_that_this_python_cannot_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "runs_systemd", lambda: True)
    monkeypatch.setattr(checks, "has_bindings", lambda: False)
    (told,) = check_bindings(AUTO)
    assert ("journal", "warn") == (told.name, told.status)
    assert f"python3.{sys.version_info.minor} -m pip install systemd-python" in told.mend
    assert [] == check_bindings(KMSG)
    monkeypatch.setattr(checks, "has_bindings", lambda: True)
    assert [] == check_bindings(AUTO)
