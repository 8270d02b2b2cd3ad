"""The command line: one thin click file per command, imported only when it is used.

The service must stay small in memory, so ``run`` never imports what only a terminal needs.
"""

import importlib
import os
import sys

from agent.service.signals import asked, is_run

if is_run(sys.argv[1:]):  # Here, because the imports below take long enough for a signal to come.
    asked.listen()

import click
from click.shell_completion import CompletionItem

from agent import __version__
from agent.cli.diagnostics import add_log_level, log_level

COMMANDS = {
    "run": "run the service: follow the kernel log, diagnose, record and notify",
    "diagnose": "diagnose this host now or a stored incident again",
    "scan": "find the kernel's messages in existing logs",
    "incidents": "list and show recorded incidents; report, export and prune them",
    "notify": "send a test notification to the configured channels",
    "config": "check or show the configuration",
    "doctor": "check that the service will work on this host",
}


class LazyGroup(click.Group):
    """A group whose commands live in ``agent.cli.<name>``, in an object named ``command``."""

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
        add_log_level(command)
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


def main() -> None:
    """Run the command line; report output that cannot be written in one line, without a traceback."""
    open_standard_streams()
    try:
        try:
            group(prog_name="sockmem-agent")
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Discard the buffer.
        sys.exit(f"sockmem-agent: {error.filename or 'standard output'}: {error.strerror}")
