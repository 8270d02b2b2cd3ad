"""Build packages: ``python packaging/build.py deb rpm [--architecture arm64] [--directory dist]``.

It stages what is made (libraries, man pages, completions, documents) in a directory that goes away again; nfpm.yaml
says what of it, and of this repository, is put where. The same commit gives the same bytes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generated
import msgspec.toml
import wheels
from sbom import write_sbom

ROOT = Path(__file__).parent.parent
HERE = ROOT / "packaging"


def git(*arguments: str) -> str:
    """Return git's output for this tree; "" without git, or if the tree is not a clone."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return ""
    asked = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def project() -> dict[str, Any]:
    """Read what pyproject.toml says of the project."""
    told: dict[str, Any] = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]
    return told


def built_at() -> int:
    """Return the time of the sources in seconds since 1970: SOURCE_DATE_EPOCH, else the commit's."""
    committed = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return int(committed or (ROOT / "pyproject.toml").stat().st_mtime)


def version() -> str:
    """Return the version of this commit: the project's, or after the commit that set it ``0.3.0+7.g1a2b3c4``."""
    named: str = project()["version"]
    if git("rev-parse", "--is-shallow-repository") != "false":  # A shallow clone cannot count.
        return named
    set_by = git("log", "-1", "--format=%H", "-G^version = ", "--", "pyproject.toml")
    later = git("rev-list", "--count", f"{set_by}..HEAD")
    return f"{named}+{later}.g{git('rev-parse', '--short=7', 'HEAD')}" if int(later or 0) else named


def stage(directory: Path, version: str, machine: str, scratch: Path) -> None:
    """Make all files that are shipped but not in the repository."""
    site_packages = directory / "site-packages"
    scratch.mkdir()
    installed = wheels.install(HERE / "requirements.txt", site_packages, machine, scratch)
    shutil.copytree(ROOT / "agent", site_packages / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    program = site_packages / "agent" / "__init__.py"
    program.write_text(re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', program.read_text()))
    generated.write_man_pages(directory / "man", version)
    generated.write_completions(directory / "completions")
    generated.write_documents(directory / "doc", site_packages, version)
    bill = directory / "doc" / "sockmem-agent.cdx.json"
    write_sbom(bill, site_packages, installed, project() | {"version": version}, generated.built_at())


def even_out(directory: Path, at: int) -> None:
    """Set modes and times that do not depend on the builder or the time of the build."""
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (at, at))


def build(packagers: list[str], architecture: str, target: Path) -> Iterator[Path]:
    """Build packages into ``target`` and print the name of each."""
    at, named = built_at(), version()
    os.environ["SOURCE_DATE_EPOCH"] = str(at)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sockmem-agent-package-") as temporary:
        staged = Path(temporary, "stage")
        staged.mkdir()
        stage(staged, named, wheels.ARCHITECTURES[architecture], Path(temporary, "wheels"))
        even_out(staged, at)
        variables = {"STAGE": str(staged), "VERSION": named, "ARCH": architecture, "MAINTAINER": generated.MAINTAINER}
        for packager in packagers:
            result = Path(temporary, packager)
            result.mkdir()
            pack(packager, variables, result)
            (made,) = result.iterdir()
            yield place(made, target, named)


def place(made: Path, target: Path, version: str) -> Path:
    """Move a package into place and remove earlier builds: a glob must match this one alone."""
    # Copied aside and renamed, so that a concurrent reader sees a whole package.
    shutil.copyfile(made, target / f".{made.name}")
    placed = (target / f".{made.name}").replace(target / made.name)
    for before in set(target.glob(made.name.replace(version, "*"))) - {placed}:
        before.unlink()
    return placed


def pack(packager: str, variables: dict[str, str], result: Path) -> None:
    """Write one package into an empty directory, with nfpm."""
    nfpm = Path(sys.executable).parent / "nfpm"
    options = [f"--config={HERE / 'nfpm.yaml'}", f"--packager={packager}", f"--target={result}"]
    told = subprocess.run(
        [nfpm, "package", *options],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if told.returncode:
        sys.exit(f"nfpm: {told.stdout}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Build packages of sockmem-agent.")
    parser.add_argument("packagers", nargs="+", choices=("deb", "rpm"), metavar="deb|rpm")
    parser.add_argument("--architecture", choices=tuple(wheels.ARCHITECTURES), default="amd64")
    parser.add_argument("--directory", type=Path, default=Path("dist"), help="where to put them (default: dist)")
    options = parser.parse_args()
    for made in build(options.packagers, options.architecture, options.directory):
        print(f"{made} ({made.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    main()
