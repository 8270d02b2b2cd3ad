"""A run with every channel, against receivers that say everything back: nothing that it leaves behind has a secret."""

import base64
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from harness import AgentProcess, just_now, read_request, wait_for

LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"
# Every secret has this in it, as it is, in base64 or percent-encoded.
MARK = "S3CRET"
WHSEC = "whsec_" + base64.b64encode(MARK.encode() * 4).decode()
PASSWORD = f"{MARK}-p@ss"
LOGINS = [base64.b64encode(login.encode()) for login in (f"u:{PASSWORD}", f"\0u\0{PASSWORD}", PASSWORD, MARK)]
FORMS = [MARK.encode(), *(login[:8] for login in LOGINS), WHSEC[6:].encode(), b"PRIVATE KEY"]
# What a command could see of us.
LOOK = """#!/bin/sh
{ cat; echo; tr '\\0' ' ' < /proc/$PPID/environ; ps -efww; env; ls -l /proc/self/fd; } > seen 2>&1
head -c 256 seen
exit 1
"""


def echo(connection: socket.socket) -> None:
    """Answer 503 with the whole request in reason, header and body."""
    request = read_request(connection)
    said = request.replace(b"\r\n", b" ")
    head = b"HTTP/1.1 503 " + said + b"\r\nX-Echo: " + said + b"\r\nContent-Length: %d\r\n\r\n" % len(request)
    connection.sendall(head + request)


def echo_mail(connection: socket.socket) -> None:
    """Offer a login, and refuse every one with what it said."""
    connection.settimeout(10)
    lines = connection.makefile("rb")
    connection.sendall(b"220 hi\r\n")
    while line := lines.readline():
        is_hello = line[:4].upper() in {b"EHLO", b"HELO"}
        connection.sendall(b"250-hi\r\n250 AUTH PLAIN\r\n" if is_hello else b"535 5.7.8 " + line.strip() + b"\r\n")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Write the files that hold the secrets, apart from what the run leaves behind."""
    folder = tmp_path / "keys"
    folder.mkdir()
    issued = trustme.CA().issue_cert("agent@web1.example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "cert"))
    for name, text in (("token", f"{MARK}-token"), ("password", PASSWORD), ("secret", WHSEC), ("key", f"{MARK}key")):
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.fixture
def agent(tmp_path: Path, keys: Path, serve: Callable[..., str]) -> Iterator[AgentProcess]:
    place, mail = serve(echo), serve(echo_mail)
    (keys / "url").write_text(f"http://{place}/services/{MARK}?t={MARK}\n")
    (keys / "look").write_text(LOOK.replace("seen", f"{tmp_path}/left/seen"))
    (keys / "look").chmod(0o755)
    (tmp_path / "left").mkdir()
    (tmp_path / "messages").write_text("")
    tables = {
        "slack": f'url_file = "{keys}/url"\nheaders = {{X-Key = "{MARK}-header"}}\ncert_file = "{keys}/cert"',
        "webhook": f'url_file = "{keys}/url"\nsecret_file = "{keys}/secret"\ntoken_file = "{keys}/token"',
        "alertmanager": f'urls_file = "{keys}/url"\nuser = "u"\npassword_file = "{keys}/password"',
        "command": f'command = ["{keys}/look"]',
        "email": f'to = ["a@b"]\nfrom = "c@d"\nsmtp = "{mail}"\nuser = "u"\npassword_file = "{keys}/password"',
        "journal": "",
        "stdout": "",
    }
    if importlib.util.find_spec("agent.notifiers.pagerduty"):
        tables["pagerduty"] = f'routing_key_file = "{keys}/key"\nurl = "http://{place}/{MARK}"'
    config = f'[source]\nkind = "file"\npaths = ["{tmp_path}/messages"]\n'
    config += f'[metrics]\ntextfile = "{tmp_path}/left/metrics.prom"\n'
    for kind, text in tables.items():
        config += f'[[notify]]\nname = "{kind}"\ntype = "{kind}"\n{text}\n'
    process = AgentProcess(tmp_path / "left", config)
    process.config.rename(keys / "config.toml")
    process.config = keys / "config.toml"
    process.environ["RUNTIME_DIRECTORY"] = str(tmp_path / "left")
    yield process
    if not process.ended():
        process.kill()


def of_process(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ", "comm", "status"))


def cli(agent: AgentProcess, *arguments: str) -> bytes:
    environ = {**os.environ, "STATE_DIRECTORY": str(agent.state), "RUNTIME_DIRECTORY": str(agent.folder)}
    command = [sys.executable, "-m", "agent", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=120)
    return done.stdout + done.stderr


def told(text: bytes) -> list[bytes]:
    return [form for form in FORMS if form in text]


def test_nothing_that_a_run_with_every_channel_leaves_behind_has_a_secret(agent: AgentProcess, tmp_path: Path) -> None:
    agent.start("--log-level", "debug")
    with (tmp_path / "messages").open("a") as file:
        file.write(just_now(LINE))
    channels = ("slack", "webhook", "alertmanager", "email", "command")
    wait_for("every channel to fail", lambda: all(f"{name}: not delivered" in agent.said() for name in channels), 60)
    agent.signal(signal.SIGHUP)
    wait_for("the reload", lambda: "configuration reloaded" in agent.said())
    running = of_process(agent.pid)
    config = ("--config", str(agent.config))
    said = {
        name: cli(agent, *arguments)
        for name, arguments in {
            "config show": ("config", "show", *config),
            "config show --json": ("config", "show", "--json", *config),
            "config check": ("config", "check", *config),
            "doctor": ("doctor", "--json", *config),
            "notify test": ("notify", "test", *config),
            "status": ("status", "--json", *config),
            "incidents show": ("incidents", "show", "last", *config),
            "incidents report": ("incidents", "report", "last", "--output", "-", *config),
        }.items()
    }
    export = tmp_path / "left" / "export.tar.gz"
    cli(agent, "incidents", "export", "last", *config, "--output", str(export))
    agent.stop()

    found = {name: forms for name, text in {"the process": running, **said}.items() if (forms := told(text))}
    files = [path for path in (tmp_path / "left").rglob("*") if path.is_file() and not path.is_symlink()]
    found |= {str(path): forms for path in files if (forms := told(path.read_bytes()))}
    with tarfile.open(export) as opened:
        members = [opened.extractfile(member) for member in opened.getmembers() if member.isfile()]
        found |= {member.name: forms for member in members if member and (forms := told(member.read()))}
    assert {} == found
    assert b"ps -efww" in (tmp_path / "left" / "seen").read_bytes()
    assert len(files) > 8
    assert len(members) > 2


def test_the_forms_that_are_looked_for_are_those_that_the_receivers_are_given(agent: AgentProcess, keys: Path) -> None:
    """So that the test above can fail: each of them is in what the files hold, or in what is made of it."""
    held = b"".join(path.read_bytes() for path in keys.iterdir())

    assert [] == [form for form in FORMS if form not in held + b"".join(LOGINS)]
