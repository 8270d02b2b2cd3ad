"""The package, installed in a booted machine, under the real message: every scenario on every kernel."""

import fcntl
import importlib
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import vm_apt
import vm_build
import vm_machine
from vm_found import Found, Json

HERE = Path(__file__).parent
SCENARIOS = sorted(file.stem for file in (HERE / "scenarios").glob("*.py"))
TOLD_ALIKE = ("cause", "confidence", "provenance", "events", "suppressed_at_least")
# The kernel of the root file system's own release: what its users have when they install the package.
INSTALLED_ON = "6.1"
SECONDS = 240  # for one scenario, on a machine that is busy with something else

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a kernel and scenario, of those that were asked for; one kernel's stand together."""
    option = metafunc.config.getoption
    kernels = [option("--kernel")] if option("--kernel") else list(vm_apt.KERNELS)
    chosen = [option("--scenario")] if option("--scenario") else SCENARIOS
    everywhere = option("--all-scenarios-on")
    pairs = [
        (kernel, name)
        for kernel in kernels
        for name in chosen
        if not everywhere or kernel == everywhere or getattr(scenario_named(name), "MAIN", False)
    ]
    if everywhere:  # The main ones first: they come on every kernel, and may be all that there is time for.
        pairs.sort(key=lambda pair: not getattr(scenario_named(pair[1]), "MAIN", False))
    metafunc.parametrize(("kernel", "scenario"), pairs, ids=[f"{kernel}-{name}" for kernel, name in pairs])


def scenario_named(name: str):
    """Import a scenario, and what it shares with others: a module of the guest's that needs nothing of the guest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE / "guest"))
        patch.syspath_prepend(str(HERE / "scenarios"))
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def package() -> Path:
    root = HERE.parent.parent
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    found = root / "dist" / f"sockmem-agent_{version}_amd64.deb"
    assert found.exists(), f"{found} is needed and not there: make deb"
    return found


@pytest.fixture(scope="session")
def results() -> Iterator[Path]:
    """Where each scenario leaves what it saw; the cache is this run's alone, for another would delete its machines."""
    cache = vm_apt.cache()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit(f"another run works in {cache}; wait for it, or set SOCKMEM_VM_CACHE to another folder", 1)
        yield cache / "results"


@pytest.fixture(scope="session")
def machine_of(package, results, request, tmp_path_factory):
    """The machine of a kernel, tried once; a test that there is no machine or no time for is skipped, and says so."""
    tried: dict[str, tuple[vm_build.Parts, Path] | Exception] = {}
    jobs = tmp_path_factory.mktemp("jobs")
    end = time.monotonic() + 60 * request.config.getoption("--vm-minutes")

    def machine(kernel: str, scenario: str) -> tuple[vm_build.Parts, Path]:
        if time.monotonic() > end:
            pytest.skip(f"NOT TESTED on kernel {kernel}: there was no time left for {scenario}")
        if kernel not in tried:
            try:
                parts = vm_build.parts(kernel)
                tried[kernel] = (parts, prepared(parts, package, jobs))
            except (vm_apt.CannotBuildError, vm_machine.MachineError, subprocess.SubprocessError, OSError) as error:
                tried[kernel] = error
        found = tried[kernel]
        if isinstance(found, vm_apt.CannotBuildError):
            pytest.skip(f"NOT TESTED on kernel {kernel}: {found}")
        if isinstance(found, Exception):
            raise found
        return found

    return machine


def test_scenario_in_a_booted_machine(kernel, scenario, results, machine_of, tmp_path):
    module = scenario_named(scenario)
    if reason := getattr(module, "CANNOT", {}).get(kernel):
        pytest.skip(f"kernel {kernel} cannot: {reason}")
    parts, disk = machine_of(kernel, scenario)
    folder = results / kernel / scenario
    lay_out(scenario, tmp_path)

    vm_machine.run_job(parts, disk, tmp_path, folder, SECONDS)

    error = folder / "error.txt"
    assert not error.exists(), f"in the machine: {error.read_text()}\neverything is in {folder}"
    found = Found(folder)
    module.check(found)
    check_posts(found)
    assert [] == found.wrong_modes()
    assert [] == found.complaints()


def check_posts(found: Found) -> None:
    """Whatever the scenario: each POST has its shape, and the last word on an incident is what was stored of it."""
    for post in found.posts:
        assert {"type", "timestamp", "data"} == post["body"].keys()
        assert {"webhook-id", "webhook-timestamp"} <= post["headers"].keys()
    for incident in found.incidents:
        if resolved := last_resolved(found, incident):
            assert {key: incident[key] for key in TOLD_ALIKE} == {key: resolved[key] for key in TOLD_ALIKE}


def last_resolved(found: Found, incident: Json) -> Json | None:
    """Return what the receiver took last when an incident was over, if it was told so."""
    taken = [
        post["body"]["data"]
        for post in found.posts
        if post["answered"] == 200 and post["body"]["type"].endswith(".resolved")
    ]
    return next((data for data in reversed(taken) if data["id"] == incident["id"]), None)


def prepared(parts: vm_build.Parts, package: Path, jobs: Path) -> Path:
    """Return the disk of a machine of this kernel in which the package is installed and runs."""
    install = job_of("install", jobs, package)
    key = vm_build.digest(
        vm_machine.MODEL.encode(), parts.root.parent.name.encode(), *sorted(f.read_bytes() for f in install.iterdir())
    )
    base = vm_machine.installed(vm_build.parts(INSTALLED_ON), f"installed-{key}", install)
    return vm_machine.prepared(parts, f"machine-{parts.release}-{key}", base, job_of("wake", jobs))


def job_of(name: str, jobs: Path, *files: Path) -> Path:
    """Lay out a job of one guest file, with what it needs."""
    folder = jobs / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(HERE / "guest" / f"{name}.py", folder / "job.py")
    for file in files:
        shutil.copy(file, folder)
    return folder


def lay_out(scenario: str, folder: Path) -> None:
    """Put together what goes into the machine for one scenario."""
    shutil.copy(HERE / "scenarios" / f"{scenario}.py", folder / "scenario.py")
    for file in (HERE / "guest").glob("*.py"):
        shutil.copy(file, folder)
    (folder / "job.py").write_text(
        "import rig, scenario\n\n\ndef main(folder, results):\n    rig.run(scenario, folder, results)\n"
    )
