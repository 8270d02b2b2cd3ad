"""Whether this host's logging stores the kernel's messages of level info, which some hosts drop.

journald's settings are asked of systemd-analyze(1): journald.conf(5). Of rsyslog.conf(5) only the usual rules are
understood, such as ::

    *.info;mail.none;authpriv.none;cron.none    -/var/log/messages
    kern.*                                      action(type="omfile" file="/var/log/kern.log")
"""

import re
import subprocess
from configparser import Error, RawConfigParser
from pathlib import Path

JOURNALD_CONF = "systemd/journald.conf"
PATIENCE_SECONDS = 5.0
# journald ignores an unknown level.
LEVELS_ABOVE_INFO = {"emerg", "alert", "crit", "err", "warning", "notice", *"012345"}
OFF = {"0", "no", "n", "false", "f", "off"}

# The first selector takes kern.info, and the later ones are about other facilities.
_RULE = (
    r"^\s*(?:kern|\*)\.(?:\*|info|debug)(?:;(?:(?!kern\b)[\w,.=!])*)*\s+"
    r"(?:-?{log}(?:;\S*)?\s*$|action\(.*file=\"{log}\")"
)
_READS_KERNEL = re.compile(r"^[^#]*\b(imklog|imjournal)\b", re.MULTILINE)


class CannotTellError(Exception):
    """The settings cannot be read; the text says why."""


def journal_drops_info(root: Path) -> str | None:
    """Name the setting that keeps journald of the host at ``root`` from storing kern.info, if any."""
    settings = RawConfigParser(strict=False, delimiters=("=",), allow_no_value=True)
    try:
        settings.read_string(_cat_config(root))
    except Error as error:
        raise CannotTellError(str(error).splitlines()[0]) from error
    storage, reads, level = (
        settings.get("Journal", key, fallback=None) or "" for key in ("Storage", "ReadKMsg", "MaxLevelStore")
    )
    if storage.lower() == "none":
        return "Storage=none"
    if reads.lower() in OFF:
        return "ReadKMsg=no"
    return f"MaxLevelStore={level}" if level.lower() in LEVELS_ABOVE_INFO else None


def _cat_config(root: Path) -> str:
    command = ["systemd-analyze", "cat-config", f"--root={root}", JOURNALD_CONF]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotTellError(str(error)) from error
    if done.returncode:
        raise CannotTellError(done.stderr.strip())
    return done.stdout


def syslog_writes(root: Path, log: str) -> bool:
    """Return whether a usual rule of rsyslog on the host at ``root`` writes kern.info to ``log``."""
    files = [root / "etc/rsyslog.conf", *sorted((root / "etc/rsyslog.d").glob("*.conf"))]
    text = "\n".join(map(_read, files))
    rule = _RULE.replace("{log}", re.escape(log))
    return bool(_READS_KERNEL.search(text) and re.search(rule, text, re.MULTILINE))


def _read(path: Path) -> str:
    """Read a file of settings; one that this user may not read counts as empty."""
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""
