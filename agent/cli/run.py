"""``sockmem-agent run``: the service."""

import logging
import os
import sys
from pathlib import Path

import click
from msgspec.structs import replace

from agent.cli import HANDLER, config_option, log
from agent.config.load import ConfigError, load, runtime_directory, state_directory
from agent.core.settings import Settings
from agent.notifiers import ChannelError
from agent.service import sdnotify
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import asked
from agent.sources.choose import choose
from agent.store import Store, StoreError, blocking, explain, refusal

PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class JournalFormatter(logging.Formatter):
    """Prefix each line with its level for systemd: ``<4>`` is a warning (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Prefix every line of a message with its priority."""
        mark = f"<{PRIORITY.get(record.levelname, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


def set_up_log() -> None:
    """Log to standard error: with priorities for the journal, otherwise with times."""
    in_journal = "JOURNAL_STREAM" in os.environ
    HANDLER.setFormatter(
        JournalFormatter("%(message)s") if in_journal else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )


def read_settings(path: Path | None) -> Settings | None:
    """Read the configuration and resolve ``auto``; log every mistake and return None."""
    try:
        settings = load(path, os.environ)
    except ConfigError as error:
        for line in error.errors:
            log.error("%s", line)
        return None
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given and settings.store.directory not in {"", given}:
        log.warning(
            "[store] directory = %s has no effect, even after a restart: StateDirectory= in the unit sets %s",
            settings.store.directory,
            given,
        )
    return replace(settings, source=choose(settings.source))


def read_again(path: Path | None, store: Store) -> Settings | None:
    """Read the configuration for a reload, and log what needs a restart; None if it is bad."""
    settings = read_settings(path)
    if settings is None:
        log.error("the new configuration is invalid; the old one stays in effect")
        return None
    directory = state_directory(settings, os.environ, os.geteuid())
    if directory != store.directory:
        log.warning("[store] directory = %s needs a restart: %s stays in use until then", directory, store.directory)
    return settings


@click.command(name="run", epilog="Example: sockmem-agent run --config /etc/sockmem-agent/config.toml")
@config_option
@click.option(
    "--proc-root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default="/proc",
    show_default=True,
    help="Read the gauges from a copy of a /proc tree: for demonstrations and tests.",
)
def command(config_path: Path | None, proc_root: Path) -> None:
    """Run the service: follow the kernel log, snapshot, diagnose, store and notify, until SIGTERM.

    SIGHUP reloads the configuration. Exit status: 0 stopped, 78 configuration error, 1 any other failure.
    """
    asked.listen()
    set_up_log()
    settings = read_settings(config_path)
    if settings is None:
        sys.exit(os.EX_CONFIG)
    directory = state_directory(settings, os.environ, os.geteuid())
    store = Store(directory, settings.store, on_progress=sdnotify.work_goes_on)
    daemon = build(settings, store, proc_root)
    try:
        daemon.run(lambda: read_again(config_path, store))
    except ImportError as error:
        log.critical("stopping: %s; see sockmem-agent doctor", error)
        sys.exit(1)
    except OSError as error:
        log.critical("stopping: %s; events not stored yet are read again at the next start", explain(error))
        sys.exit(1)
    finally:
        asked.ignore()


def build(settings: Settings, store: Store, proc_root: Path) -> Daemon:
    """Open everything, or exit with one line that says what is wrong; later surprises keep their traceback."""
    try:
        for path in blocking(store.directory):
            # Status 1, so that systemd retries: the service starts as soon as the owner is fixed.
            log.error("cannot start: %s", refusal(path, store.directory))
            sys.exit(1)
        store.open_for_writing()
        outside = Outside(proc_root, runtime=runtime_directory(os.environ, store.directory))
        return Daemon(settings, store, asked, outside)
    except ChannelError as error:
        log.error("%s", error)
        sys.exit(os.EX_CONFIG)
    except StoreError as error:
        log.error("%s", error)
    except ImportError as error:
        log.error("cannot start: %s; see sockmem-agent doctor", error)
    except OSError as error:
        log.error("cannot start: %s; see sockmem-agent doctor", explain(error))
    sys.exit(1)
