"""The service as a process: how it starts, reloads, refuses and ends."""

import gzip
import json
import platform
import re
import shutil
import signal
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from harness import AgentProcess, fill, hold_port, just_now, owed, port_of, wait_for
from pytest_httpserver import HTTPServer

from agent.core.format import duration_text
from agent.store.incidents import PROGRESS_SPACING

LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"


@pytest.fixture
def log_file(tmp_path):
    path = tmp_path / "messages"
    path.write_text("Nov 22 15:00:00 web1 systemd[1]: Started.\n")
    return path


@pytest.fixture
def agent(tmp_path, log_file):
    process = AgentProcess(tmp_path, f'[source]\nkind = "file"\npaths = ["{log_file}"]\n')
    yield process
    if not process.ended():
        process.kill()


def append(path, text=LINE):
    with path.open("a") as file:
        file.write(just_now(text))


def test_a_line_becomes_an_incident_on_disk_and_a_block_on_standard_output(agent, log_file):
    agent.start()
    append(log_file)
    wait_for("the block", lambda: "web1" in agent.said())

    assert 1 == agent.events()
    assert 0 == agent.stop()
    incident = agent.store.load(agent.store.resolve("last"))
    assert "claimed" == incident.provenance
    assert incident.confidence != "certain"
    assert "web1" == incident.host


def test_a_line_of_another_host_is_told_without_anything_that_was_read_here(agent, log_file):
    agent.config.write_text(agent.config.read_text() + "[incident]\nquiet_seconds = 1\n")
    agent.start()
    append(log_file, LINE.replace("web1", "web-7"))
    wait_for("the end", lambda: "(resolved" in agent.said())
    assert 0 == agent.stop()
    incident = agent.store.load(agent.store.resolve("last"))
    said = agent.said()

    assert ("web-7", platform.node(), None) == (incident.host, incident.read_on, incident.kernel)
    assert f"web-7: log on {platform.node()} claims orphan limit reached; nothing was measured on web-7" in said
    assert "On web-7, run sockmem-agent diagnose." in said
    here = (platform.release(), Path("/proc/sys/net/ipv4/tcp_max_orphans").read_text().strip(), "/proc/net/sockstat:")
    text = agent.store.path(incident.id).joinpath("incident.json").read_text() + said
    assert [] == [each for each in here if each in text or (each.isdigit() and f"{int(each):,}" in text)]


@pytest.mark.parametrize("off", [3600, -3600, 300])
def test_a_line_that_comes_now_is_measured_though_its_stamp_is_off(agent, log_file, off):
    agent.start()
    stamp = datetime.now() + timedelta(seconds=off)  # noqa: DTZ005 - as syslog writes it
    append(log_file, f"{stamp:%b %d %H:%M:%S} {platform.node()} kernel: TCP: too many orphaned sockets\n")
    wait_for("the incident", agent.events)
    assert 0 == agent.stop()
    incident = agent.store.load(agent.store.resolve("last"))

    assert abs(incident.opened_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert incident.diagnosis.mechanism.orphan is not None
    gaps = {gap.what: gap.why for gap in incident.diagnosis.gaps}
    assert "the moment of the event" not in gaps
    # The stamp has no fraction, and reading takes a moment.
    assert any(duration_text(abs(off) - late) in gaps["stamp of the line"] for late in range(10))


@pytest.mark.parametrize("form", ["{}", "{}.example.org", "localhost"])
def test_a_line_of_this_host_in_any_form_is_measured(agent, log_file, form):
    agent.start()
    append(log_file, LINE.replace("web1", form.format(platform.node().partition(".")[0].upper())))
    wait_for("the incident", agent.events)
    assert 0 == agent.stop()
    incident = agent.store.load(agent.store.resolve("last"))

    assert (None, platform.release()) == (incident.read_on, incident.kernel)
    assert incident.diagnosis.mechanism.tcp_max_orphans is not None


def test_without_channels_each_word_on_an_incident_is_said_once(agent, log_file):
    agent.config.write_text(agent.config.read_text() + "[incident]\nquiet_seconds = 1\n")
    agent.start()
    append(log_file)
    wait_for("the end", lambda: "(resolved" in agent.said())

    assert 0 == agent.stop()
    said = agent.said()
    incident = agent.store.load(agent.store.resolve("last"))
    assert 1 == said.count("First step:")
    assert 1 == said.count("(resolved")
    assert len(incident.notices) == said.count(f"incidents show {incident.id}")
    assert 1 == said.count("[  123.000001]")


def test_a_line_with_time_and_sender_of_somebody_else_is_no_event(agent, log_file):
    agent.start()
    append(log_file, LINE.replace("kernel:", "sshd[7]:"))
    append(log_file)
    wait_for("the event", agent.events)

    assert 0 == agent.stop()
    assert 1 == agent.events()


def test_a_bad_configuration_is_told_completely_and_ends_with_78(agent):
    agent.config.write_text('[source]\nkind = "fax"\n[incident]\nquiet = 3\n')
    with pytest.raises(AssertionError):
        agent.start()

    assert 78 == agent.stop()
    assert "kind" in agent.said()
    assert "quiet_seconds" in agent.said()
    assert "Traceback" not in agent.said()


def test_a_second_agent_on_the_same_state_is_refused_with_1(agent):
    agent.start()
    second = AgentProcess(agent.folder, agent.config.read_text())
    second.log = agent.folder / "second.log"
    with pytest.raises(AssertionError):
        second.start()

    assert 1 == second.stop()
    assert "another sockmem-agent uses this state directory" in second.said()


def test_a_broken_cursor_is_set_aside_and_the_host_is_watched_on(agent, log_file):
    agent.state.mkdir()
    (agent.state / "cursor.json").write_text("{")
    agent.start()
    append(log_file)
    wait_for("the event", agent.events)

    assert 0 == agent.stop()
    assert "cursor.json: cannot be read" in agent.said()
    assert "{" == (agent.state / "cursor.json.broken").read_text()


def test_claimed_lines_notify_nobody_at_start_or_after_a_reload_where_that_is_configured(agent, log_file):
    plain = agent.config.read_text()
    agent.config.write_text(plain + '[incident]\nclaimed = "record"\n')
    agent.start()
    append(log_file)
    wait_for("the event", agent.events)
    assert [] == agent.store.notices(agent.store.resolve("last"))
    agent.config.write_text(plain)
    agent.signal(signal.SIGHUP)
    wait_for("the reload", lambda: "reloaded" in agent.said())
    append(log_file)
    wait_for("the notice", lambda: agent.store.notices(agent.store.resolve("last")))

    assert 0 == agent.stop()
    assert "recorded without notification: only a text log claims it" in agent.said()


def test_sighup_takes_over_a_good_configuration_and_refuses_a_bad_one(agent, log_file, httpserver):
    httpserver.expect_request("/hook").respond_with_data("ok")
    agent.start()
    good = agent.config.read_text()
    agent.config.write_text("nonsense")
    agent.signal(signal.SIGHUP)
    wait_for("the refusal", lambda: "the old one stays in effect" in agent.said())
    assert "config.toml: is not valid TOML" in agent.said()
    agent.config.write_text(
        f'{good}[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "{httpserver.url_for("/hook")}"\n'
    )
    agent.signal(signal.SIGHUP)
    wait_for("the reload", lambda: "reloaded" in agent.said())
    append(log_file)
    wait_for("the POST", lambda: httpserver.log)

    assert 0 == agent.stop()
    assert "web1" == json.loads(httpserver.log[0][0].data)["data"]["host"]


def test_sighup_with_another_state_directory_says_that_it_needs_a_restart(agent, log_file):
    agent.environ = {"STATE_DIRECTORY": ""}
    good = agent.config.read_text()
    agent.config.write_text(f'{good}[store]\ndirectory = "{agent.state}"\n')
    agent.start()
    agent.config.write_text(f'{good}[store]\ndirectory = "{agent.folder}/elsewhere"\n')
    agent.signal(signal.SIGHUP)
    wait_for("the reload", lambda: "configuration reloaded" in agent.said())
    append(log_file)
    wait_for("the event", agent.events)

    assert 0 == agent.stop()
    assert f"{agent.folder}/elsewhere needs a restart: {agent.state} stays in use until then" in agent.said()


def test_a_state_directory_that_systemds_overrules_is_said_to_have_no_effect(agent):
    agent.config.write_text(f'{agent.config.read_text()}[store]\ndirectory = "/srv/other"\n')
    agent.start()

    assert 0 == agent.stop()
    assert "[store] directory = /srv/other has no effect, even after a restart" in agent.said()
    assert f"StateDirectory= in the unit sets {agent.state}" in agent.said()


def test_what_was_written_while_the_agent_was_down_is_found_at_the_next_start(agent, log_file):
    agent.start()
    assert 0 == agent.stop()
    append(log_file)
    agent.start()
    wait_for("the event", agent.events)

    assert 0 == agent.stop()


REPEATED = "Nov 22 15:05:40 web1 last message repeated 7 times\n"
ORDINARY = "Nov 22 15:05:40 web1 sshd[7]: session opened\n"
ANOTHER = LINE.replace("too many orphaned sockets", "out of memory -- consider tuning tcp_mem")


def count_up_to_another(agent, log_file, text):
    """Count all events until those of a text that is logged while the service is down are in."""
    append(log_file, text + ANOTHER)
    agent.start()
    wait_for("the last line", lambda: any("tcp_mem" in agent.store.load(each).events for each in agent.store.ids()))
    assert 0 == agent.stop()
    return agent.events() - 1


@pytest.mark.parametrize(
    ("meanwhile", "counted"),
    [
        (REPEATED, 1 + 7),
        (REPEATED + REPEATED, 1 + 7 + 7),
        (ORDINARY + REPEATED, 1),
        (REPEATED.replace("web1", "web2"), 1),
    ],
    ids=["once", "twice", "of an ordinary line", "of another host"],
)
def test_a_repeat_directly_behind_what_was_counted_before_a_kill_is_counted(agent, log_file, meanwhile, counted):
    agent.start()
    append(log_file)
    wait_for("the event", agent.events)
    agent.kill()

    assert counted == count_up_to_another(agent, log_file, meanwhile)


def test_a_repeat_is_not_counted_where_the_position_went_on_behind_an_ordinary_line(agent, log_file):
    agent.start()
    append(log_file, LINE + ORDINARY)
    wait_for("the event", agent.events)
    assert 0 == agent.stop()

    assert 1 == count_up_to_another(agent, log_file, REPEATED)


def test_a_dead_receiver_delays_nothing_and_is_told_later(agent, log_file, httpserver, unused_port):
    config = agent.config.read_text()
    channel = '[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "{}"\n'
    agent.config.write_text(config + channel.format(f"http://127.0.0.1:{unused_port}/secret-token"))
    agent.start()
    append(log_file)
    wait_for("the incident", agent.events)
    wait_for("the trouble to be told", lambda: "ops" in agent.said())
    append(log_file)
    wait_for("the second event", lambda: agent.events() == 2)
    agent.kill()
    httpserver.expect_request("/hook").respond_with_data("ok")
    agent.config.write_text(config + channel.format(httpserver.url_for("/hook")))
    agent.start()
    wait_for("the POST", lambda: httpserver.log)

    assert 0 == agent.stop()
    # Where standard output is no channel the log has it.
    assert f"WARNING incident {agent.store.resolve('last')} opened: " in agent.said()
    assert "sockmem.incident.opened" == json.loads(httpserver.log[0][0].data)["type"]
    assert "secret-token" not in agent.said()


def test_what_began_and_ended_during_an_outage_is_one_late_message(agent, log_file, unused_port):
    agent.config.write_text(
        agent.config.read_text() + "[incident]\nquiet_seconds = 1\npressure = false\n"
        f'[[notify]]\nname = "ops"\ntype = "command"\ncommand = ["{agent.folder}/tell"]\ninput = "text"\n'
        f'[[notify]]\nname = "hook"\ntype = "webhook"\nurl = "http://127.0.0.1:{unused_port}/hook"\n'
    )
    tell, heard = agent.folder / "tell", agent.folder / "heard"
    tell.write_text(f'#!/bin/sh\necho "$SOCKMEM_TYPE" >> {heard}\ncat >> {heard}\n[ -e {heard}.up ]\n')
    tell.chmod(0o755)
    agent.start()
    append(log_file)
    wait_for("the end", lambda: agent.events() and agent.store.load(agent.store.resolve("last")).closed_at)
    wait_for("both to fail", lambda: all(f"{name}: not delivered" in agent.said() for name in ("ops", "hook")))
    assert {"hook", "ops"} == {path.stem for path in (agent.state / "channels").iterdir()}
    agent.kill()
    Path(f"{heard}.up").touch()
    heard.unlink()
    with HTTPServer(port=unused_port) as server:
        server.expect_request("/hook").respond_with_data("ok")
        agent.start()
        wait_for("the POST", lambda: server.log)
        wait_for("both to be told", lambda: not owed(agent.store, "ops") + owed(agent.store, "hook"))
        assert ["sockmem.incident.resolved"] == [json.loads(request.data)["type"] for request, _ in server.log]
    assert 0 == agent.stop()

    told = heard.read_text()
    assert 1 == told.count("sockmem.incident.")
    assert "UTC (reported late: the channel was down" in told
    receipts = [receipts["ops"].outcome for _, _, receipts in agent.store.notices(agent.store.resolve("last"))]
    assert ["superseded"] * (len(receipts) - 1) + ["delivered"] == receipts
    assert [] == list((agent.state / "channels").iterdir())


def test_a_line_from_before_the_last_boot_is_one_late_message_in_the_past_tense_without_a_sysctl(agent, log_file):
    tell, heard = agent.folder / "tell", agent.folder / "heard"
    tell.write_text(f'#!/bin/sh\necho "$SOCKMEM_TYPE" >> {heard}\ncat >> {heard}\n')
    tell.chmod(0o755)
    agent.config.write_text(
        agent.config.read_text() + "[incident]\nquiet_seconds = 2\npressure = false\n"
        f'[[notify]]\nname = "ops"\ntype = "command"\ncommand = ["{tell}"]\ninput = "text"\n'
    )
    agent.start()
    old = datetime.now(timezone.utc) - timedelta(days=300)
    append(log_file, LINE.replace("Nov 22 15:05:39", old.isoformat()).replace("web1", platform.node()))
    wait_for("the message", lambda: heard.exists() and not owed(agent.store, "ops"))
    assert 0 == agent.stop()

    told = heard.read_text()
    assert ["sockmem.incident.resolved"] == re.findall(r"^sockmem\.incident\..*", told, re.MULTILINE)
    assert "(reported late: the log was read afterwards" in told
    assert f"on {old:%d %b %Y at %H:%M} UTC; nothing was measured then" in told
    assert "sysctl" not in told
    assert " is " not in told.splitlines()[1]


def test_what_a_channel_owes_that_is_no_longer_configured_is_given_up_and_said(agent, log_file, unused_port):
    config = agent.config.read_text()
    channel = '[[notify]]\nname = "{}"\ntype = "webhook"\nurl = "http://127.0.0.1:{}/hook"\n'
    agent.config.write_text(config + channel.format("ops", unused_port) + channel.format("old", unused_port))
    agent.start()
    append(log_file)
    wait_for("the trouble to be told", lambda: "ops: not delivered" in agent.said())
    agent.config.write_text(config + channel.format("old", unused_port))
    agent.signal(signal.SIGHUP)
    # The receipt comes behind the word, and without it the next start would give up once more.
    wait_for("the reload", lambda: "ops" in agent.store.notices(agent.store.resolve("last"))[0][2])
    assert "old: gave up" not in agent.said()
    agent.kill()
    agent.config.write_text(config)
    agent.start()
    wait_for("the start", lambda: "old: gave up" in agent.said())

    assert 0 == agent.stop()
    ((_, notice, receipts),) = agent.store.notices(agent.store.resolve("last"))
    assert {"ops", "old"} == set(notice.channels)
    assert {("gave_up", "the channel is no longer configured")} == {(r.outcome, r.detail) for r in receipts.values()}
    assert 1 == agent.said().count("ops: gave up")


@pytest.fixture
def unused_port():
    with hold_port() as held:
        yield port_of(held)


def test_systemd_is_told_ready_and_status_and_is_fed(agent, log_file, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent.start()
        said = [systemd.recv(4096).decode() for _ in range(2)]
        assert 0 == agent.stop()

    assert "READY=1" == said[0]
    assert said[1].startswith("WATCHDOG=1\nSTATUS=following ")
    assert said[1].endswith("no incident yet")


def test_systemd_waits_for_ready_while_many_incidents_are_read(agent, log_file, tmp_path, monkeypatch):
    (agent.state / "incidents").mkdir(parents=True)
    for number in range(PROGRESS_SPACING):
        (agent.state / "incidents" / str(number)).touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent.start()
        said = [systemd.recv(4096) for _ in range(2)]
        assert 0 == agent.stop()

    assert [b"EXTEND_TIMEOUT_USEC=60000000", b"READY=1"] == said


def test_systemd_waits_for_ready_while_a_large_rotated_log_is_unpacked(agent, log_file, tmp_path, monkeypatch):
    agent.start()
    with log_file.open("ab") as file:
        file.write(400_000 * (b"x" * 99 + b"\n"))
    append(log_file)
    wait_for("the event", agent.events)
    assert 0 == agent.stop()
    with log_file.open("rb") as plain, gzip.open(f"{log_file}.1.gz", "wb", compresslevel=1) as packed:
        shutil.copyfileobj(plain, packed)
    log_file.unlink()
    append(log_file)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent.start()
        said = [systemd.recv(4096)]
        while said[-1] != b"READY=1":
            said.append(systemd.recv(4096))
        wait_for("the event behind it", lambda: agent.events() == 2)

    assert {b"EXTEND_TIMEOUT_USEC=60000000"} == set(said[:-1])


def test_while_systemd_does_not_read_the_service_watches_and_ready_and_stopping_come_later(
    agent, log_file, tmp_path, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        waiting = fill(systemd)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent.start()
        append(log_file)
        wait_for("the event", agent.events)
        for _ in range(waiting):
            systemd.recv(4096)
        assert b"READY=1" == systemd.recv(4096)
        fill(systemd)
        agent.signal(signal.SIGTERM)
        said = [systemd.recv(4096)]
        while said[-1] != b"STOPPING=1":
            said.append(systemd.recv(4096))

        assert 0 == agent.stop()
    assert b"READY=1" not in said


def test_the_service_stops_though_systemd_never_reads(agent, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        fill(systemd)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agent.start()

        assert 0 == agent.stop()


def test_a_log_full_of_old_lines_is_six_messages_and_every_incident_on_disk(agent, log_file, httpserver):
    httpserver.expect_request("/hook").respond_with_data("ok")
    with log_file.open("w") as file:
        for hour in range(24):
            stamp = f"2026-11-02T{hour:02}:00:00Z {platform.node()}"
            file.write(f"{stamp} kernel: [{hour}.000001] TCP: too many orphaned sockets\n")
    config = agent.config.read_text() + 'start = "beginning"\n'
    agent.config.write_text(
        f'{config}[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "{httpserver.url_for("/hook")}"\n'
    )
    agent.start()
    wait_for("the incidents", lambda: len(agent.store.ids()) == 24)
    wait_for("the messages", lambda: len(httpserver.log) >= 6)
    assert 0 == agent.stop()

    types = [json.loads(request.data)["type"].rpartition(".")[2] for request, _ in httpserver.log]
    assert (6, 6) == (types.count("resolved"), len(types))
    assert 1 == agent.said().count("the rest follows in one digest")
