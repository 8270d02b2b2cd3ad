"""What is in the packages, looked at with the distributions' own tools."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import msgspec.toml
import pytest
from package_tools import ROOT, build, run

from agent.cli import group

PROJECT = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]
PREFIX = "usr/lib/sockmem-agent/site-packages"
# What of contrib is for administrators.
KITS = ("ansible", "container", "grafana", "kubernetes", "prometheus")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def pages(path: str, command: click.Command) -> set[str]:
    below = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
    found = {f"{path}.1.gz"}
    for name in below:
        inner = command.get_command(click.Context(command), name)
        found |= pages(f"{path}-{name}", inner)
    return found


def field(packages, name: str) -> str:
    return run("dpkg-deb", "--field", packages.deb, name).strip()


def test_the_version_is_the_projects(packages) -> None:
    version = field(packages, "Version")
    assert version.partition("+")[0] == PROJECT["version"]
    assert f"sockmem-agent_{version}_amd64.deb" == packages.deb.name
    assert f"sockmem-agent-{version}-1.x86_64.rpm" == packages.rpm.name


def test_what_the_repository_holds_is_shipped_as_it_is(packages) -> None:
    shipped = {
        "etc/sockmem-agent/config.toml": "config.example.toml",
        "usr/lib/systemd/system/sockmem-agent.service": "systemd/sockmem-agent.service",
        "usr/lib/systemd/catalog/sockmem-agent.catalog": "systemd/sockmem-agent.catalog",
        "usr/lib/sysusers.d/sockmem-agent.conf": "systemd/sockmem-agent.sysusers",
        "usr/lib/tmpfiles.d/sockmem-agent.conf": "systemd/sockmem-agent.tmpfiles",
        "usr/lib/sockmem-agent/witness.conf": "systemd/witness.conf",
        "usr/share/doc/sockmem-agent/README.md": "README.md",
    }
    kit = [path.relative_to(ROOT) for name in KITS for path in ROOT.glob(f"contrib/{name}/**/*") if path.is_file()]
    shipped |= {f"usr/share/doc/sockmem-agent/{path}": str(path) for path in kit}
    assert Path("contrib/prometheus/rules.yml") in kit
    differing = {a for a, b in shipped.items() if (packages.files / a).read_bytes() != (ROOT / b).read_bytes()}
    assert set() == differing
    assert set(KITS) == {path.name for path in (packages.files / "usr/share/doc/sockmem-agent/contrib").iterdir()}


def test_the_configuration_is_the_administrators(packages) -> None:
    assert "/etc/sockmem-agent/config.toml\n" == (packages.control / "conffiles").read_text()


def test_only_the_program_and_its_parts_are_there_and_nobody_else_can_write(packages) -> None:
    listed = run("dpkg-deb", "--contents", packages.deb).splitlines()
    modes = {line.split()[0] for line in listed}
    programs = [line.split()[-1] for line in listed if line.startswith("-rwx")]
    assert {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"} == modes
    assert ["./usr/bin/sockmem-agent", "./usr/lib/sockmem-agent/python"] == programs
    assert {"root/root"} == {line.split()[1] for line in listed}


def test_it_depends_on_the_distributions_python_and_journal(packages) -> None:
    depends = field(packages, "Depends").split(", ")
    assert {"python3 (>= 3.10)", "python3 (<< 3.15)", "python3-systemd", "ca-certificates"} <= set(depends)


def test_the_compiled_library_is_there_for_every_python(packages) -> None:
    names = sorted(path.name for path in (packages.files / PREFIX).rglob("*.so"))
    assert [f"_core.cpython-{python.replace('.', '')}-x86_64-linux-gnu.so" for python in PYTHONS] == names


def test_every_dependency_is_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "packaging" / "requirements.txt").read_text(), re.MULTILINE))
    wanted = {re.split(r"[>=<]", dependency)[0] for dependency in PROJECT["dependencies"]}
    assert {"systemd-python"} == wanted - locked


def test_the_license_of_the_project_and_of_every_library_is_beside_the_copyright(packages) -> None:
    directory = packages.files / "usr/share/doc/sockmem-agent"
    text = (directory / "copyright").read_text()
    assert text.startswith((ROOT / "LICENSE").read_text())
    libraries = re.findall(r"(?m)^(\S+) [\d.a-z]+: (.*)\n((?:  .*\n)+)", text)
    found = {re.sub(r"[-_.]+", "-", name).lower() for name, _, _ in libraries}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "packaging" / "requirements.txt").read_text(), re.MULTILINE))
    assert locked == found
    assert all(license_name for _, license_name, _ in libraries)
    texts = [directory / line for _, _, listed in libraries for line in listed.split()]
    assert [] == [path for path in texts if path.stat().st_size < 500 and path.name != "NOTICE"]
    assert "MIT" == PROJECT["license"]
    assert "Copyright (c) 2026 the sockmem-agent authors" in text


def test_no_address_is_invented_for_the_project(packages) -> None:
    assert "sockmem-agent" == field(packages, "Maintainer")


def test_every_command_has_a_man_page_without_a_complaint(packages) -> None:
    directory = packages.files / "usr/share/man/man1"
    assert pages("sockmem-agent", group) == {path.name for path in directory.iterdir()}
    if shutil.which("man") is None:
        pytest.skip("man is not installed: the pages are there, but were not rendered")
    for page in directory.iterdir():
        rendered = subprocess.run(
            ["man", "--warnings", "--local-file", page], capture_output=True, text=True, check=True
        )
        assert "" == rendered.stderr
        assert "EXAMPLE" in rendered.stdout


def test_the_configuration_has_a_man_page_and_schemas(packages) -> None:
    page = gzip.decompress((packages.files / "usr/share/man/man5/sockmem-agent.toml.5.gz").read_bytes()).decode()
    assert f'"sockmem\\-agent {field(packages, "Version")}"' in page
    schemas = packages.files / "usr/share/doc/sockmem-agent/docs/schemas"
    assert {"config.json", "incident.json", "diagnosis.json"} == {path.name for path in schemas.iterdir()}


def test_bash_completes_the_commands(packages) -> None:
    script = packages.files / "usr/share/bash-completion/completions/sockmem-agent"
    registered = run("bash", "-c", f"source {script} && complete -p sockmem-agent")
    assert re.search(r"-F \w+ sockmem-agent", registered)


def test_no_file_tells_where_it_was_built_or_holds_byte_code(packages) -> None:
    files = [path for path in packages.files.rglob("*") if path.is_file()]
    places = [str(ROOT).encode(), str(packages.deb.parent).encode(), sys.prefix.encode()]
    assert [] == [path for path in files if any(place in path.read_bytes() for place in places)]
    assert [] == [path for path in files if path.suffix == ".pyc"]
    assert packages.deb.stat().st_size < 3 * 2**20


def test_the_same_sources_give_the_same_bytes_to_whoever_builds(packages, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        build("deb", "rpm", "--directory", tmp_path, TZ="Asia/Kolkata", LC_ALL="C")
    finally:
        os.umask(before)
    for first in (packages.deb, packages.rpm):
        assert first.read_bytes() == (tmp_path / first.name).read_bytes(), first.name


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_no_error(packages) -> None:
    run("lintian", "--allow-root", "--fail-on", "error", packages.deb)


@pytest.mark.skipif(shutil.which("rpm") is None, reason="rpm is not installed")
def test_the_rpm_holds_the_same_and_keeps_a_changed_configuration(packages) -> None:
    query = ("rpm", "--query", "--package", packages.rpm, "--queryformat")
    files = set(run(*query, "[%{FILENAMES}\n]").split())
    of_deb = {f"/{path.relative_to(packages.files)}" for path in packages.files.rglob("*") if path.is_file()}
    assert {"/usr/share/zsh/vendor-completions/_sockmem-agent", "/usr/share/lintian/overrides/sockmem-agent"} == (
        of_deb - files
    )
    flags = dict(line.split(" ") for line in run(*query, "[%{FILENAMES} %{FILEFLAGS:fflags}\n]").splitlines())
    assert ["/etc/sockmem-agent/config.toml"] == [name for name, flag in flags.items() if flag == "cn"]
    requires = run("rpm", "--query", "--package", "--requires", packages.rpm).splitlines()
    fits = "(python3 >= 3.10 with python3 < 3.15)"
    beside = "python3.14 or python3.13 or python3.12 or python3.11"
    assert {f"({fits} or {beside})", f"(python3-systemd if {fits})", "ca-certificates"} <= set(requires)
