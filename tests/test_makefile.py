"""What the Makefile's targets do beside calling a tool."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_run_keeps_its_state_in_the_clone_where_git_does_not_see_it(tmp_path: Path) -> None:
    agent = tmp_path / "bin/sockmem-agent"
    agent.parent.mkdir()
    agent.write_text('#!/bin/sh\necho "$1 $STATE_DIRECTORY"\n')
    agent.chmod(0o755)
    (tmp_path / "run.ready").touch()
    environ = {name: value for name, value in os.environ.items() if name != "STATE_DIRECTORY"}
    command = ["make", "--silent", "--directory", ROOT, "run", f"VENV={tmp_path}"]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout

    assert f"run {ROOT}/.state" == said.splitlines()[-1]
    assert ".state/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("there", "made_anew"), [("echo Python 3.9.1", True), (f'exec {sys.executable} "$@"', False)])
def test_another_interpreter_that_is_named_makes_the_environment_anew(tmp_path: Path, there: str, made_anew) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\n{there}\n")
    python.chmod(0o755)
    (tmp_path / "run.ready").touch()
    command = ["make", "--dry-run", "--directory", ROOT, "run", f"VENV={tmp_path}", f"PYTHON={sys.executable}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert made_anew == ("contrib/setup.sh run" in said)
