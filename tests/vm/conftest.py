"""Booted kernels are left out of a run unless they are asked for."""

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the machines as Ctrl-C does."""
    if config.getoption("--vm"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --vm the machines are left out, and the last line of the run says so."""
    if not config.getoption("--vm"):
        machines = [item for item in items if item.get_closest_marker("vm")]
        items[:] = [item for item in items if item not in machines]
        config.hook.pytest_deselected(items=machines)
