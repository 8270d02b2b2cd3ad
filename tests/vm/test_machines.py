"""The package, installed as a user would, and started by the boot of every kernel."""

import pytest
import vm_apt

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a kernel, of those that were asked for."""
    chosen = metafunc.config.getoption("--kernel")
    metafunc.parametrize("kernel", [chosen] if chosen else list(vm_apt.KERNELS))


def test_the_service_runs_after_the_boot(kernel, machine_of):
    machine = machine_of(kernel, "its boot")
    installed = machine.base.with_suffix(".results")

    assert "Active: active (running)" in (machine.disk.with_suffix(".results") / "status.txt").read_text()
    assert "Active: active (running)" in (installed / "status.txt").read_text()
    assert [] == [line for line in (installed / "doctor.txt").read_text().splitlines() if line.startswith("fail")]
