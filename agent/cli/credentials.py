"""The credentials of the service's next start, to check a configuration before it.

They are read from where systemd will read them, as the unit's LoadCredential= says: the directory of a running service
lacks what was added since. Mirrors systemd.exec(5), CREDENTIALS, and systemd-creds(1).
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from agent.cli import unit
from agent.cli.faults import is_missing
from agent.cli.unit import Unit, ask, drop_in, read_unit
from agent.config.load import ConfigError, load
from agent.core.settings import Settings

RUNNING = "run/credentials/sockmem-agent.service"
STORES = ("run/credentials/@system", "etc/credstore", "run/credstore", "usr/local/lib/credstore", "usr/lib/credstore")
ENCRYPTED_STORES = tuple(f"{store}.encrypted" for store in STORES[1:])
KEYS = ("SetCredential", "SetCredentialEncrypted", "ImportCredential", "LoadCredential", "LoadCredentialEncrypted")
LARGEST_BYTES = 1024 * 1024  # systemd's own bound
NOWHERE = "/run/credentials/none"  # for a unit without credentials
# Deleted when the process ends.
_kept: list[tempfile.TemporaryDirectory[str]] = []


class Credential(NamedTuple):
    """One credential of the unit: its file, or the content in the unit itself."""

    name: str
    path: Path
    place: str
    content: str | None = None
    encrypted: bool = False


class NextStart:
    """What the service finds at its next start; credentials are read once, with the caller's rights."""

    def __init__(self) -> None:
        self.service = read_unit()
        self._found: dict[str, Credential] = {}
        self._directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if self.service and not self._directory:
            self._found = {each.name: each for each in _credentials(self.service)}
            self._directory = _provide(self._found) if self._found else NOWHERE

    def load(self, path: Path | None) -> Settings:
        """Load a configuration; ConfigError has all mistakes, some followed by the lines to add to the unit."""
        environ = {**os.environ, "CREDENTIALS_DIRECTORY": self._directory} if self._directory else os.environ
        errors: list[str] = []
        try:
            settings = load(path, environ)
        except ConfigError as error:
            errors = [self._explain(line) for line in error.errors]
        # systemd does not start a service with a missing credential, even one the configuration does not use.
        gone = [each for each in self._found.values() if each.content is None and is_missing(each.path)]
        errors += [_missing(each) for each in gone if not any(each.place in line for line in errors)]
        if errors:
            raise ConfigError(errors)
        return settings

    def _explain(self, line: str) -> str:
        """Replace a credential's path by its file, or add the lines that the unit lacks."""
        named = re.search(rf"{re.escape(self._directory or '')}/([^'\"`\s]+)", line)
        if named is None or not self.service or self._directory == os.environ.get("CREDENTIALS_DIRECTORY"):
            return line
        name, head = named[1], line[: named.start()].rstrip("'\"`").rstrip(": ")
        credential = self._found.get(name)
        if credential is None:
            where = ", ".join(dict.fromkeys(str(setting.file) for setting in self.service.settings))
            lines = drop_in(f"LoadCredential={name}:/etc/sockmem-agent/{name}")
            return f"{head}: the unit has no credential {name} ({where}); {lines}"
        if credential.encrypted:
            return f"{head}: {credential.place} cannot be decrypted; run this as root on the host that encrypted it"
        return f"{line.replace(named[0], str(credential.path))} ({credential.place})"


def _credentials(service: Unit) -> Iterator[Credential]:
    """List the unit's credentials; of two with the same name the later one counts."""
    for key in KEYS:
        for setting in service.all(key):
            name, _, rest = setting.value.partition(":")
            place = f"{key}={name} in {setting.file}"
            encrypted = key.endswith("Encrypted")
            if key.startswith("Set"):
                yield Credential(name, setting.file, place, rest, encrypted)
            elif key == "ImportCredential":
                stored = (path for store in STORES for path in (unit.ROOT / store).glob("*") if path.is_file())
                yield from (Credential(path.name, path, place) for path in stored if fnmatch(path.name, name))
            elif Path(rest).is_absolute():
                yield from _from_file(Credential(name, Path(rest), place, encrypted=encrypted))
            else:
                stores = STORES + (ENCRYPTED_STORES if encrypted else ())
                paths = [path for store in stores if (path := unit.ROOT / store / (rest or name)).is_file()]
                yield from (Credential(name, path, place, encrypted=encrypted) for path in paths[:1])


def _from_file(credential: Credential) -> Iterator[Credential]:
    """Expand a directory to its files, named CREDENTIAL_FILE (since 250)."""
    if not credential.path.is_dir():
        yield credential
        return
    for path in sorted(credential.path.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield credential._replace(name=f"{credential.name}_{path.name}", path=path)


def _provide(found: dict[str, Credential]) -> str:
    """Create a directory like the service's, with links to contents that are kept in memory only."""
    kept = tempfile.TemporaryDirectory(prefix="sockmem-agent-")
    _kept.append(kept)
    directory = Path(kept.name)
    directory.chmod(0o711)  # The doctor reads it as the service user.
    for credential in found.values():
        content = _content(credential)
        if content is not None:
            memory = os.memfd_create(credential.name)
            os.write(memory, content)
            (directory / credential.name).symlink_to(f"/proc/self/fd/{memory}")
        elif not credential.encrypted:
            # Reading it will report why it cannot be read.
            (directory / credential.name).symlink_to(credential.path)
    return kept.name


def _content(credential: Credential) -> bytes | None:
    running = unit.ROOT / RUNNING / credential.name
    if credential.encrypted:
        return _decrypted(credential) or _read(running)
    if credential.content is not None:
        return credential.content.encode()
    # A caller who may not read the file may be the service user, who may read the service's own copy.
    return _read(credential.path) or (None if is_missing(credential.path) else _read(running))


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()[:LARGEST_BYTES] if path.is_file() else None
    return None


def _decrypted(credential: Credential) -> bytes | None:
    source = str(credential.path) if credential.content is None else "-"
    with suppress(OSError):
        given = (credential.content or "").encode()
        return ask("systemd-creds", "decrypt", f"--name={credential.name}", source, "-", given=given)
    return None


def as_written(path: str) -> str:
    """Turn the path of a credential back into the one in the configuration."""
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    for directory in filter(None, (given, NOWHERE, *[kept.name for kept in _kept])):
        path = path.replace(directory, "${CREDENTIALS_DIRECTORY}")
    return path


def _missing(credential: Credential) -> str:
    return f"{credential.place}: {credential.path} does not exist; systemd will not start the service without it"
