"""``sockmem-agent doctor``: check what the service will need on this host, one line a check, with the mend."""

import os
import stat
import sys
from pathlib import Path

import click
from msgspec.structs import replace

from agent.cli.checks import (
    USER,
    Check,
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
from agent.cli.common import EX_FAILED, config_option, console, json_option, print_json
from agent.cli.credentials import load_as_service
from agent.cli.reach import UNIT, Rights, check_reach, read_rights
from agent.config import DEFAULT_PATH, SYSTEM_STATE, ConfigError, channels, state_directory
from agent.core.settings import Settings, UrlChannel
from agent.core.words import printable
from agent.sources.choose import choose

MEND = "config.example.toml shows every key; then sockmem-agent config check"
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
# The configuration is broken and another line says so: the checks go on with the built-in defaults.
DEFAULTS = replace(Settings(), store=replace(Settings().store, directory=""))


@click.command(name="doctor", epilog="Example: sockmem-agent doctor")
@config_option
@json_option
def command(config_path: Path | None, *, as_json: bool) -> None:
    """Check what the service will need on this host: one line a check, ok, warn or fail, with the mend.

    It sees what the user may see who runs it; the last lines before the clock, on who holds the sockets, are about what
    the service may see. Exit status: 0 no fail, 1 else.
    """
    settings, checks = check_configuration(config_path)
    chosen, rights = choose(settings.source), read_rights()
    checks += [
        check_source(settings.source, chosen),
        *check_bindings(settings.source),
        check_log_level(chosen),
        check_state(state_directory(settings, os.environ, os.geteuid()), settings.store),
        check_proc(),
        check_sock_diag(),
        check_cgroup(),
        *check_reach(rights),
        check_clock(),
        *map(check_channel, channels(settings)),
    ]
    good = all(check.status != "fail" for check in checks)
    if as_json:
        print_json({"ok": good, "checks": checks, "service": service_facts(rights)})
    else:
        _print(checks, rights)
    sys.exit(0 if good else EX_FAILED)


def check_configuration(path: Path | None) -> tuple[Settings, list[Check]]:
    """Load the configuration: one failed check for every mistake, and a warning for a secret that all can read."""
    where = path or DEFAULT_PATH
    name = "configuration"
    try:
        settings = load_as_service(path)
    except ConfigError as error:
        return DEFAULTS, [Check(name, "fail", line, MEND) for line in error.errors]
    if path is None and not where.exists():
        return settings, [Check(name, "ok", f"{where} is not there: the built-in defaults apply")]
    inline = [channel.name for channel in settings.notify if isinstance(channel, UrlChannel) and not channel.url_file]
    if inline and where.stat().st_mode & stat.S_IROTH:
        detail = f"{where}: everybody can read the URL of {', '.join(inline)}, which is a secret"
        return settings, [Check(name, "warn", detail, f"chmod o-r {where}, or use url_file")]
    return settings, [Check(name, "ok", str(where))]


def service_facts(rights: Rights) -> dict[str, object]:
    """Say what the service may do beyond what everybody may, and how that is known."""
    return {
        "capabilities": sorted(rights.capabilities),
        "enters_namespaces": rights.enters_namespaces,
        "source": rights.source,
    }


def _print(checks: list[Check], rights: Rights) -> None:
    from rich.text import Text  # noqa: PLC0415 - the service must not load it

    screen = console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        mend = f"; mend: {check.mend}" if check.mend else ""
        line = Text(f"{check.status:<4}", style=STYLES[check.status])
        line.append(f"  {check.name:<{width}}  {printable(check.detail)}{printable(mend)}", style="default")
        screen.print(line, soft_wrap=True)
    screen.print(f"What the service may see is that of {rights.source}", style="dim", soft_wrap=True)
    for check in checks:
        if check.drop_in:
            screen.print(f"For {check.name}: systemctl edit {UNIT}, then systemctl restart {UNIT}", style="dim")
            screen.print("\n".join(f"    {added}" for added in check.drop_in), soft_wrap=True)
    if os.geteuid() == 0:
        again = f"sudo -u {USER} env STATE_DIRECTORY={SYSTEM_STATE} sockmem-agent doctor"
        screen.print(f"Checked with root's eyes; with the service's own: {again}", style="dim", soft_wrap=True)
