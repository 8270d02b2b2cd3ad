"""The maintainer scripts: as text, and in a life from the first installation to the purge."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from package_tools import ROOT, Packages, run

SCRIPTS = sorted(path for path in (ROOT / "packaging").glob("*/p*") if path.is_file())
LIFECYCLE = Path(__file__).parent / "lifecycle.sh"


def two_versions(packages: Packages, directory: Path) -> tuple[Path, Path]:
    """Make the package with a module more, and a next version without it and with another configuration."""
    tree, first, later = directory / "tree", directory / "first.deb", directory / "later.deb"
    run("dpkg-deb", "--raw-extract", packages.deb, tree)
    gone = tree / "usr/lib/sockmem-agent/site-packages/agent/gone"
    gone.mkdir()
    (gone / "__init__.py").touch()
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, first)
    shutil.rmtree(gone)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 99", control.read_text()))
    with (tree / "etc/sockmem-agent/config.toml").open("a") as config:
        config.write("# theirs\n")
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, later)
    return first, later


@pytest.fixture(scope="module")
def life(packages, tmp_path_factory) -> dict[str, str]:
    """What was seen at each step, by the step's name."""
    directory = tmp_path_factory.mktemp("life")
    copy = directory / "copy"
    copy.mkdir()
    if os.geteuid() != 0 or shutil.which("dpkg") is None:
        pytest.skip("only root on Debian or Ubuntu can install a package into a copy of the host")
    unshare = ("unshare", "--mount", "--propagation", "private", "sh")
    probe = f"mount -t tmpfs none {copy} && mkdir {copy}/u {copy}/w {copy}/r && "
    probe += f"mount -t overlay none -o lowerdir=/,upperdir={copy}/u,workdir={copy}/w {copy}/r"
    if subprocess.run([*unshare, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("no overlay over / can be mounted here (a container?): the package was not installed anywhere")
    told = run(*unshare, LIFECYCLE, copy, *two_versions(packages, directory))
    steps = re.split(r"(?m)^== (\w+)\n", told)[1:]
    return dict(zip(steps[::2], steps[1::2], strict=True))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_script_is_one_that_every_shell_understands(script: Path) -> None:
    run("sh", "-n", script)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    run("shellcheck", "--shell", "sh", script)


def test_every_script_is_in_its_package(packages) -> None:
    for name in ("postinst", "prerm", "postrm"):
        assert (ROOT / "packaging/deb" / name).read_text() == (packages.control / name).read_text()
    if shutil.which("rpm") is None:
        pytest.skip("rpm is not installed")
    scripts = run("rpm", "--query", "--package", "--scripts", packages.rpm)
    for name in ("pre", "preun", "postun", "posttrans"):
        assert (ROOT / "packaging/rpm" / name).read_text().strip() in scripts


def test_installed_without_a_running_systemd_it_works_and_belongs_to_its_user(packages, life) -> None:
    version = run("dpkg-deb", "--field", packages.deb, "Version").strip()
    assert [
        f"sockmem-agent, version {version}",
        "/etc/sockmem-agent/config.toml: ok",
        "sockmem-agent:sockmem-agent 750 /var/lib/sockmem-agent",
        "root:root 644 /etc/sockmem-agent/config.toml",
        "adm sockmem-agent systemd-journal",
    ] == life["install"].splitlines()


def test_somebody_without_privileges_can_ask_for_a_diagnosis(life) -> None:
    assert "sockmem-agent/diagnosis/1" == json.loads(life["nobody"])["schema"]


def test_an_upgrade_keeps_state_and_a_changed_configuration_and_leaves_no_old_module(life) -> None:
    assert ["# mine", "kept"] == life["upgrade"].splitlines()[1:]


def test_another_python_is_given_byte_code_of_its_own(packages, life) -> None:
    assert "interest-noawait /usr/bin/python3\n" == (packages.control / "triggers").read_text()
    assert ["0 then", "more than a hundred"] == life["trigger"].splitlines()


def test_remove_takes_the_program_and_keeps_state_and_configuration(life) -> None:
    assert ["kept", "# mine"] == life["remove"].splitlines()


def test_purge_leaves_nothing(life) -> None:
    assert "" == life["purge"]
