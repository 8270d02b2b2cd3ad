"""Whether this host's logging writes the kernel's lines down at all: they are of level info, which some hosts drop.

Mirrors journald.conf(5) and the selectors of rsyslog.conf(5). Samples of the text it parses::

    [Journal]
    MaxLevelStore=notice

    *.info;mail.none;authpriv.none;cron.none    -/var/log/messages
    kern.*                                      action(type="omfile" file="/var/log/kern.log")
"""

import re
from collections.abc import Iterator
from pathlib import Path

JOURNALD_ROOTS = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
LEVELS = {"emerg": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
ALIASES = {"panic": "emerg", "error": "err", "warn": "warning"}
INFO = LEVELS["info"]

_RULE = re.compile(r"^\s*(?P<selector>[\w*,.;=!]+)\s+(?:-?(?P<plain>/[^\s;]+)|action\(.*?file=\"(?P<action>[^\"]+)\")")
_READS_KERNEL = re.compile(r"^[^#]*\b(imklog|imjournal)\b", re.MULTILINE)


def journal_drops_info(root: Path) -> str | None:
    """Name the setting that keeps journald of the host at ``root`` from storing the kernel's info lines, if any."""
    settings: dict[str, str] = {}
    for path in _journald_files(root):
        settings |= _journal_section(_read(path))
    level = settings.get("maxlevelstore") or "debug"
    if settings.get("storage", "").lower() == "none":
        return "Storage=none"
    if settings.get("readkmsg", "").lower() in {"0", "no", "n", "false", "f", "off"}:
        return "ReadKMsg=no"
    # journald passes over a level that it does not know.
    return f"MaxLevelStore={level}" if 0 <= _level(level) < INFO else None


def syslog_writes(root: Path, log: str) -> bool | None:
    """Tell whether rsyslog of the host at ``root`` writes kern.info into ``log``; None where its rules do not say."""
    files = [root / "etc/rsyslog.conf", *sorted((root / "etc/rsyslog.d").glob("*.conf"))]
    text = "\n".join(_read(path) for path in files)
    if not text:
        return None
    rules = [match for line in text.splitlines() if (match := _RULE.match(line))]
    selectors = [rule["selector"] for rule in rules if log in (rule["plain"], rule["action"])]
    if not selectors:
        return None
    if not any(map(takes_kern_info, selectors)):
        return False
    return True if _READS_KERNEL.search(text) else None


def takes_kern_info(selector: str) -> bool:
    """Evaluate a selector for the kernel's info lines; a later part overrules the ones before it."""
    taken = False
    for part in selector.split(";"):
        facilities, _, priority = part.rpartition(".")
        if not {"*", "kern"} & set(facilities.split(",")):
            continue
        excluded, exact, name = priority.startswith("!"), "=" in priority, priority.lstrip("!=")
        if name == "none":
            taken = False
        elif name == "*" or (_level(name) == INFO if exact else _level(name) >= INFO):
            taken = not excluded
    return taken


def _read(path: Path) -> str:
    """Read a file of settings; one that is not there, or not for this user to read, says nothing."""
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _level(name: str) -> int:
    """Turn a level's name or number into its number, an unknown one into -1."""
    lower = name.lower()
    return int(lower) if lower.isdecimal() else LEVELS.get(ALIASES.get(lower, lower), -1)


def _journald_files(root: Path) -> Iterator[Path]:
    """List the files that systemd reads, the ones that overrule others last."""
    yield from [path for folder in JOURNALD_ROOTS if (path := root / folder / "journald.conf").is_file()][:1]
    drop_ins: dict[str, Path] = {}
    for folder in reversed(JOURNALD_ROOTS):
        drop_ins |= {path.name: path for path in (root / folder / "journald.conf.d").glob("*.conf")}
    yield from (drop_ins[name] for name in sorted(drop_ins) if drop_ins[name].is_file())


def _journal_section(text: str) -> dict[str, str]:
    section, found = "", {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Journal]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found[key.strip().lower()] = value.strip()
    return found
