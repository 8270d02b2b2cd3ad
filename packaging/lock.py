"""Write requirements.txt: each library that the packages bring, at one version, with the digest of every wheel.

Run it to take newer libraries: ``python packaging/lock.py``, in the environment of ``make deb``. The digests hold a
build to what was looked at here, and make two builds alike.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import msgspec.toml
from wheels import ARCHITECTURES, PYTHONS, for_target

HERE = Path(__file__).parent
# It comes from the distribution: it is compiled against the host's own libsystemd, and has no wheels.
FROM_DISTRIBUTION = {"systemd-python"}
# Half of the package's size, and only for rich's Markdown, Syntax and Traceback, which nobody here imports.
NEVER_IMPORTED = {"markdown-it-py", "mdurl", "pygments"}


def resolve(arguments: list[str], libraries: list[str]) -> dict[str, set[str]]:
    """Ask pip what it would install: ``name==version`` -> digests."""
    asked = ("--dry-run", "--ignore-installed", "--target=none", "--report=-", *arguments, *libraries)
    report = subprocess.run([sys.executable, "-m", "pip", "install", "-qq", *asked], check=True, stdout=subprocess.PIPE)
    found: dict[str, set[str]] = defaultdict(set)
    for item in json.loads(report.stdout)["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-")
        if name not in NEVER_IMPORTED:
            hashes = item["download_info"]["archive_info"]["hashes"]
            found[f"{name}=={item['metadata']['version']}"].add(f"sha256:{hashes['sha256']}")
    return found


def main() -> None:
    """Resolve for every interpreter and processor; a library that would differ in version is an error."""
    project = msgspec.toml.decode((HERE.parent / "pyproject.toml").read_text())["project"]
    libraries = [name for name in project["dependencies"] if name.partition(">")[0] not in FROM_DISTRIBUTION]
    digests: dict[str, set[str]] = defaultdict(set)
    for machine in ARCHITECTURES.values():
        for python in PYTHONS:
            for requirement, found in resolve(for_target(python, machine), libraries).items():
                digests[requirement] |= found
    names = [requirement.partition("==")[0] for requirement in digests]
    if twice := {name for name in names if names.count(name) > 1}:
        sys.exit(f"lock: not the same version for every interpreter: {', '.join(sorted(twice))}")
    separator = " \\\n    --hash="
    lines = [
        "# Written by packaging/lock.py.",
        *(separator.join([name, *sorted(digests[name])]) for name in sorted(digests)),
    ]
    (HERE / "requirements.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
