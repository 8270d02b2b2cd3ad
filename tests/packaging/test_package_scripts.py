"""The maintainer scripts: as text, and in a life from the first installation to the purge."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from package_tools import ROOT, Packages, build, live, run

SCRIPTS = sorted(path for path in (ROOT / "packaging").glob("*/p*") if path.is_file())
HERE = Path(__file__).parent


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


def next_rpm(directory: Path) -> Path:
    """Build a next version, without one of the commands."""
    tree = directory / "tree"
    built_or_private = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests")
    shutil.copytree(ROOT, tree, ignore=built_or_private)
    (tree / "agent/cli/doctor.py").unlink()
    project = tree / "pyproject.toml"
    project.write_text(re.sub(r'(?m)^version = ".*"$', 'version = "99"', project.read_text()))
    build("rpm", "--directory", directory, root=tree)
    (made,) = directory.glob("*.rpm")
    return made


@pytest.fixture(scope="module")
def deb_life(packages, tmp_path_factory) -> dict[str, str]:
    if os.geteuid() != 0 or shutil.which("dpkg") is None:
        pytest.skip("only root on Debian or Ubuntu can install a package into a copy of the host")
    directory = tmp_path_factory.mktemp("deb")
    return live(directory, "life_deb.sh", *two_versions(packages, directory))


@pytest.fixture(scope="module")
def rpm_life(packages, tmp_path_factory) -> dict[str, str]:
    if os.geteuid() != 0 or shutil.which("dpkg") is None or shutil.which("rpm") is None:
        pytest.skip("only root on Debian or Ubuntu with rpm can install the rpm into a copy of the host")
    directory = tmp_path_factory.mktemp("rpm")
    return live(directory, "life_rpm.sh", packages.rpm, next_rpm(directory))


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


def test_installed_without_a_running_systemd_it_works_and_belongs_to_its_user(packages, deb_life) -> None:
    version = run("dpkg-deb", "--field", packages.deb, "Version").strip()
    assert [
        f"sockmem-agent, version {version}",
        "/etc/sockmem-agent/config.toml: ok",
        "sockmem-agent:sockmem-agent 750 /var/lib/sockmem-agent",
        "sockmem-agent:sockmem-agent 755 /run/sockmem-agent",
        "root:root 644 /etc/sockmem-agent/config.toml",
        "adm sockmem-agent systemd-journal",
    ] == deb_life["install"].splitlines()


def test_the_doctor_looks_as_the_services_user_and_gives_the_fix(deb_life) -> None:
    what, fix, eyes = deb_life["doctor"].splitlines()

    assert what.endswith("/var/lib/sockmem-agent/cursor.json belongs to root, not to sockmem-agent")
    assert "      fix: chown -hR sockmem-agent: /var/lib/sockmem-agent" == fix
    assert "Files checked as sockmem-agent, the service user" == eyes


def test_somebody_without_privileges_can_ask_for_a_diagnosis(deb_life) -> None:
    assert "sockmem-agent/diagnosis/1" == json.loads(deb_life["nobody"])["schema"]


def test_an_upgrade_keeps_state_and_a_changed_configuration_and_leaves_no_old_module(deb_life) -> None:
    assert ["# mine", "kept"] == deb_life["upgrade"].splitlines()[1:]


def test_another_python_is_given_byte_code_of_its_own(deb_life) -> None:
    assert ["0 then", "more than a hundred"] == deb_life["trigger"].splitlines()


def test_remove_takes_the_program_and_keeps_state_and_configuration(deb_life) -> None:
    assert ["kept", "# mine"] == deb_life["remove"].splitlines()


def test_purge_leaves_nothing(deb_life) -> None:
    assert "" == deb_life["purge"]


def test_the_rpm_works_and_belongs_to_its_user(packages, rpm_life) -> None:
    version = run("rpm", "--query", "--package", "--queryformat", "%{VERSION}", packages.rpm)
    assert [
        f"sockmem-agent, version {version}",
        "/etc/sockmem-agent/config.toml: ok",
        "sockmem-agent:sockmem-agent 750 /var/lib/sockmem-agent",
        "sockmem-agent:sockmem-agent 755 /run/sockmem-agent",
        "root:root 644 /etc/sockmem-agent/config.toml",
    ] == rpm_life["install"].splitlines()


def test_an_upgrade_of_the_rpm_keeps_state_and_a_changed_configuration_and_leaves_no_old_module(rpm_life) -> None:
    assert ["# mine", "kept", "more than a hundred"] == rpm_life["upgrade"].splitlines()[1:]


def test_removing_the_rpm_takes_the_program_and_keeps_state_and_a_changed_configuration(rpm_life) -> None:
    assert ["kept", "/etc/sockmem-agent/config.toml.rpmsave", "# mine"] == rpm_life["remove"].splitlines()


def test_the_rpm_can_be_installed_again(rpm_life) -> None:
    again = rpm_life["again"].splitlines()
    assert "sockmem-agent:sockmem-agent 750 /var/lib/sockmem-agent" == again[-1]
