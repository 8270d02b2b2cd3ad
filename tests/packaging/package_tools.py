"""What the tests of the packages share: how they are built, and how a distribution's tool is asked."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

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


@dataclass(frozen=True)
class Packages:
    deb: Path
    rpm: Path
    files: Path  # what the .deb puts into /
    control: Path  # its scripts, conffiles, control ...
