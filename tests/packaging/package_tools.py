"""What the tests of the packages share: how they are built, and how a distribution's tool is asked."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

# Started without site: nothing but the standard library and the package's own directory can be imported.
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import agent
for module in pkgutil.walk_packages(agent.__path__, "agent."):
    if module.name != "agent.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
print("came from", importlib.import_module("msgspec").__file__)
"""


def build(*arguments: str | Path, root: Path = ROOT, **environment: str) -> None:
    # Coverage would measure pip and everything else that is started, and take twice the time.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    built = subprocess.run(
        [sys.executable, "-B", root / "packaging" / "build.py", *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stdout + built.stderr


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def live(directory: Path, script: str, *files: Path) -> dict[str, str]:
    """Run a script in a copy of this host; give what was seen at each step, by the step's name."""
    copy = directory / "copy"
    copy.mkdir()
    unshare = ("unshare", "--mount", "--propagation", "private", "sh")
    probe = f"mount -t tmpfs none {copy} && mkdir {copy}/u {copy}/w {copy}/r && "
    probe += f"mount -t overlay none -o lowerdir=/,upperdir={copy}/u,workdir={copy}/w {copy}/r"
    if subprocess.run([*unshare, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("no overlay over / can be mounted here (a container?): the package was not installed anywhere")
    told = run(*unshare, HERE / "copy_of_host.sh", copy, HERE / script, *files)
    steps = re.split(r"(?m)^== (\w+)\n", told)[1:]
    return dict(zip(steps[::2], steps[1::2], strict=True))


@dataclass(frozen=True)
class Packages:
    deb: Path
    rpm: Path
    files: Path  # what the .deb puts into /
    control: Path  # its scripts, conffiles, control ...
