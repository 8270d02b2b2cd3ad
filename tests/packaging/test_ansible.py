"""The Ansible role in contrib: linted, and converged in a copy of this host."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from package_tools import ROOT, live

ROLE = ROOT / "contrib" / "ansible"
needs_ansible = pytest.mark.skipif(shutil.which("ansible-lint") is None, reason="ansible-lint is not installed")


@needs_ansible
def test_ansible_lint_finds_nothing() -> None:
    command = ["ansible-lint", "--offline", "--nocolor", "--profile", "production"]
    told = subprocess.run(command, cwd=ROLE, capture_output=True, text=True, check=False)
    assert (0, "") == (told.returncode, told.stdout), told.stderr
    assert "0 failure(s), 0 warning(s)" in told.stderr


@pytest.fixture(scope="module")
def life(packages, tmp_path_factory) -> dict[str, str]:
    if os.geteuid() != 0 or shutil.which("ansible-playbook") is None:
        pytest.skip("only root with ansible can run the role in a copy of the host")
    directory = tmp_path_factory.mktemp("ansible")
    role = Path(shutil.make_archive(str(directory / "ansible"), "tar", ROLE))
    return live(directory, "life_ansible.sh", packages.deb, role)


@needs_ansible
def test_the_role_installs_configures_and_enables(life: dict[str, str]) -> None:
    told = life["first"]
    assert "exit status 0" in told
    assert "failed=0" in told
    assert re.search(r"changed=[1-9]", told)
    assert "root 700 /etc/sockmem-agent/credentials\nroot 600 /etc/sockmem-agent/credentials/ops-url\n" in told
    assert "root 644 /etc/sockmem-agent/config.toml\n" in told
    assert "[Service]\nLoadCredential=ops-url:/etc/sockmem-agent/credentials/ops-url\nMemoryMax=128M\n" in told
    assert "/lib/systemd/system/sockmem-agent.service\n/run/sockmem-agent/sockmem.prom\n" in told


@needs_ansible
@pytest.mark.parametrize("run", ["second", "checked"])
def test_a_second_run_changes_nothing(life: dict[str, str], run: str) -> None:
    assert "exit status 0" in life[run]
    assert "changed=0" in life[run]
    assert "failed=0" in life[run]


@needs_ansible
def test_the_drop_in_of_the_witness_is_one_variable(life: dict[str, str]) -> None:
    assert re.search(r"changed=1 .*failed=0", life["witness"])
    assert "same\n" in life["witness"]


@needs_ansible
def test_a_mistake_in_the_configuration_is_reported_and_not_put_in_place(life: dict[str, str]) -> None:
    assert "exit status 2" in life["mistake"]
    assert "key `kind` must be one of" in life["mistake"]
    assert life["mistake"].endswith("\n1\n")


@needs_ansible
def test_no_secret_is_in_what_ansible_says(life: dict[str, str]) -> None:
    assert "secret" not in "".join(life.values())
