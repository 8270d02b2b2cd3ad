import shutil
from configparser import Error
from pathlib import Path

import pytest

from agent.cli.checks import journal_drops_info, syslog_writes

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


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
    write(tmp_path, "etc/rsyslog.conf", f'module(load="imklog")\n{selector}\t-/var/log/x\n')

    assert syslog_writes(tmp_path, "/var/log/x")


@pytest.mark.parametrize(
    "selector", ["kern.notice", "*.*;kern.none", "*.*;*.none", "*.*;auth,kern.none", "mail.*", "*.emerg", "#kern.*"]
)
def test_another_rule_of_rsyslog_claims_nothing(tmp_path: Path, selector: str) -> None:
    write(tmp_path, "etc/rsyslog.conf", f'module(load="imklog")\n{selector}\t-/var/log/x\n')

    assert not syslog_writes(tmp_path, "/var/log/x")


def test_debians_rules_write_the_kernel_to_syslog_and_kern_log(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", DEBIAN)

    logs = ("/var/log/syslog", "/var/log/kern.log", "/var/log/auth.log", "/srv/other")
    assert [True, True, False, False] == [syslog_writes(tmp_path, log) for log in logs]


def test_red_hats_rules_write_the_kernel_to_messages_but_not_to_a_log_of_warnings(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", RED_HAT)

    assert [True, False] == [syslog_writes(tmp_path, log) for log in ("/var/log/messages", "/var/log/warn")]


def test_a_rule_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", 'module(load="imklog")\n')
    write(tmp_path, "etc/rsyslog.d/50-kern.conf", 'kern.info action(type="omfile" file="/srv/log/kernel")\n')

    assert syslog_writes(tmp_path, "/srv/log/kernel")


def test_rsyslog_that_does_not_read_the_kernel_claims_nothing(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", DEBIAN.replace('module(load="imklog")', '#module(load="imklog")'))

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
    write(tmp_path, "etc/systemd/journald.conf", text)

    assert expected == journal_drops_info(tmp_path)


@needs_systemd
def test_a_drop_in_of_journald_overrides_its_main_file(tmp_path: Path) -> None:
    write(tmp_path, "etc/systemd/journald.conf", "[Journal]\nMaxLevelStore=info\n")
    write(tmp_path, "etc/systemd/journald.conf.d/10-a.conf", "[Journal]\nMaxLevelStore=crit\n")
    assert "MaxLevelStore=crit" == journal_drops_info(tmp_path)

    write(tmp_path, "etc/systemd/journald.conf.d/20-b.conf", "[Journal]\nMaxLevelStore=\n")
    assert None is journal_drops_info(tmp_path)


@needs_systemd
def test_settings_of_journald_that_cannot_be_parsed_claim_nothing(tmp_path: Path) -> None:
    write(tmp_path, "etc/systemd/journald.conf", "MaxLevelStore=notice\n")

    with pytest.raises(Error):
        journal_drops_info(tmp_path)


def test_without_systemd_analyze_nothing_is_claimed_of_journald(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OSError, match="systemd-analyze"):
        journal_drops_info(tmp_path)
