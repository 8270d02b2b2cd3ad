"""``sockmem-agent witness``: make and remove the two instances of the kernel's trace that the service reads.

The unit's drop-in witness.conf runs both, as root and around the service: see docs/witness.md.
"""

import grp
import os
import subprocess
import sys

import click

from agent.cli.common import EX_FAILED, GROUP
from agent.cli.printing import fail, warn
from agent.cli.unit import read_unit
from agent.core.readings import Gap
from agent.probe import witness


@click.group(name="witness", epilog="Example: sudo sockmem-agent witness start")
def command() -> None:
    """Make or remove what the service reads the kernel's trace from.

    The unit's drop-in witness.conf runs this around the service; sockmem-agent doctor says how to enable it.
    """


@command.command(epilog="Example: sudo sockmem-agent witness start")
def start() -> None:
    """Make the two tracing instances, anew if they exist.

    The service's group can read them. Exit status: 0 made, 1 neither could be made.
    """
    _need_root("start")
    group = _group()
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        fail(EX_FAILED, f"sockmem-agent: the group {group} does not exist: run systemd-sysusers sockmem-agent.conf")
    if not (witness.TRACEFS / "instances").is_dir():  # Older systemd leaves that to others.
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(witness.TRACEFS)], capture_output=True, check=False)
    _say(witness.make(witness.HOST, gid))
    sys.exit(0 if any(path.exists() for path in witness.HOST) else EX_FAILED)


@command.command(epilog="Example: sudo sockmem-agent witness stop")
def stop() -> None:
    """Remove the two tracing instances.

    One that somebody still reads stays, switched off. Exit status: 0 both are gone, 1 otherwise.
    """
    _need_root("stop")
    gaps = witness.remove(witness.HOST)
    _say(gaps)
    sys.exit(EX_FAILED if gaps else 0)


def _need_root(action: str) -> None:
    if os.geteuid() != 0:
        fail(
            EX_FAILED,
            f"sockmem-agent: only root can change the kernel's trace; run sudo sockmem-agent witness {action}",
        )


def _group() -> str:
    """Return the service's group, which a drop-in of the administrator's may have changed."""
    service = read_unit()
    setting = service.last("Group") if service else None
    return setting.value if setting else GROUP


def _say(gaps: tuple[Gap, ...]) -> None:
    for gap in gaps:
        warn(f"{gap.what}: {gap.why}")
