"""Diagnostics on standard error, and ``--log-level``, which sets their level.

The option goes before or after a command. It covers only this program's own messages: those of its libraries may quote
a URL, which is a secret.
"""

import contextlib
import logging

import click

LEVELS = ("debug", "info", "warning", "error")
log = logging.getLogger("sockmem-agent")


class StandardError(logging.Handler):
    """Write to the current standard error; a closed one must not stop the service."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        with contextlib.suppress(OSError, ValueError):
            click.echo(self.format(record), err=True)


HANDLER = StandardError()
HANDLER.setFormatter(logging.Formatter("sockmem-agent: %(message)s"))


def set_up(ctx: click.Context, param: click.Parameter, level: str | None) -> None:
    """Log messages of this level and above; None changes nothing."""
    del ctx, param
    if level is None:
        return
    log.setLevel(level.upper())
    log.addHandler(HANDLER)


def log_level(default: str | None = None) -> click.Option:
    """Create the option; only the one before the command has a default."""
    return click.Option(
        ["--log-level"],
        type=click.Choice(LEVELS, case_sensitive=False),
        default=default,
        show_default=default is not None,
        metavar="LEVEL",
        is_eager=True,
        expose_value=False,
        callback=set_up,
        help="Write diagnostics of this severity and above to standard error: debug, info, warning or error.",
    )


def add_log_level(command: click.Command) -> None:
    """Add the option to a command and its subcommands."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    for each in (command, *below):
        if all(parameter.name != "log_level" for parameter in each.params):
            each.params.append(log_level())
