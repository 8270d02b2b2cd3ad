r"""The service's unit as its files define it for the next start, whether or not systemd runs or has loaded them.

``systemctl cat`` needs a running systemd and shows only the drop-ins it has loaded. Mirrors
systemd.unit(5), "Unit File Load Path", and systemd.syntax(7). A sample drop-in::

    [Service]
    LoadCredential=ops-url:/etc/sockmem-agent/ops-url
"""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.config.load import channels
from agent.core.settings import Settings
from agent.service import threads
from agent.sources.choose import choose

UNIT = "sockmem-agent.service"
ROOT = Path("/")
PATIENCE_SECONDS = 5.0
# Highest priority first.
PLACES = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
HIDING = {
    "PrivateTmp": (("/tmp", "/var/tmp"), ("PrivateTmp=no",)),  # noqa: S108 - nothing is created there
    "ProtectHome": (("/home", "/root", "/run/user"), ("ProtectHome=read-only",)),
    "PrivateDevices": (
        ("/dev/kmsg",),
        (
            "PrivateDevices=no",
            "DevicePolicy=closed",
            "DeviceAllow=/dev/kmsg r",
            "ProtectKernelLogs=no",
            "CapabilityBoundingSet=CAP_SYSLOG",
            "AmbientCapabilities=CAP_SYSLOG",
        ),
    ),
}
DROP_INS = (f"{UNIT}.d", "sockmem-.service.d", "service.d")


class Setting(NamedTuple):
    """One assignment in the section [Service], and its file."""

    key: str
    value: str
    file: Path


class Unit(NamedTuple):
    """The assignments in the order systemd applies them."""

    settings: tuple[Setting, ...]

    def all(self, key: str) -> list[Setting]:
        """List the assignments of a key that may be set several times; an empty one resets it."""
        found: list[Setting] = []
        for setting in self.settings:
            if setting.key == key:
                found = [*found, setting] if setting.value else []
        return found

    def last(self, key: str) -> Setting | None:
        """Find the effective assignment; None if there is none, or it was reset."""
        return next(reversed(self.all(key)), None)

    def words(self, key: str) -> list[str]:
        """List the words in all assignments of a key."""
        return [word for setting in self.all(key) for word in setting.value.split()]

    def is_set(self, key: str) -> bool:
        """Return whether a boolean is true."""
        setting = self.last(key)
        return setting is not None and setting.value.lower() in {"yes", "true", "on", "1", "y", "t"}

    def state_directory(self) -> Path | None:
        """Return the directory that systemd creates for the service."""
        return self._own("StateDirectory", "/var/lib")

    def runtime_directory(self) -> Path | None:
        """Return the directory in /run that systemd creates for the service."""
        return self._own("RuntimeDirectory", "/run")

    def _own(self, key: str, top: str) -> Path | None:
        return next((Path(top) / word.partition(":")[0] for word in self.words(key)), None)

    def lets_write(self, directory: Path) -> bool:
        """Return whether the unit lets the service write there."""
        setting = self.last("ProtectSystem")
        if setting is None or setting.value != "strict":
            return True
        own = [path for path in (self.state_directory(), self.runtime_directory()) if path]
        writable = [Path(word.lstrip("-+")) for word in self.words("ReadWritePaths")] + own
        return any(directory.is_relative_to(top) for top in writable)

    def hiding(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """List the keys that hide one of these paths from the service, each with the drop-in that shows it."""
        return {
            key: ("[Service]", *lines)
            for key, (tops, lines) in HIDING.items()
            if self.is_set(key) and any(Path(path).is_relative_to(top) for path in paths for top in tops)
        }


def read_unit() -> Unit | None:
    """Read the unit and its drop-ins; None if it is not installed, or masked."""
    main = next((path for place in PLACES if (path := ROOT / place / UNIT).exists()), None)
    if main is None or not main.is_file():
        return None
    return Unit(tuple(setting for file in (main, *_drop_ins()) for setting in _service_section(file)))


def ask(*command: str, given: bytes = b"") -> bytes:
    """Return what one of systemd's programs prints; OSError says why it cannot."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from error
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace").strip())
    return done.stdout


def drop_in(*lines: str) -> str:
    """Format the lines to add to the unit, and how."""
    return "\n".join([f"systemctl edit {UNIT}, and add:", "    [Service]", *[f"    {line}" for line in lines]])


def check_tasks(settings: Settings, service: Unit) -> str | None:
    """Return an error if the unit has too few threads for the channels, with the line to add."""
    limit, count = service.last("TasksMax"), len(channels(settings))
    needed = threads.needed(choose(settings.source), count)
    if limit is None or not limit.value.isdecimal() or needed <= int(limit.value):
        return None
    lines = drop_in(f"TasksMax={-(-needed // 64) * 64}")
    have = f"{count} channels need up to {needed} threads, and {limit.file} allows TasksMax={limit.value}"
    return f"{have}: the last channels would get no notifications; {lines}"


def _drop_ins() -> Iterator[Path]:
    """List the drop-ins by name; of two with the same name the one with priority counts, even if it is /dev/null."""
    folders = [ROOT / place / folder for place in PLACES for folder in DROP_INS[:2]]
    folders += [ROOT / place / DROP_INS[2] for place in PLACES]
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        found |= {path.name: path for path in folder.glob("*.conf")}
    yield from (found[name] for name in sorted(found) if found[name].is_file())


def _service_section(file: Path) -> Iterator[Setting]:
    section, begun = "", ""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return  # This user may not read it; root, who restarts the service, may.
    for raw in lines:
        line = raw.strip()
        if not line or line[0] in "#;":
            continue  # Also within a continued line.
        line = begun + line
        if line.endswith("\\"):
            begun = line[:-1].rstrip() + " "
            continue
        begun = ""
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line:
            key, _, value = line.partition("=")
            yield Setting(key.strip(), value.strip(), file)
