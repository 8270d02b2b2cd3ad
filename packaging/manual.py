"""sockmem-agent.toml(5), made from config.example.toml. man-pages(7), groff_man(7)."""

import re
from collections.abc import Iterator

from example import Table

OPENING = """\
.SH NAME
sockmem\\-agent.toml \\- configuration of sockmem\\-agent
.SH SYNOPSIS
.I /etc/sockmem\\-agent/config.toml
.SH DESCRIPTION
.nh
.ad l
The configuration of
.BR sockmem\\-agent (1),
in TOML. Every key may be left out, and an empty or missing file is a good configuration.
An unknown table or key, a wrong type or a value out of range keeps the service from starting;
.B sockmem\\-agent config check
reports all errors at once. Below, each key stands at its default."""
CLOSING = """\
.SH FILES
.TP
.I /etc/sockmem\\-agent/config.toml
The configuration.
.TP
.I /usr/share/doc/sockmem\\-agent/docs/schemas/config.json
A JSON Schema of it, for editors.
.SH SEE ALSO
.BR sockmem\\-agent (1),
.BR sockmem\\-agent\\-config\\-check (1),
.BR sockmem\\-agent\\-config\\-show (1),
.BR systemd.exec (5)"""


def configuration_page(tables: list[Table], version: str, date: str) -> str:
    """Write the man page."""
    lines = [f'.TH SOCKMEM\\-AGENT.TOML 5 "{date}" "sockmem\\-agent {version}" "File Formats"', OPENING]
    named = ""
    for table in tables:
        if table.name != named:
            lines += [f".SH {escape(table.header)}", "\n.PP\n".join(map(escape, table.before))]
        named = table.name
        lines += _channel(table) if table.header.startswith("[[") else _section(table)
    return "\n".join([*lines, CLOSING]) + "\n"


def escape(text: str) -> str:
    """Escape a text for the page: ASCII quotes, hyphens that can be copied, no requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    for character, name in (("'", "aq"), ('"', "dq"), ("`", "ga"), ("^", "ha"), ("~", "ti")):
        text = text.replace(character, f"\\({name}")
    return re.sub(r"^\.", r"\\&.", text)


def _section(table: Table) -> Iterator[str]:
    yield escape(table.text)
    for key in table.keys:
        yield from (".TP", f"\\fB{escape(key.name)}\\fP = {escape(key.value)}", escape(key.text))


def _channel(table: Table) -> Iterator[str]:
    """Write a table as in the file, then a description of its keys."""
    yield from (f".SS {escape(table.text.rstrip('.'))}", ".nf", ".RS 4", escape(table.header))
    yield from (escape(f"{key.name} = {key.value}") for key in table.keys)
    yield from (".RE", ".fi")
    for key in table.keys:
        if key.text:
            yield from (".TP", f"\\fB{escape(key.name)}\\fP", escape(key.text))
    told = [f"\\fB{escape(key.name)}\\fP" for key in table.keys if not key.text]
    if told:
        yield from (".PP", f"As above: {', '.join(told)}.")
