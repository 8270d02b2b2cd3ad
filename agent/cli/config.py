"""``sockmem-agent config``: check a configuration, or show the effective one."""

import json
import os
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from agent.cli import config_option, json_option
from agent.cli.checks import Check, check_channel
from agent.cli.common import settings_or_exit
from agent.cli.credentials import NextStart, as_written
from agent.cli.doctor import check_configuration, find_user, look_as
from agent.cli.printing import console, fail, print_json, warn
from agent.cli.unit import check_tasks, drop_in
from agent.config.load import DEFAULT_PATH, channels, masked, state_directory


@click.group(name="config", epilog="Example: sockmem-agent config check /etc/sockmem-agent/config.toml")
def command() -> None:
    """Check or show the configuration."""


@command.command(epilog="Example: sockmem-agent config check ./config.toml")
@click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
@config_option
def check(file: Path | None, config_path: Path | None) -> None:
    """Report every mistake in FILE, one line each on standard error.

    The default FILE is the one the service reads. If the service is installed, its unit and drop-ins are checked as the
    next restart will read them: credentials, TasksMax=. Exit status: 0 ready for the service, 78 not.
    """
    if file and config_path:
        raise click.UsageError("give one file: FILE or --config FILE")
    path = file or config_path
    start = NextStart()
    service, settings = start.service, settings_or_exit(path, start=start)
    user, _ = find_user(service)

    def look() -> list[Check]:
        # Root reads what the service may not.
        first = [] if path else check_configuration(start, settings, None, user)
        return [*first, *(check_channel(channel, service) for channel in channels(settings))]

    faults = [check for check in look_as(user, look) if check.status == "fail"]
    if faults:
        fail(os.EX_CONFIG, *(_line(check, path or DEFAULT_PATH) for check in faults))
    if service:
        trouble = check_tasks(settings, service)
        if trouble:
            fail(os.EX_CONFIG, trouble)
        if settings.store.directory and service.last("StateDirectory"):
            warn("[store] directory has no effect on the service: StateDirectory= in its unit overrides it")
    if path is None and not DEFAULT_PATH.exists():
        click.echo(f"{DEFAULT_PATH}: does not exist, the built-in defaults apply: ok")
    else:
        click.echo(f"{path or DEFAULT_PATH}: ok")


def _line(check: Check, where: Path) -> str:
    about = "" if check.name == "configuration" else f"{where}: {check.name}: "
    fix = drop_in(*check.drop_in[1:]) if check.drop_in else check.fix
    return f"{about}{as_written(check.detail)}" + (f"; {fix}" if fix else "")


@command.command(epilog="Example: sockmem-agent config show --json")
@config_option
@json_option
def show(config_path: Path | None, *, as_json: bool) -> None:
    """Show the effective configuration.

    Defaults are included; of a URL only the host is shown. `store.directory` is where `run` keeps its state when this
    user starts it. Exit status: 0, 78 configuration error.
    """
    settings = settings_or_exit(config_path)
    directory = str(state_directory(settings, os.environ, os.geteuid()))
    effective = replace(settings, store=replace(settings.store, directory=directory), notify=channels(settings))
    data = masked(effective)
    for channel in data["notify"]:
        channel |= {key: as_written(value) for key, value in channel.items() if isinstance(value, str)}
    if as_json:
        print_json(data)
        return
    exists = config_path or DEFAULT_PATH.exists()
    origin = str(config_path or DEFAULT_PATH) if exists else f"built-in defaults ({DEFAULT_PATH} does not exist)"
    screen = console()
    screen.print(f"# {origin}", style="dim")
    for line in toml_lines(data):
        screen.print(line, style="bold" if line.startswith("[") else None, soft_wrap=True)


def toml_lines(data: dict[str, Any]) -> list[str]:
    """Format the tables as TOML; of JSON all but objects are valid TOML."""
    lines = []
    for name, content in data.items():
        alone = isinstance(content, dict)
        for table in [content] if alone else content:
            lines += ["", f"[{name}]" if alone else f"[[{name}]]"]
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return lines


def _value(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_value(key)} = {_value(entry)}' for key, entry in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
