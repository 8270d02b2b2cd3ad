"""The bill of materials in the packages, and the lock that their libraries come from."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from package_tools import ROOT

PREFIX = "usr/lib/sockmem-agent/site-packages"
LOCK = ROOT / "packaging" / "requirements.txt"


@pytest.fixture(scope="module")
def text(packages) -> str:
    return (packages.files / "usr/share/doc/sockmem-agent/sockmem-agent.cdx.json").read_text()


@pytest.fixture(scope="module")
def bill(text: str) -> dict:
    return json.loads(text)


def locked() -> dict[str, set[str]]:
    blocks = re.findall(r"(?m)^([a-z0-9-]+==\S+) ((?:.*\\\n)+.*)", LOCK.read_text())
    return {name: set(re.findall(r"sha256:(\w+)", digests)) for name, digests in blocks}


def test_the_bill_is_valid_cyclonedx(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_every_library_is_in_the_bill_with_digests_that_are_locked(bill: dict) -> None:
    listed = {
        f"{one['name']}=={one['version']}": {each["content"] for each in one["hashes"]} for one in bill["components"]
    }
    assert locked().keys() == listed.keys()
    assert {} == {name: digests for name, digests in listed.items() if not digests or digests - locked()[name]}
    assert 5 == len(next(digests for name, digests in listed.items() if name.startswith("msgspec==")))


def test_every_library_is_named_by_a_purl_and_has_a_license(bill: dict) -> None:
    assert {f"pkg:pypi/{one['name']}@{one['version']}" for one in bill["components"]} == {
        one["purl"] for one in bill["components"]
    }
    licenses = {one["name"]: one["licenses"][0] for one in bill["components"]}
    spdx = get_spdx_licensing()
    assert [] == [
        each for each in licenses.values() if "expression" in each and spdx.validate(each["expression"]).errors
    ]
    assert {"jinja2": "BSD License"} == {
        name: each["license"]["name"] for name, each in licenses.items() if "license" in each
    }


def test_what_is_ours_is_in_the_bill_file_by_file(packages, bill: dict) -> None:
    ours = bill["metadata"]["component"]
    files = {
        str(path.relative_to(packages.files / PREFIX)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (packages.files / PREFIX / "agent").rglob("*")
        if path.is_file()
    }
    assert len(files) > 100
    assert files == {each["name"]: each["hashes"][0]["content"] for each in ours["components"]}
    assert packages.deb.name == f"sockmem-agent_{ours['version']}_amd64.deb"
    assert [{"expression": "MIT"}] == ours["licenses"]


def test_the_bill_says_what_requires_what(bill: dict) -> None:
    needed = {
        each["ref"].partition("@")[0]: {ref.partition("@")[0] for ref in each["dependsOn"]}
        for each in bill["dependencies"]
    }
    assert {"pkg:pypi/markupsafe"} == needed["pkg:pypi/jinja2"]
    assert {f"pkg:pypi/{name}" for name in ("certifi", "charset-normalizer", "idna", "urllib3")} == needed[
        "pkg:pypi/requests"
    ]
    assert {f"pkg:pypi/{name}" for name in ("click", "jinja2", "msgspec", "requests", "rich", "tomli", "watchdog")} == (
        needed["pkg:generic/sockmem-agent"]
    )


def test_a_wheel_whose_digest_is_not_locked_is_not_carried(tmp_path) -> None:
    changed = tmp_path / "requirements.txt"
    changed.write_text(re.sub(r"(?<=sha256:)\w{8}", "0" * 8, LOCK.read_text()))
    there = tmp_path / "site-packages"
    script = "import sys, wheels; from pathlib import Path; wheels.install(*map(Path, sys.argv[1:3]), 'x86_64', Path())"
    done = subprocess.run(
        [sys.executable, "-c", script, changed, there],
        cwd=ROOT / "packaging",
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 != done.returncode
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not there.exists()
