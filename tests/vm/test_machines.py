"""The package, installed as a user would, and started by the boot of every kernel."""

import json

import pytest
import vm_apt

pytestmark = pytest.mark.vm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a kernel, of those that were asked for."""
    metafunc.parametrize("kernel", vm_apt.kernels(metafunc.config.getoption("--kernel")))


def test_the_service_runs_after_the_boot(kernel, machine_of):
    machine = machine_of(kernel, "its boot")
    installed = machine.base.with_suffix(".results")

    assert "Active: active (running)" in (machine.disk.with_suffix(".results") / "status.txt").read_text()
    assert "Active: active (running)" in (installed / "status.txt").read_text()
    # As the package left it: nothing is started that was not asked for.
    assert [
        "disabled",
        "inactive",
        "root:root 644 /etc/sockmem-agent/config.toml",
        "sockmem-agent:sockmem-agent 750 /var/lib/sockmem-agent",
    ] == (installed / "before.txt").read_text().splitlines()
    said = json.loads((installed / "doctor.txt").read_text())
    assert "ok" in {check["status"] for check in said["checks"]}
    assert [] == [check for check in said["checks"] if check["status"] == "fail"]
