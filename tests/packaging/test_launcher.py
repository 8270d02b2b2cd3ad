"""/usr/bin/sockmem-agent, and the choice of the Python that it and the maintainer scripts start."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from package_tools import IMPORT_ALL, ROOT, run

HERE = ROOT / "packaging"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


class Host:
    """The launcher's files moved to where only stand-ins are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name in ("launcher", "python", "main.py"):
            text = (HERE / name).read_text().replace("/usr/lib/sockmem-agent", str(root))
            text = text.replace("/usr/bin/", f"{root}/bin/").replace("/etc/", f"{root}/etc/")
            (root / name).write_text(text)
            (root / name).chmod(0o755)

    def python(self, version: str, script: str) -> None:
        path = self.root / "bin" / f"python{version}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def program(self, text: str) -> None:
        """Start this instead of the agent, with the Python of the tests."""
        (self.root / "site-packages" / "agent").mkdir(parents=True)
        (self.root / "site-packages" / "agent" / "cli.py").write_text(text)
        self.python("3.14", f'exec {sys.executable} "$@"')

    def start(self, *arguments: str, program: str = "launcher", **environment: str) -> subprocess.CompletedProcess[str]:
        command = [self.root / program, *arguments]
        return subprocess.run(
            command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
        )


def interpreter(version: str) -> str:
    """Find a Python: on the PATH, or among those that pyenv keeps."""
    kept = [str(path) for path in Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin")]
    return shutil.which(f"python{version}", path=os.pathsep.join([*kept, os.environ["PATH"]])) or "false"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("there", "taken"), [(PYTHONS, "3.14"), (("3.9", "3.10", "3.11"), "3.11"), (("3.10", "3.15"), "3.10")]
)
def test_the_newest_python_that_the_libraries_are_made_for_is_taken(host: Host, there, taken) -> None:
    for version in there:
        host.python(version, f'echo {version} "$@"')
    assert f"{taken} -I -m compileall\n" == host.start("-m", "compileall", program="python").stdout
    assert f"{taken} -I {host.root}/main.py doctor --json\n" == host.start("doctor", "--json").stdout


def test_a_python_that_does_not_start_is_passed_over(host: Host) -> None:
    host.python("3.14", "exit 127")
    host.python("3.12", "echo 3.12")
    (host.root / "bin" / "python3.13").write_text("no program")
    assert "3.12\n" == host.start().stdout


def test_without_a_python_one_line_says_so_and_the_service_stays_down(host: Host) -> None:
    host.python("3.9", "echo 3.9")
    told = host.start("run")
    assert ("", 1) == (told.stdout, told.stderr.count("\n"))
    assert "no Python from 3.10 to 3.14" in told.stderr
    assert f"RestartPreventExitStatus={told.returncode}\n" in (ROOT / "systemd/sockmem-agent.service").read_text()


def test_the_package_names_the_same_pythons_everywhere(packages) -> None:
    chosen = re.findall(r"/usr/bin/python(3\.\d+)", (HERE / "python").read_text())
    woken = re.findall(r"interest-noawait /usr/bin/python(\S+)", (packages.control / "triggers").read_text())
    compiled = (packages.files / "usr/lib/sockmem-agent/site-packages").rglob("*.so")
    assert list(reversed(PYTHONS)) == chosen
    assert list(PYTHONS) == woken
    assert {version.replace(".", "") for version in PYTHONS} == {path.name.split("-")[1] for path in compiled}


@pytest.mark.parametrize("version", PYTHONS)
def test_the_package_works_with(packages, tmp_path: Path, version: str) -> None:
    found = subprocess.run([python := interpreter(version), "-V"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"NOT TESTED: there is no python{version} here")
    shutil.copytree(packages.files / "usr/lib/sockmem-agent", tmp_path / "lib")
    missing = run(
        python, "-I", "-S", "-B", "-W", "error", "-c", IMPORT_ALL, tmp_path / "lib/site-packages"
    ).splitlines()[:-1]
    assert {"systemd"} == {line.split()[1].partition(".")[0] for line in missing}
    for arguments in (("--version",), ("diagnose",), ("doctor", "--json"), ("incidents", "list")):
        command = [python, "-I", "-B", "-W", "error", tmp_path / "lib" / "main.py", *arguments]
        told = subprocess.run(
            command, env={"STATE_DIRECTORY": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in told.stderr
        assert told.stdout
        if arguments == ("--version",):
            assert f"sockmem-agent, version {run('dpkg-deb', '--field', packages.deb, 'Version')}" == told.stdout


@pytest.mark.parametrize(
    ("environment", "trusted"),
    [({}, "BUNDLE"), ({"REQUESTS_CA_BUNDLE": "/mine"}, "/mine"), ({"CURL_CA_BUNDLE": "/mine"}, "None")],
)
def test_the_hosts_certificates_are_trusted_unless_others_are_named(host: Host, environment, trusted) -> None:
    host.program("import os\n\n\ndef main():\n    print(os.environ.get('REQUESTS_CA_BUNDLE'))\n")
    bundle = host.root / "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
    bundle.parent.mkdir(parents=True)
    bundle.touch()
    assert trusted.replace("BUNDLE", str(bundle)) == host.start(**environment).stdout.strip()


@pytest.mark.parametrize(("environment", "heaps"), [({}, "1"), ({"MALLOC_ARENA_MAX": "4"}, "4")])
def test_all_threads_share_one_heap_unless_the_administrator_wants_more(host: Host, environment, heaps) -> None:
    host.program("import os\n\n\ndef main():\n    print(os.environ['MALLOC_ARENA_MAX'])\n")
    assert f"{heaps}\n" == host.start(**environment).stdout


def test_the_service_survives_a_reload_before_python_is_there(host: Host) -> None:
    host.python("3.14", '[ "$1" = -V ] || { kill -HUP $$; echo "alive $3"; }')
    assert "alive run\n" == host.start("run").stdout
    assert -signal.SIGHUP == host.start("scan").returncode


def test_the_process_has_the_name_of_the_program(host: Host) -> None:
    host.program("def main():\n    print(open('/proc/self/comm').read(), end='')\n")
    assert "sockmem-agent\n" == host.start().stdout
