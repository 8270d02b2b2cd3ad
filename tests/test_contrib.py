"""The README's two commands, and the scripts behind them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "contrib" / name for name in ("run", "test", "setup.sh")]
SCRIPTS += [*sorted((ROOT / ".ci").iterdir()), ROOT / "packaging" / "launcher", ROOT / "packaging" / "python"]


def tools(directory: Path, *names: str) -> Path:
    """Make a directory for PATH with nothing but these programs of the host."""
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(shutil.which(name) or name)
    return directory


def call(name: str, path: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "contrib" / name, *arguments]
    return subprocess.run(command, cwd=cwd, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["run", "test"])
def test_it_calls_make_in_the_clone_with_its_arguments(name: str, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "dirname", "sh")
    (path / "make").write_text('#!/bin/sh\necho "$PWD $*"\n')
    (path / "make").chmod(0o755)
    told = call(name, path, tmp_path, "PYTHON=python3.12", "TESTS=tests/cli tests/page")
    assert (f"{ROOT} {name} PYTHON=python3.12 TESTS=tests/cli tests/page\n", "") == (told.stdout, told.stderr)


@pytest.mark.parametrize("name", ["run", "test"])
def test_where_make_cannot_be_had_one_line_says_so(name: str, tmp_path: Path) -> None:
    told = call(name, tools(tmp_path / "bin", "dirname", "id", "sh"), tmp_path)
    assert (1, "") == (told.returncode, told.stdout)
    why = "make is missing and cannot be installed with apt-get, as root or with sudo: install make"
    assert f"setup: {why}\n" == told.stderr


@pytest.mark.parametrize("name", ["run", "test"])
def test_make_is_installed_where_it_is_missing(name: str, tmp_path: Path) -> None:
    """With a stand-in of apt-get, that puts a stand-in of make on the PATH."""
    path = tools(tmp_path / "bin", "chmod", "dirname", "env", "id", "sh")
    apt_get = path / "apt-get"
    apt_get.write_text(
        f'#!/bin/sh\n[ "$1" = update ] || {{ echo "#!/bin/sh\necho $*" >{path}/make; chmod +x {path}/make; }}\n'
    )
    apt_get.chmod(0o755)
    if os.geteuid() != 0:
        (path / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (path / "sudo").chmod(0o755)
    told = call(name, path, tmp_path)
    assert [
        "setup: installing with apt-get: make",
        "install -y -qq --no-install-recommends make",
    ] == told.stdout.splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_shellcheck_finds_nothing_in(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    told = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert (0, "") == (told.returncode, told.stdout)
