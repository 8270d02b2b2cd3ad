"""What other tests rely on."""

import socket

import pytest
from harness import hold_port, port_of


def test_a_port_that_is_held_is_for_a_server_alone() -> None:
    with hold_port() as held, socket.socket() as other:
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(held.getsockname())
        with socket.create_server(held.getsockname()) as server:
            assert port_of(held) == port_of(server)
