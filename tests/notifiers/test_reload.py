"""The service as a process: what its channels' files hold is read at the start and at SIGHUP."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import AgentProcess, wait_for
from pytest_httpserver import HTTPServer

LINE = "Nov 22 15:05:39 {host} kernel: [  123.000001] TCP: too many orphaned sockets\n"


@pytest.fixture
def agent(tmp_path: Path, httpserver: HTTPServer) -> Iterator[AgentProcess]:
    """Make an agent with one channel that logs in with a token and trusts a CA of its own."""
    httpserver.expect_request("/hook").respond_with_data("")
    (tmp_path / "messages").write_text("")
    (tmp_path / "token").write_text("T0ken-old\n")
    table = f'name = "hook"\ntype = "webhook"\nurl = "{httpserver.url_for("/hook")}"\ntoken_file = "{tmp_path}/token"\n'
    config = f'[source]\nkind = "file"\npaths = ["{tmp_path}/messages"]\n[[notify]]\n{table}'
    process = AgentProcess(tmp_path, config)
    yield process
    if not process.ended():
        process.kill()


@pytest.fixture
def logins(agent: AgentProcess, tmp_path: Path, httpserver: HTTPServer) -> Callable[[str], str]:
    """Let another host say the line, and return how the channel logged in to tell it."""

    def tell(host: str) -> str:
        before = len(httpserver.log)
        with (tmp_path / "messages").open("a") as file:
            file.write(LINE.format(host=host))
        wait_for(f"the POST about {host}", lambda: len(httpserver.log) > before)
        return httpserver.log[-1][0].headers["Authorization"]

    return tell


def reload(agent: AgentProcess, said: str) -> None:
    before = agent.said().count(said)
    agent.signal(signal.SIGHUP)
    wait_for(said, lambda: agent.said().count(said) > before)


def test_a_rotated_token_counts_from_the_reload_on(
    agent: AgentProcess, logins: Callable[[str], str], tmp_path: Path
) -> None:
    agent.start()
    assert "Bearer T0ken-old" == logins("web1")

    (tmp_path / "token").write_text("T0ken-new\n")
    assert "Bearer T0ken-old" == logins("web2")

    reload(agent, "configuration reloaded")
    assert "Bearer T0ken-new" == logins("web3")
    assert "T0ken" not in agent.said()


def test_a_bad_file_at_a_reload_is_one_line_and_the_old_configuration_stays(
    agent: AgentProcess, logins: Callable[[str], str], tmp_path: Path
) -> None:
    agent.start()
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\nT0ken\n")
    good = agent.config.read_text()
    agent.config.write_text(f'{good}ca_file = "{tmp_path}/ca"\n')

    reload(agent, "the old configuration stays in effect")

    (line,) = [line for line in agent.said().splitlines() if "ca_file" in line]
    assert f"hook: ca_file {tmp_path}/ca: " in line
    assert "T0ken" not in agent.said()
    assert "Bearer T0ken-old" == logins("web1")


def test_a_bad_file_at_the_start_is_one_line_and_status_78(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\nT0ken\n")
    agent.config.write_text(f'{agent.config.read_text()}ca_file = "{tmp_path}/ca"\n')

    agent.spawn()

    assert 78 == agent.wait()
    (line,) = agent.said().splitlines()
    assert f"hook: ca_file {tmp_path}/ca: " in line
    assert "T0ken" not in line
