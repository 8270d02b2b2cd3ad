"""Debian's own packages for the machines: whatever mirror this machine's apt uses, with lists and state of our own.

Everything is checked by apt against Debian's keys, and is kept in a folder outside the tree ($SOCKMEM_VM_CACHE, else
$XDG_CACHE_HOME/sockmem-agent-vm).
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The release each kernel comes from. 7.3's package is split into four, and apt knows.
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.3": "trixie-backports"}
ROOT_RELEASE = "bookworm"
SECONDS = 1200  # for any one program; debootstrap needs minutes


def kernels(chosen: str) -> list[str]:
    """List the kernels to boot: those that are named, "6.12,6.1", else all."""
    return chosen.split(",") if chosen else list(KERNELS)


class CannotBuildError(Exception):
    """Machines cannot be made here: no tool, no root, no mirror. The message says which, and what would fix it."""


class ToolError(Exception):
    """A program failed; the message has what it said."""


def cache() -> Path:
    """Return the folder that everything is kept in, outside the tree."""
    asked = os.environ.get("SOCKMEM_VM_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(asked) if asked else home / "sockmem-agent-vm"


def search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed; what it complained about is in the error."""
    environ = {**os.environ, "PATH": search_path(), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{' '.join(map(str, command[:3]))} ... was not done after {SECONDS} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise ToolError(f"{' '.join(map(str, command[:3]))} ... ended with {done.returncode}: {said}")
    return done.stdout


@contextlib.contextmanager
def needing_the_mirror() -> Iterator[None]:
    """Say of a failure that it is this place's, not the recipe's: the mirror did not give what was asked of it."""
    try:
        yield
    except ToolError as error:
        raise CannotBuildError(str(error)) from error


def mirror() -> str:
    """Return the address of the Debian mirror that this machine's own apt is configured for."""
    with needing_the_mirror():
        listed = run(
            "apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"
        )
    for line in listed.splitlines():
        origin, component, uri = line.split("|", 2)
        if origin == "Debian" and component == "main" and "security" not in uri:
            return uri
    raise CannotBuildError("apt knows no Debian mirror here (after apt-get update); the kernels are Debian's")


def _apt(suite: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run apt-get on lists of the suite's own: this machine's are not touched, nor is another suite's."""
    private = cache() / "apt" / suite
    options = {
        "Dir::Etc::sourcelist": private / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": private / "lists",
        "Dir::State::status": private / "status",
        "Dir::Cache": private / "cache",
        "APT::Sandbox::User": "root",
    }
    with needing_the_mirror():
        return run("apt-get", *(f"-o{key}={value}" for key, value in options.items()), *arguments, cwd=cwd)


def download(suite: str, into: Path, *packages: str) -> None:
    """Bring packages of a suite into a folder."""
    if not (cache() / "apt" / suite / "sources.list").exists():
        _update_lists(suite)
    _apt(suite, "download", "-qq", *packages, cwd=into)


def kernel_packages(version: str) -> tuple[str, tuple[str, ...]]:
    """Return the release of the newest cloud kernel of a series, and the packages (name=version) it is made of.

    The answer is kept for the day: a session does not change kernels under the tests, and works without a network, as
    it does with the answer of an earlier day.
    """
    answer = cache() / "apt" / f"kernel-{version}"
    if not answer.exists() or _days_old(answer) > 1:
        try:
            newest = _newest_packages(KERNELS[version])
        except CannotBuildError:
            if not answer.exists():
                raise
        else:
            answer.write_text("\n".join(newest))
    chosen = answer.read_text().split()
    image = next(name for name in chosen if name.startswith("linux-image-"))
    return image.partition("=")[0].removeprefix("linux-image-"), tuple(chosen)


def _newest_packages(suite: str) -> list[str]:
    _update_lists(suite)
    name = f"linux-image-cloud-amd64/{suite}"
    plan = _apt(suite, "-s", "install", "-y", "--no-install-recommends", "-t", suite, name)
    chosen = re.findall(r"^Inst (linux-(?:image|binary|modules|base)-\d\S*) \((\S+)", plan, re.MULTILINE)
    if not any(package.startswith("linux-image-") for package, _ in chosen):
        raise CannotBuildError(f"apt names no kernel for {name}: {plan.strip()[-500:]}")
    return [f"{package}={number}" for package, number in chosen]


def _days_old(file: Path) -> float:
    return (time.time() - file.stat().st_mtime) / 86_400


def _update_lists(suite: str) -> None:
    """Bring what a suite has: with the release that its backports build on, and the one that busybox is taken from."""
    private = cache() / "apt" / suite
    for folder in ("lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    (private / "status").touch()
    suites = dict.fromkeys((suite, suite.removesuffix("-backports"), ROOT_RELEASE))
    lines = (f"deb [signed-by={KEYRING}] {mirror()} {each} main" for each in suites)
    (private / "sources.list").write_text("\n".join(lines) + "\n")
    _apt(suite, "update", "-qq")
