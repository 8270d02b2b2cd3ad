"""In the machine, once: install the package as a user would, and enable the service as the README says."""

import shutil
import subprocess
from pathlib import Path

PORT = 8099
SECRET = "whsec_" + "c29ja21lbS1hZ2VudCBpbiBhIG1hY2hpbmU="
CONFIG = f"""\
[incident]
quiet_seconds = 6

[[notify]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:{PORT}/hook"
secret_file = "/etc/sockmem-agent/hook-secret"

[[notify]]
name = "team"
type = "slack"
url = "http://127.0.0.1:{PORT}/team"

[[notify]]
name = "pager"
type = "alertmanager"
urls = ["http://127.0.0.1:{PORT}"]
"""
# Several couriers at once, as on a host that is looked after: what they do to each other shows only then.
CHANNELS = ("hook", "team", "pager")
DROP_IN = Path("/etc/systemd/system/sockmem-agent.service.d/witness.conf")


def main(folder: Path, results: Path) -> None:
    [package] = folder.glob("*.deb")
    (results / "apt.txt").write_text(sh("apt-get", "install", "-y", str(package)))
    shutil.copy(package, "/var/lib/vm")
    config, secret = Path("/etc/sockmem-agent/config.toml"), Path("/etc/sockmem-agent/hook-secret")
    (results / "before.txt").write_text(
        sh("systemctl", "is-enabled", "sockmem-agent", check=False)
        + sh("systemctl", "is-active", "sockmem-agent", check=False)
        + sh("stat", "-c", "%U:%G %a %n", str(config), "/var/lib/sockmem-agent")
    )
    config.write_text(CONFIG)
    secret.write_text(SECRET)
    for file in (config, secret):
        shutil.chown(file, group="sockmem-agent")
        file.chmod(0o640)
    sh("systemctl", "enable", "--now", "sockmem-agent")
    (results / "doctor.txt").write_text(sh("sockmem-agent", "doctor", "--json", check=False))
    take_witness()
    (results / "status.txt").write_text(sh("systemctl", "status", "--no-pager", "sockmem-agent"))
    # The results go to the host first.
    sh("systemd-run", "--quiet", "--on-active=3", "systemctl", "poweroff")


def take_witness() -> None:
    """Enable the drop-in as docs/witness.md says."""
    sh("install", "-D", "-m", "0644", "-t", str(DROP_IN.parent), f"/usr/lib/sockmem-agent/{DROP_IN.name}")
    sh("systemctl", "daemon-reload")
    sh("systemctl", "restart", "sockmem-agent")


def do_without_witness() -> None:
    """Run the service as the package installs it: nearly everywhere it has no witness."""
    DROP_IN.unlink()
    sh("systemctl", "daemon-reload")
    sh("systemctl", "restart", "sockmem-agent")


def sh(*command: str, check: bool = True, given: str | None = None) -> str:
    """Run a program and return what it printed; what it complained about is in the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=given)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
