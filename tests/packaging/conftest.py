"""The packages, built once, as ``make deb`` and ``make rpm`` build them."""

import shutil
import sys
from pathlib import Path

import pytest
from package_tools import Packages, build, run


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> Packages:
    if not (Path(sys.executable).parent / "nfpm").exists():
        pytest.skip("nfpm is not installed: `make test` brings it")
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: packages can be looked into on Debian and Ubuntu only")
    directory = tmp_path_factory.mktemp("packages")
    build("deb", "rpm", "--directory", directory)
    (deb,), (rpm,) = directory.glob("*.deb"), directory.glob("*.rpm")
    files, control = directory / "files", directory / "control"
    run("dpkg-deb", "--extract", deb, files)
    run("dpkg-deb", "--control", deb, control)
    return Packages(deb, rpm, files, control)
