"""The package, installed in a booted machine, under the real message: every scenario on every kernel."""

import shutil
from pathlib import Path

import pytest
import vm_apt
import vm_machine
from vm_checks import check_whole
from vm_found import Found, scenario_named

HERE = Path(__file__).parent
SCENARIOS = sorted(file.stem for file in (HERE / "scenarios").glob("*.py"))
SECONDS = 240  # for each boot of a scenario, on a machine that is busy with something else; its own SECONDS come on top

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a kernel and scenario, of those that were asked for; one kernel's stand together."""
    option = metafunc.config.getoption
    kernels = vm_apt.kernels(option("--kernel"))
    if option("--scenario") not in ("", *SCENARIOS):
        raise pytest.UsageError(f"no such scenario: {option('--scenario')}")
    chosen = [name for name in SCENARIOS if is_chosen(name, option("--scenario"), on_demand=option("--on-demand"))]
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


def is_chosen(name: str, asked: str, *, on_demand: bool) -> bool:
    """Return whether a scenario runs; the long ones, ``ON_DEMAND``, do where they are asked for."""
    return name == asked if asked else on_demand == getattr(scenario_named(name), "ON_DEMAND", False)


def test_scenario_in_a_booted_machine(kernel, scenario, results, machine_of, tmp_path):
    module = scenario_named(scenario)
    if reason := getattr(module, "CANNOT", {}).get(kernel):
        pytest.skip(f"kernel {kernel} cannot: {reason}")
    machine = machine_of(kernel, scenario)
    folder = results / kernel / scenario
    lay_out(HERE / "scenarios" / f"{scenario}.py", tmp_path)
    boots = 2 if hasattr(module, "after_reboot") else 1

    vm_machine.run_job(machine.parts, machine.disk, tmp_path, folder, boots * SECONDS + getattr(module, "SECONDS", 0))

    error = folder / "error.txt"
    assert not error.exists(), f"in the machine: {error.read_text()}\neverything is in {folder}"
    found = Found(folder)
    module.check(found)
    check_whole(found, module)


def lay_out(scenario: Path, folder: Path) -> None:
    """Put together what goes into the machine for one scenario."""
    shutil.copy(scenario, folder / "scenario.py")
    for file in (HERE / "guest").glob("*.py"):
        shutil.copy(file, folder)
    (folder / "job.py").write_text(
        "import rig, scenario\n\n\ndef main(folder, results):\n    rig.run(scenario, folder, results)\n"
    )
