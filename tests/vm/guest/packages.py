"""In the machine: what the scenarios of the package do with it."""

import hashlib
import os
import re
from pathlib import Path

PLACES = (
    "/etc/sockmem-agent", "/usr/lib/sockmem-agent", "/usr/bin/sockmem-agent", "/var/lib/sockmem-agent",
    "/usr/lib/systemd/system/sockmem-agent.service", "/usr/lib/sysusers.d/sockmem-agent.conf",
    "/usr/lib/tmpfiles.d/sockmem-agent.conf", "/usr/share/doc/sockmem-agent",
    "/usr/share/man/man1/sockmem-agent.1.gz", "/usr/share/bash-completion/completions/sockmem-agent",
    "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
    "/etc/systemd/system/sockmem-agent.service.d/witness.conf", "/run/sockmem-agent",
)  # fmt: skip
# What stays of them when the package is removed, and not purged.
KEPT = [
    "/etc/sockmem-agent", "/etc/systemd/system/multi-user.target.wants/sockmem-agent.service",
    "/etc/systemd/system/sockmem-agent.service.d/witness.conf", "/var/lib/sockmem-agent",
]  # fmt: skip


def installed() -> Path:
    """Return the archive that was installed."""
    [archive] = Path("/var/lib/vm").glob("*.deb")
    return archive


def newer(rig, version: str) -> Path:
    """Make that archive again with a higher version, and a configuration that is another too."""
    folder, made = Path("/run/vm/newer"), Path("/run/vm/newer.deb")
    rig.run("dpkg-deb", "-R", str(installed()), str(folder))
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version:.*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    config = folder / "etc" / "sockmem-agent" / "config.toml"
    config.write_text(f"{config.read_text()}\n# of the newer package\n")
    rig.run("dpkg-deb", "-Znone", "-b", str(folder), str(made))
    return made


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file, by name."""
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def written_once(state: Path) -> dict[str, str]:
    """Return a digest of every file of an incident that is never written again: snapshots, notices and receipts."""
    once = ("snapshot-", "notice-")
    return {file: digest for file, digest in contents(state).items() if Path(file).name.startswith(once)}


def leftovers() -> list[str]:
    """Return what there is of the package's places."""
    return sorted(place for place in PLACES if os.path.lexists(place))
