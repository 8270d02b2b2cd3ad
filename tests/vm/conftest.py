"""Booted kernels are left out of a run unless they are asked for; what the tests in them share."""

import fcntl
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vm_apt import CannotBuildError, cache
from vm_prepared import Prepared, prepare


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the machines as Ctrl-C does."""
    if config.getoption("--vm"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the power cuts unless they are asked for, and the scenarios where only those are."""
    asked = config.getoption("--scenario")
    left_out = {
        "test_power_cut.py": asked != "power_cut" and not config.getoption("--on-demand"),
        "test_vm.py": asked == "power_cut",
    }
    return left_out.get(collection_path.name) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --vm the machines are left out, and the last line of the run says so."""
    if not config.getoption("--vm"):
        machines = [item for item in items if item.get_closest_marker("vm")]
        items[:] = [item for item in items if item not in machines]
        config.hook.pytest_deselected(items=machines)


@pytest.fixture(scope="session")
def package() -> Path:
    root = Path(__file__).parent.parent.parent
    built = list((root / "dist").glob("sockmem-agent_*_amd64.deb"))
    assert 1 == len(built), "one package is needed in dist/: make deb"
    return built[0]


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where each scenario leaves what it saw; the cache is this run's alone, for another would delete its machines."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                print(f"another run works in {cache()}; waiting for its end", flush=True)  # noqa: T201 - for who waits
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache() / "results"


@pytest.fixture(scope="session")
def machine_of(package, results, request) -> Callable[[str, str], Prepared]:
    """Make the machine of a kernel; a test that there is no machine or no time for is skipped, and says so."""
    made: dict[str, Prepared] = {}
    cannot: dict[str, str] = {}
    end = time.monotonic() + 60 * request.config.getoption("--vm-minutes")

    def machine(kernel: str, what_for: str) -> Prepared:
        if time.monotonic() > end:
            pytest.skip(f"NOT TESTED on kernel {kernel}: there was no time left for {what_for}")
        if kernel not in made and kernel not in cannot:
            try:
                made[kernel] = prepare(kernel, package)
            except CannotBuildError as error:
                cannot[kernel] = str(error)
        if kernel in cannot:
            pytest.skip(f"NOT TESTED on kernel {kernel}: {cannot[kernel]}")
        return made[kernel]

    return machine
