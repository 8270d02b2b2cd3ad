"""Write requirements.txt: each library in the packages at one version, with the digest of every wheel.

Run it to take newer libraries: ``python packaging/lock.py``, in the environment of ``make deb``. The digests hold a
build to what was looked at here, and make two builds alike. One version of a library serves every Python: the newest
that the oldest Python takes.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec.toml
from wheels import ARCHITECTURES, PYTHONS, for_target

HERE = Path(__file__).parent
# From the distribution: it is compiled against the host's libsystemd and has no wheels.
FROM_DISTRIBUTION = {"systemd-python"}
# Half of the package's size, and only for rich's Markdown, Syntax and Traceback, which the agent never imports.
NEVER_IMPORTED = {"markdown-it-py", "mdurl", "pygments"}


def resolve(arguments: list[str], libraries: list[str], versions: Iterable[str]) -> dict[str, set[str]]:
    """Return what pip would install, preferring these versions: ``name==version`` -> digests."""
    with tempfile.NamedTemporaryFile("w") as constraints:
        constraints.write("\n".join(versions))
        constraints.flush()
        return pip_report([f"--constraint={constraints.name}", *arguments, *libraries])


def pip_report(arguments: list[str]) -> dict[str, set[str]]:
    """Resolve with pip, without installing."""
    asked = ("--dry-run", "--ignore-installed", "--target=none", "--report=-", *arguments)
    report = subprocess.run([sys.executable, "-m", "pip", "install", "-qq", *asked], check=True, stdout=subprocess.PIPE)
    found: dict[str, set[str]] = defaultdict(set)
    for item in json.loads(report.stdout)["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-")
        if name not in NEVER_IMPORTED:
            hashes = item["download_info"]["archive_info"]["hashes"]
            found[f"{name}=={item['metadata']['version']}"].add(f"sha256:{hashes['sha256']}")
    return found


def main() -> None:
    """Resolve for every interpreter, the oldest first, and every processor."""
    project = msgspec.toml.decode((HERE.parent / "pyproject.toml").read_text())["project"]
    # Without its marker: pip would evaluate it for the running Python, not for the requested one.
    dependencies = [dependency.partition(";")[0] for dependency in project["dependencies"]]
    libraries = [name for name in dependencies if name.partition(">")[0] not in FROM_DISTRIBUTION]
    digests: dict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        for machine in ARCHITECTURES.values():
            for requirement, found in resolve(for_target(python, machine), libraries, list(digests)).items():
                digests[requirement] |= found
    separator = " \\\n    --hash="
    lines = [
        "# Written by packaging/lock.py.",
        *(separator.join([name, *sorted(digests[name])]) for name in sorted(digests)),
    ]
    (HERE / "requirements.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
