"""The sdist and the wheel: whole, well-formed, and installed by pipx."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from package_tools import ROOT, run

import agent

MADE_HERE = shutil.ignore_patterns(
    ".git", ".venv", ".state", ".*_cache", ".hypothesis", ".coverage*", "__pycache__", "*.egg-info", "build", "dist"
)
DATA = f"sockmem_agent-{agent.__version__}.data/data/share/doc/sockmem-agent"  # below sys.prefix, once installed


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """Build them as a release would be built, the wheel from the sdist."""
    tree = tmp_path_factory.mktemp("distributions") / "tree"
    shutil.copytree(ROOT, tree, ignore=MADE_HERE)
    run(sys.executable, "-m", "build", tree)
    (sdist,), (wheel,) = (tree / "dist").glob("*.tar.gz"), (tree / "dist").glob("*.whl")
    return sdist, wheel


def test_twine_has_no_complaint(distributions) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *distributions)


def test_the_sdist_is_the_whole_repository(distributions) -> None:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git here: what is tracked cannot be told")
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {".gitignore"} == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} - names


def test_the_wheel_has_every_file_of_the_program_the_schemas_and_nothing_else(distributions) -> None:
    program = {path for path in (ROOT / "agent").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(distributions[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    schemas = {f"{DATA}/{path.relative_to(ROOT)}" for path in (ROOT / "docs" / "schemas").iterdir()}
    assert {str(path.relative_to(ROOT)) for path in program} | schemas == names


def test_pipx_installs_it(distributions, tmp_path: Path) -> None:
    places = {f"PIPX_{name}": str(tmp_path / name) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    installed = subprocess.run(
        [sys.executable, "-m", "pipx", "install", distributions[1]],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == installed.returncode, installed.stdout + installed.stderr
    told = run(tmp_path / "BIN_DIR" / "sockmem-agent", "--version")
    assert f"sockmem-agent, version {agent.__version__}\n" == told
    assert "Cause:" in run(tmp_path / "BIN_DIR" / "sockmem-agent", "diagnose")
