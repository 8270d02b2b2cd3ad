"""The rpm's dependencies as rpm itself resolves them, on hosts that consist of stand-in packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package_tools import run

OLD, NEW = ("python3", "3.9.18"), ("python3", "3.13.5")
BESIDE, BINDINGS = ("python3.11", "3.11.13"), ("python3-systemd", "235")
BASE = (("ca-certificates", "2026"), ("glibc", "2.34"), ("systemd", "252"))

pytestmark = pytest.mark.skipif(shutil.which("rpm") is None, reason="rpm is not installed")


def stand_in(name: str, version: str, directory: Path) -> Path:
    config = directory / "nfpm.yaml"
    config.write_text(f"name: {name}\nversion: {version}\nversion_schema: none\narch: amd64\nmaintainer: tests\n")
    made = directory / f"{name}.rpm"
    run(Path(sys.executable).parent / "nfpm", "package", "--config", config, "--packager", "rpm", "--target", made)
    return made


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        pytest.param((NEW, BINDINGS), "", id="Fedora"),
        pytest.param((NEW,), "python3-systemd if", id="Fedora without the bindings"),
        pytest.param((OLD, BESIDE), "", id="Enterprise Linux 9 with python3.11"),
        pytest.param((OLD, BINDINGS), "or python3.11", id="Enterprise Linux 9 as it comes"),
        pytest.param((), "or python3.11", id="a host without Python"),
    ],
)
def test_the_dependencies_are_met_on(packages, tmp_path: Path, there, missing: str) -> None:
    rpm = ("rpm", "--root", tmp_path / "root")
    (tmp_path / "root").mkdir()
    run(*rpm, "--initdb")
    run(*rpm, "--install", "--nodeps", *(stand_in(*package, tmp_path) for package in (*BASE, *there)))
    tried = subprocess.run(
        [*rpm, "--install", "--test", packages.rpm], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    told = [line for line in tried.stderr.splitlines() if "is needed by" in line]
    assert bool(missing) == bool(told)
    assert missing in "".join(told)
    assert (tried.returncode == 0) == (not missing), tried.stderr
