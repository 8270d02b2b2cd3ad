import os
import shutil
import subprocess
import sys
from configparser import Error
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
    journal_drops_info,
    syslog_writes,
)
from agent.cli.run import build
from agent.core.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    EmailSettings,
    JournalSettings,
    Settings,
    SlackSettings,
    SourceSettings,
    StdoutSettings,
    StoreSettings,
    WebhookSettings,
)
from agent.probe import take_sockets
from agent.sources.kmsg import KmsgSource
from agent.store import Store

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
    assert (check.status, check.detail) == ("fail", f"{missing} does not exist")
    assert check.fix
    assert "warn" == check_source(beside, beside).status


def test_a_log_that_does_not_open_says_so(tmp_path: Path) -> None:
    log = write(tmp_path / "messages")
    os.mkfifo(tmp_path / "fifo")
    chosen = SourceSettings(kind="file", paths=(str(tmp_path / "fifo"), str(log)))

    check = check_source(chosen, chosen)

    assert (check.status, check.detail) == ("warn", f"{tmp_path}/fifo is a FIFO, not a file")


def test_a_log_that_only_the_service_finds_fault_with_is_not_ok(tmp_path: Path) -> None:
    log = write(tmp_path / "messages")
    (tmp_path / "same").symlink_to(log)
    chosen = SourceSettings(kind="file", paths=(str(log), str(tmp_path / "same")))

    check = check_source(chosen, chosen)

    assert ("warn", True) == (check.status, "is the same file as" in check.detail)


def journal(directory: Path) -> SourceSettings:
    pytest.importorskip("systemd.journal", reason="systemd-python is not installed")
    return SourceSettings(kind="journal", directory=str(directory))


def test_a_journal_needs_a_file_that_the_service_can_read(tmp_path: Path) -> None:
    chosen = journal(tmp_path / "far")
    assert "fail" == check_source(chosen, chosen).status

    damaged = write(tmp_path / "far/remote-web1.journal", "not a journal file")
    check = check_source(chosen, chosen)
    assert ("fail", True) == (check.status, f"{damaged}: damaged" in check.detail)

    damaged.unlink()
    remote = Path("/lib/systemd/systemd-journal-remote")
    if not remote.exists():
        pytest.skip("systemd-journal-remote is not installed")
    entry = (
        b"__REALTIME_TIMESTAMP=1790000000000000\n__MONOTONIC_TIMESTAMP=9\n_BOOT_ID=" + b"5a" * 16 + b"\nMESSAGE=x\n\n"
    )
    subprocess.run([remote, f"--output={damaged}", "-"], input=entry, check=True, capture_output=True)
    check = check_source(AUTO, chosen)
    assert ("ok", "the journal (chosen by auto) can be read") == (check.status, check.detail)


def test_a_journal_that_this_python_cannot_read_fails_although_nobody_chose_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("systemd", "systemd.journal", "agent.sources.journal"):
        monkeypatch.setitem(sys.modules, name, None)

    check = check_source(JOURNAL, JOURNAL)

    assert ("fail", True) == (check.status, "-m pip install systemd-python" in check.fix)


def test_a_log_file_needs_no_bindings_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("watchdog.observers", "agent.sources.file.source", "agent.sources.file.waker"):
        monkeypatch.setitem(sys.modules, name, None)
    chosen = SourceSettings(kind="file", paths=(str(write(tmp_path / "messages")),))

    check = check_source(chosen, chosen)

    assert ("fail", "install it again") == (check.status, check.fix)
    assert "cannot run the program: " in check.detail


def test_kmsg_is_read_not_only_opened(tmp_path: Path) -> None:
    def open_device(*_: object) -> KmsgSource:
        return KmsgSource(str(tmp_path / "kmsg"))

    assert "fail" == check_source(KMSG, KMSG, opener=open_device).status

    write(tmp_path / "kmsg")
    check = check_source(KMSG, KMSG, opener=open_device)
    assert ("fail", True) == (check.status, "cannot be read on this host" in check.detail)


# --- log level --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("burst", "cost", "expected"),
    [("10", "5", "ok"), ("0", "5", "fail"), ("0", "0", "ok"), ("nonsense", "5", "ok")],
)
def test_a_limiter_that_lets_nothing_through_fails(tmp_path: Path, burst: str, cost: str, expected: str) -> None:
    write(tmp_path / "proc/sys/net/core/message_burst", burst)
    write(tmp_path / "proc/sys/net/core/message_cost", cost)

    assert check_log_level(KMSG, tmp_path / "proc").status == expected


def test_a_journal_that_drops_info_fails_and_names_the_setting(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    assert "ok" == check_log_level(JOURNAL, tmp_path, tmp_path).status

    write(tmp_path / "etc/systemd/journald.conf", "[Journal]\nMaxLevelStore=warning\n")
    check = check_log_level(JOURNAL, tmp_path, tmp_path)

    assert "fail" == check.status
    assert "MaxLevelStore=warning" in check.detail


def test_journald_that_cannot_be_asked_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    check = check_log_level(JOURNAL, tmp_path, tmp_path)

    assert ("warn", True) == (check.status, "cannot tell" in check.detail)


def test_of_another_hosts_journal_nothing_is_claimed(tmp_path: Path) -> None:
    chosen = SourceSettings(kind="journal", directory="/srv/journal")

    assert "warn" == check_log_level(chosen, tmp_path, tmp_path).status


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('module(load="imklog")\nkern.* /var/log/messages\n', "ok"),
        ('module(load="imklog")\nkern.warn /var/log/messages\n', "warn"),
        ("kern.* /var/log/messages\n", "warn"),
        ("", "warn"),
    ],
)
def test_a_log_is_judged_by_rsyslogs_rules(tmp_path: Path, rules: str, expected: str) -> None:
    write(tmp_path / "etc/rsyslog.conf", rules)
    chosen = SourceSettings(kind="file", paths=("/var/log/messages",))

    assert check_log_level(chosen, tmp_path, tmp_path).status == expected


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


DEBIAN = """module(load="imuxsock")
module(load="imklog")   # provides kernel logging support
$IncludeConfig /etc/rsyslog.d/*.conf
*.*;auth,authpriv.none\t\t-/var/log/syslog
auth,authpriv.*\t\t\t/var/log/auth.log
kern.*\t\t\t\t-/var/log/kern.log
"""
RED_HAT = """module(load="imjournal" StateFile="imjournal.state")
*.info;mail.none;authpriv.none;cron.none                /var/log/messages
*.warn action(type="omfile" file="/var/log/warn")
"""


@pytest.mark.parametrize(
    "selector",
    ["kern.*", "kern.info", "kern.debug", "*.info;mail.none;authpriv.none;cron.none", "*.*;auth,authpriv.none"],
)
def test_a_usual_rule_of_rsyslog_takes_kern_info(tmp_path: Path, selector: str) -> None:
    write(tmp_path / "etc/rsyslog.conf", f'module(load="imklog")\n{selector}\t-/var/log/x\n')

    assert syslog_writes(tmp_path, "/var/log/x")


@pytest.mark.parametrize(
    "selector", ["kern.notice", "*.*;kern.none", "*.*;*.none", "*.*;auth,kern.none", "mail.*", "*.emerg", "#kern.*"]
)
def test_another_rule_of_rsyslog_claims_nothing(tmp_path: Path, selector: str) -> None:
    write(tmp_path / "etc/rsyslog.conf", f'module(load="imklog")\n{selector}\t-/var/log/x\n')

    assert not syslog_writes(tmp_path, "/var/log/x")


def test_debians_rules_write_the_kernel_to_syslog_and_kern_log(tmp_path: Path) -> None:
    write(tmp_path / "etc/rsyslog.conf", DEBIAN)

    logs = ("/var/log/syslog", "/var/log/kern.log", "/var/log/auth.log", "/srv/other")
    assert [True, True, False, False] == [syslog_writes(tmp_path, log) for log in logs]


def test_red_hats_rules_write_the_kernel_to_messages_but_not_to_a_log_of_warnings(tmp_path: Path) -> None:
    write(tmp_path / "etc/rsyslog.conf", RED_HAT)

    assert [True, False] == [syslog_writes(tmp_path, log) for log in ("/var/log/messages", "/var/log/warn")]


def test_a_rule_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "etc/rsyslog.conf", 'module(load="imklog")\n')
    write(tmp_path / "etc/rsyslog.d/50-kern.conf", 'kern.info action(type="omfile" file="/srv/log/kernel")\n')

    assert syslog_writes(tmp_path, "/srv/log/kernel")


def test_rsyslog_that_does_not_read_the_kernel_claims_nothing(tmp_path: Path) -> None:
    write(tmp_path / "etc/rsyslog.conf", DEBIAN.replace('module(load="imklog")', '#module(load="imklog")'))

    assert not syslog_writes(tmp_path, "/var/log/syslog")


@needs_systemd
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("[Journal]\n#MaxLevelStore=notice\n", None),
        ("[Journal]\nMaxLevelStore=debug\n", None),
        ("[Journal]\nMaxLevelStore=6\n", None),
        ("[Journal]\nMaxLevelStore=\n", None),
        ("[Journal]\nMaxLevelStore\n", None),
        ("[Journal]\nMaxLevelStore = notice\n", "MaxLevelStore=notice"),
        ("[Journal]\nMaxLevelStore=4\n", "MaxLevelStore=4"),
        ("[Journal]\nMaxLevelStore=nonsense\n", None),
        ("[Journal]\nStorage=none\n", "Storage=none"),
        ("[Journal]\nStorage=volatile\n", None),
        ("[Journal]\nReadKMsg=no\n", "ReadKMsg=no"),
        ("[Other]\nMaxLevelStore=err\n", None),
    ],
)
def test_a_setting_of_journald_that_drops_info_is_named(tmp_path: Path, text: str, expected: object) -> None:
    write(tmp_path / "etc/systemd/journald.conf", text)

    assert expected == journal_drops_info(tmp_path)


@needs_systemd
def test_a_drop_in_of_journald_overrides_its_main_file(tmp_path: Path) -> None:
    write(tmp_path / "etc/systemd/journald.conf", "[Journal]\nMaxLevelStore=info\n")
    write(tmp_path / "etc/systemd/journald.conf.d/10-a.conf", "[Journal]\nMaxLevelStore=crit\n")
    assert "MaxLevelStore=crit" == journal_drops_info(tmp_path)

    write(tmp_path / "etc/systemd/journald.conf.d/20-b.conf", "[Journal]\nMaxLevelStore=\n")
    assert None is journal_drops_info(tmp_path)


@needs_systemd
def test_settings_of_journald_that_cannot_be_parsed_claim_nothing(tmp_path: Path) -> None:
    write(tmp_path / "etc/systemd/journald.conf", "MaxLevelStore=notice\n")

    with pytest.raises(Error):
        journal_drops_info(tmp_path)


def test_without_systemd_analyze_nothing_is_claimed_of_journald(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OSError, match="systemd-analyze"):
        journal_drops_info(tmp_path)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_state_directory_is_ok_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check = check_state(tmp_path, StoreSettings(min_free_bytes=0))

    assert "ok" == check.status
    assert [] == list(tmp_path.iterdir())


def test_a_state_directory_that_will_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check = check_state(tmp_path / "a/b", StoreSettings(min_free_bytes=0))

    assert "ok" == check.status
    assert "will be created" in check.detail
    assert [] == list(tmp_path.iterdir())


def test_a_state_directory_below_a_file_fails(tmp_path: Path) -> None:
    file = write(tmp_path / "file")

    check = check_state(file / "state", StoreSettings())

    assert "fail" == check.status
    assert str(file) in check.detail
    assert check.fix


def test_too_little_room_warns(tmp_path: Path) -> None:
    check = check_state(tmp_path, StoreSettings(min_free_bytes=2**62))

    assert "warn" == check.status


def test_proc_is_ok_with_its_gauges_and_limits(proc_root: Path) -> None:
    write(proc_root / "self/smaps", "KernelPageSize:        4 kB\n")
    assert "ok" == check_proc(proc_root).status


def test_proc_that_hides_the_processes_of_others_warns(proc_root: Path) -> None:
    write(proc_root / "self/smaps", "KernelPageSize:        4 kB\n")
    write(proc_root / "self/net/tcp", "")
    check = check_proc(proc_root)

    assert "warn" == check.status
    assert "hidepid" in check.detail
    write(proc_root / "1/net/tcp", "")
    assert "ok" == check_proc(proc_root).status


def test_proc_of_another_network_namespace_warns(proc_root: Path) -> None:
    (proc_root / "sys/net/ipv4/tcp_mem").unlink()

    check = check_proc(proc_root)

    assert "warn" == check.status
    assert "tcp_mem" in check.detail
    assert "tcp_max_orphans" not in check.detail


def test_proc_whose_limit_the_service_cannot_parse_warns(proc_root: Path) -> None:
    (proc_root / "sys/net/ipv4/tcp_mem").write_text("1 2\n")

    assert "warn" == check_proc(proc_root).status


def test_proc_without_sockstat_fails(proc_root: Path) -> None:
    (proc_root / "net/sockstat").write_text("UDP: inuse 4\n")
    assert "fail" == check_proc(proc_root).status

    (proc_root / "net/sockstat").unlink()
    assert "fail" == check_proc(proc_root).status


def test_sock_diag_is_dumped_for_real_and_agrees_with_the_service() -> None:
    table = take_sockets(Path("/proc"), 5.0)

    assert ("ok" if table.complete else "warn") == check_sock_diag().status


def test_sock_diag_that_cannot_be_opened_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sockdiag, "NETLINK_SOCK_DIAG", 255)

    check = check_sock_diag()

    assert "warn" == check.status
    assert check.fix


def test_sock_diag_that_lists_only_a_part_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sockdiag, "dump", lambda *_: [checks.sockdiag.LATE])

    check = check_sock_diag()

    assert ("warn", checks.sockdiag.LATE.why) == (check.status, check.detail)


def test_cgroup_ids_need_version_2_where_the_service_finds_it(proc_root: Path) -> None:
    write(proc_root / "self/mountinfo", "30 1 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n")
    assert "warn" == check_cgroup(proc_root).status

    write(proc_root / "self/mountinfo", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
    assert "cgroup v2 is mounted at /sys/fs/cgroup/unified" == check_cgroup(proc_root).detail


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
        (EmailSettings(name="a", to=("root",), from_="a@b"), "ok"),
        (EmailSettings(name="a", to=("root",), from_="a@b", smtp="mx.example:25"), "warn"),
        (EmailSettings(name="a", to=("root",), from_="a@b", smtp="mx.example:25", tls="starttls"), "ok"),
    ],
)
def test_a_secret_that_would_travel_in_the_clear_warns_and_is_not_shown(
    channel: ChannelSettings, expected: str
) -> None:
    check = check_channel(channel)

    assert check.status == expected
    assert "verysecret" not in check.detail + check.fix


def test_a_journal_channel_needs_a_journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "JOURNALD", str(tmp_path / "socket"))
    missing = check_channel(JournalSettings(name="j"))
    assert ("fail", f"{tmp_path}/socket does not exist: no journald runs here") == (missing.status, missing.detail)

    (tmp_path / "socket").touch()
    assert ("ok", "journal") == tuple(
        getattr(check_channel(JournalSettings(name="j")), key) for key in ("status", "detail")
    )


def test_a_journal_that_this_python_cannot_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "runs_systemd", lambda: True)
    monkeypatch.setattr(checks, "has_bindings", lambda: False)
    (told,) = check_bindings(AUTO)
    assert ("journal", "warn") == (told.name, told.status)
    assert f"python3.{sys.version_info.minor} -m pip install systemd-python" in told.fix
    assert [] == check_bindings(KMSG)
    monkeypatch.setattr(checks, "has_bindings", lambda: True)
    assert [] == check_bindings(AUTO)


def test_the_service_says_in_one_line_that_this_python_cannot_read_the_journal(
    tmp_path: Path, proc_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("systemd", "systemd.journal", "agent.sources.journal"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = Settings(source=JOURNAL)

    with pytest.raises(SystemExit) as ended:
        build(settings, Store(tmp_path, settings.store), proc_root)

    assert (1, True) == (ended.value.code, "see sockmem-agent doctor" in caplog.text)
