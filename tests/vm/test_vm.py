"""The package, installed in a booted machine, under the real message: every scenario on every kernel."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import vm_build
import vm_machine
from vm_found import Found

HERE = Path(__file__).parent
SCENARIOS = sorted(file.stem for file in (HERE / "scenarios").glob("*.py"))
SECONDS = 240  # for one scenario, on a machine that is busy with something else

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a kernel and scenario, of those that were asked for; one kernel's stand together."""
    option = metafunc.config.getoption
    kernels = [option("--kernel")] if option("--kernel") else list(vm_build.KERNELS)
    chosen = [option("--scenario")] if option("--scenario") else SCENARIOS
    everywhere = option("--all-scenarios-on")
    pairs = [
        (kernel, name)
        for kernel in kernels
        for name in chosen
        if not everywhere or kernel == everywhere or getattr(scenario_named(name), "MAIN", False)
    ]
    metafunc.parametrize(("kernel", "scenario"), pairs, ids=[f"{kernel}-{name}" for kernel, name in pairs])


def scenario_named(name: str):
    sys.path.insert(0, str(HERE / "scenarios"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest) -> Path:
    chosen = request.config.getoption("--deb")
    found = [Path(chosen)] if chosen else sorted((HERE.parent.parent / "dist").glob("sockmem-agent_*_amd64.deb"))
    assert len(found) == 1, f"one package is needed, and there are {len(found)} in dist/: make deb"
    return found[0]


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Path:
    chosen = request.config.getoption("--results")
    return Path(chosen) if chosen else vm_build.cache() / "results"


@pytest.fixture(scope="session")
def parts_of():
    """The parts of a kernel, made once; where machines cannot be made the tests are skipped, and say why."""

    def parts(kernel: str) -> vm_build.Parts:
        try:
            return vm_build.parts(kernel)
        except vm_build.CannotBuildError as error:
            pytest.skip(f"NOT TESTED on kernel {kernel}: {error}")

    return parts


def test_scenario_in_a_booted_machine(kernel, scenario, package, results, parts_of):
    module = scenario_named(scenario)
    if reason := getattr(module, "CANNOT", {}).get(kernel):
        pytest.skip(f"kernel {kernel} cannot: {reason}")
    parts = parts_of(kernel)
    disk = prepared(kernel, parts, package)
    folder = results / kernel / scenario
    job = lay_out(scenario, folder.with_name(f"{scenario}.job"))

    vm_machine.run_job(parts, disk, job, folder, SECONDS)

    error = folder / "error.txt"
    assert not error.exists(), f"in the machine: {error.read_text()}\neverything is in {folder}"
    found = Found(folder)
    module.check(found)
    assert [] == found.wrong_modes()
    assert [] == found.complaints()


def prepared(kernel: str, parts: vm_build.Parts, package: Path) -> Path:
    """Return the disk of a machine of this kernel in which the package is installed and runs."""
    job = vm_build.cache() / f"install-{kernel}.job"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    shutil.copy(HERE / "guest" / "install.py", job / "job.py")
    shutil.copy(package, job)
    key = vm_build.digest(*sorted(file.read_bytes() for file in job.iterdir()))
    return vm_machine.prepared(parts, f"machine-{parts.release}-{parts.root.parent.name[-12:]}-{key}", job)


def lay_out(scenario: str, folder: Path) -> Path:
    """Put together what goes into the machine for one scenario."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "scenarios" / f"{scenario}.py", folder / "scenario.py")
    for file in ("install.py", "rig.py", "load.py"):
        shutil.copy(HERE / "guest" / file, folder / file)
    (folder / "job.py").write_text(
        "import rig, scenario\n\n\ndef main(folder, results):\n    rig.run(scenario, folder, results)\n"
    )
    return folder
