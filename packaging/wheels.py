"""The libraries of requirements.txt in one directory that serves every Python from 3.10 to 3.14.

What is compiled carries the interpreter in its name (``_core.cpython-311-x86_64-linux-gnu.so``), and so the files for
all of them lie side by side. All else of such a library is the same for every version, and that is checked.
"""

import filecmp
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

# nfpm.yaml has the same range.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# Debian's name of the processor, and the wheels'.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# Wheels that need no newer C library than 2.28, as nfpm.yaml says.
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
# Libraries whose compiled modules are kept: the others have the same in Python.
COMPILED = {"msgspec"}
LEFT_OUT = (
    "bin",
    "*/tests",
    "*/*.pyi",
    "*/*.c",
    # Of a wheel's metadata only name and license stay; WHEEL and RECORD differ by interpreter.
    *(
        f"*.dist-info/{name}"
        for name in ("INSTALLER", "RECORD", "REQUESTED", "WHEEL", "entry_points.txt", "top_level.txt")
    ),
)


def for_target(python: str, machine: str) -> list[str]:
    """Return pip's arguments for another interpreter than its own."""
    platforms = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    return [f"--python-version={python}", "--only-binary=:all:", *platforms]


def install(requirements: Path, target: Path, machine: str, scratch: Path) -> list[dict[str, Any]]:
    """Install the locked libraries into ``target`` for all of PYTHONS; any other wheel is an error.

    Returns what pip reports of each wheel (packaging/sbom.py).
    """
    installed = pip_install(["--requirement", str(requirements)], target, for_target(PYTHONS[0], machine))
    strip(target)
    blocks = re.findall(r"(?m)^[^ #](?:.*\\\n)*.*\n", requirements.read_text())
    compiled = scratch / "compiled.txt"
    compiled.write_text("".join(block for block in blocks if block.partition("==")[0] in COMPILED))
    for python in PYTHONS[1:]:
        one = scratch / python
        installed += pip_install(["--requirement", str(compiled)], one, for_target(python, machine))
        strip(one)
        merge(one, target)
    return installed


def pip_install(requirements: list[str], target: Path, options: list[str]) -> list[dict[str, Any]]:
    """Install into ``target``, for any interpreter; return what pip reports of each wheel."""
    asked = ("--no-deps", "--no-compile", "--require-hashes", f"--target={target}", *requirements, *options)
    command = [sys.executable, "-m", "pip", "install", "-qq", "--report=-", *asked]
    report: dict[str, list[dict[str, Any]]] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    )
    return report["install"]


def strip(site_packages: Path) -> None:
    """Remove what is never used."""
    unused = [path for pattern in LEFT_OUT for path in site_packages.glob(pattern)]
    modules = site_packages.glob("**/*.so")
    unused += [path for path in modules if path.relative_to(site_packages).parts[0] not in COMPILED]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def merge(source: Path, target: Path) -> None:
    """Copy what is missing; what exists must be the same."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / path.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        elif not filecmp.cmp(path, copy, shallow=False):
            sys.exit(f"wheels: {path.relative_to(source)} is not the same for every interpreter")
