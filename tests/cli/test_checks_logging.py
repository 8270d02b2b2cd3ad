from pathlib import Path

import pytest

from agent.cli.checks_logging import journal_drops_info, syslog_writes, takes_kern_info


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("kern.*", True),
        ("kern.info", True),
        ("kern.debug", True),
        ("kern.notice", False),
        ("kern.warn", False),
        ("kern.=info", True),
        ("kern.=debug", False),
        ("*.info;mail.none;authpriv.none;cron.none", True),
        ("*.*;auth,authpriv.none", True),
        ("*.*;kern.none", False),
        ("*.*;kern.!info", False),
        ("*.*;kern.!warning", True),
        ("*.*;kern.!=info", False),
        ("*.=info;*.=notice;*.=warn;auth,authpriv.none;cron,daemon.none;mail,news.none", True),
        ("daemon,kern.info", True),
        ("mail.*", False),
        ("*.emerg", False),
        ("*.err;kern.debug", True),
        ("kern.nonsense", False),
    ],
)
def test_a_selector_takes_the_kernels_info_lines(selector: str, expected: object) -> None:
    assert takes_kern_info(selector) is expected


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


def test_debians_rules_write_the_kernel_to_syslog_and_kern_log(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", DEBIAN)

    assert syslog_writes(tmp_path, "/var/log/syslog") is True
    assert syslog_writes(tmp_path, "/var/log/kern.log") is True
    assert syslog_writes(tmp_path, "/var/log/auth.log") is False


def test_red_hats_rules_write_the_kernel_to_messages_but_not_to_a_log_of_warnings(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", RED_HAT)

    assert syslog_writes(tmp_path, "/var/log/messages") is True
    assert syslog_writes(tmp_path, "/var/log/warn") is False


def test_a_rule_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "etc/rsyslog.conf", 'module(load="imklog")\n')
    write(tmp_path, "etc/rsyslog.d/50-kern.conf", 'kern.info action(type="omfile" file="/srv/log/kernel")\n')

    assert syslog_writes(tmp_path, "/srv/log/kernel") is True


def test_nothing_is_claimed_where_the_rules_do_not_say(tmp_path: Path) -> None:
    assert syslog_writes(tmp_path, "/var/log/syslog") is None
    write(tmp_path, "etc/rsyslog.conf", DEBIAN.replace('module(load="imklog")', '#module(load="imklog")'))
    assert syslog_writes(tmp_path, "/var/log/syslog") is None
    assert syslog_writes(tmp_path, "/srv/other") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("[Journal]\n#MaxLevelStore=notice\n", None),
        ("[Journal]\nMaxLevelStore=debug\n", None),
        ("[Journal]\nMaxLevelStore=info\n", None),
        ("[Journal]\nMaxLevelStore=6\n", None),
        ("[Journal]\nMaxLevelStore=\n", None),
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

    assert journal_drops_info(tmp_path) == expected


def test_drop_ins_overrule_by_name_and_etc_overrules_usr(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/systemd/journald.conf.d/10-a.conf", "[Journal]\nMaxLevelStore=err\n")
    write(tmp_path, "etc/systemd/journald.conf", "[Journal]\nMaxLevelStore=info\n")
    assert "MaxLevelStore=err" == journal_drops_info(tmp_path)

    write(tmp_path, "etc/systemd/journald.conf.d/10-a.conf", "[Journal]\nMaxLevelStore=crit\n")
    assert "MaxLevelStore=crit" == journal_drops_info(tmp_path)

    write(tmp_path, "run/systemd/journald.conf.d/20-b.conf", "[Journal]\nMaxLevelStore=debug\n")
    assert journal_drops_info(tmp_path) is None
