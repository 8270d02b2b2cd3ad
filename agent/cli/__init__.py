"""The command line: one thin click file per command, imported only when it is used.

The service must stay small in memory, so ``run`` never imports what only a terminal needs.
"""

import contextlib
import gc
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.service.signals import asked, is_run

if is_run(sys.argv[1:]):  # Here, because the imports below take long enough for a signal to come.
    asked.listen()
    # What is imported stays, and to look through it for garbage is a twentieth of the start. Daemon.begin enables it.
    gc.disable()

import click
from click.shell_completion import CompletionItem

from agent import __version__

log = logging.getLogger("sockmem-agent")

MOST_SHOWN = 300
COMMANDS = {
    "run": "run the service: follow the kernel log, diagnose, record and notify",
    "diagnose": "diagnose this host now or a stored incident again",
    "scan": "find the kernel's messages in existing logs",
    "incidents": "list and show recorded incidents; report, export and prune them",
    "notify": "send a test notification to the configured channels",
    "config": "check or show the configuration",
    "status": "show whether the service runs, open incidents and what waits to be sent",
    "silence": "hold back notifications for a while",
    "doctor": "check that the service will work on this host",
    "witness": "make or remove what the service reads the kernel's trace from (root)",
}


class StandardError(logging.Handler):
    """Write to the current standard error; a closed one must not stop the service."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        with contextlib.suppress(OSError, ValueError):
            click.echo(self.format(record), err=True)


HANDLER = StandardError()
HANDLER.setFormatter(logging.Formatter("sockmem-agent: %(message)s"))


def set_level(ctx: click.Context, param: click.Parameter, level: str | None) -> None:
    """Log this program's messages of this level and above; those of libraries may quote a URL, which is a secret."""
    del ctx, param
    if level:
        log.setLevel(level.upper())
        log.addHandler(HANDLER)


def log_level(default: str | None = None) -> click.Option:
    """Create the option, which goes before or after a command; only the one before has a default."""
    return click.Option(
        ["--log-level"],
        type=click.Choice(("debug", "info", "warning", "error"), case_sensitive=False),
        default=default,
        show_default=default is not None,
        metavar="LEVEL",
        is_eager=True,
        expose_value=False,
        callback=set_level,
        help="Write diagnostics of at least this severity to standard error: debug, info, warning or error.",
    )


config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Read this file instead of /etc/sockmem-agent/config.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


class UnknownError(click.UsageError):
    """A usage error where a monitoring system asks: to it 2 would mean "critical", or an early warning."""

    exit_code = 3


def is_monitored(arguments: list[str]) -> bool:
    """Return whether a monitoring system asks, to which any failure of ours is 3, "unknown"."""
    words = {each.partition("=")[0] for each in arguments}
    return "--nagios" in words or {"status", "--check"} <= words


@contextlib.contextmanager
def monitored(arguments: list[str]) -> Iterator[None]:
    """Give usage errors their exit status under ``--nagios`` and ``status --check``."""
    try:
        yield
    except click.UsageError as error:
        if is_monitored(arguments):
            raise UnknownError(error.format_message(), error.ctx) from None
        raise


class LazyGroup(click.Group):
    """A group whose commands live in ``agent.cli.<name>``, in an object named ``command``."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's own
    ) -> click.Context:
        """Parse the options before the command, and remember all arguments."""
        arguments = list(args)
        with monitored(arguments):
            context = super().make_context(info_name, args, parent, **extra)
        context.obj = arguments
        return context

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as above
        """Run the command, which parses its own arguments."""
        with monitored(ctx.obj):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which people need them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"agent.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - our own mistake, not the user's
        for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            if all(parameter.name != "log_level" for parameter in each.params):
                each.params.append(log_level())
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands without importing any, and the options."""
        commands = [CompletionItem(name, help=does) for name, does in COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: sockmem-agent diagnose",
    params=[log_level("info")],
)
@click.version_option(__version__, prog_name="sockmem-agent")
def group() -> None:
    """Detect when this host runs out of TCP socket memory, and diagnose why."""


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that the caller closed, or the next file opened would get its number.

    Output would then go to that file. Input is opened for writing and output for reading, so that using them is still
    an error; output to a closed standard error is lost.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # noqa: FBT003 - positional in the library
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - a descriptor
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the locale lacks is shown by its number, as on standard error.
        sys.stdout.reconfigure(errors="backslashreplace")


def unencodable(error: UnicodeEncodeError) -> str:
    """Say what cannot be encoded: the name of a file, most likely, since what is printed can."""
    what = f"{error.object[:MOST_SHOWN]!a} cannot be encoded in this locale ({error.encoding})"
    return f"sockmem-agent: {what}; set LC_ALL=C.UTF-8, or use another name"


def main() -> None:
    """Run the command line; report output that cannot be written in one line, without a traceback."""
    open_standard_streams()
    # A parent that ignores it hands that on, and then no exit status of a program that we run is kept: wait(2).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        try:
            group(prog_name="sockmem-agent")
        finally:
            sys.stdout.flush()
    except UnicodeEncodeError as error:
        sys.exit(unencodable(error))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Discard the buffer.
        click.echo(f"sockmem-agent: {error.filename or 'standard output'}: {error.strerror}", err=True)
        sys.exit(UnknownError.exit_code if is_monitored(sys.argv) else 1)
