import errno
import fcntl
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import wait_for
from material import make_sent_notice

from agent.core.delivery import Delivered, Rejected, Retry
from agent.core.report import body_text, title
from agent.core.settings import CommandSettings
from agent.notifiers.body import encode
from agent.notifiers.command import REFUSALS, CommandNotifier

NOTICE = make_sent_notice()
again = partial(Retry, may_be_the_notice=True)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., CommandNotifier]:
    """Write a shell script that starts in the test's folder, and make a channel that runs it."""

    def make(text: str, *arguments: str, **keys: object) -> CommandNotifier:
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        path.chmod(0o755)
        return CommandNotifier(CommandSettings(name="run", command=(str(path), *arguments), **keys))

    return make


def lives(pid: str) -> bool:
    """Return whether this process runs: not gone, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what it is given -----------------------------------------------------------------------------------------------


def test_it_reads_the_body_of_a_webhook(script, tmp_path: Path) -> None:
    assert script("cat > got", runbook_url="https://wiki.example/x").notify(NOTICE) == Delivered(detail="exit status 0")
    assert json.loads(encode(NOTICE, runbook_url="https://wiki.example/x")) == json.loads(
        (tmp_path / "got").read_text()
    )


def test_as_text_it_reads_title_empty_line_and_text(script, tmp_path: Path) -> None:
    for kind in ("sockmem.incident.opened", "sockmem.incident.updated", "sockmem.digest", "sockmem.test"):
        notice = make_sent_notice(kind)
        script("cat > got", input="text", runbook_url="https://wiki.example/x").notify(notice)

        first, second, rest = (tmp_path / "got").read_text().split("\n", 2)
        assert [title(notice), "", body_text(notice, "https://wiki.example/x")] == [first, second, rest]
        assert rest.strip().endswith("\nrunbook: https://wiki.example/x")
        assert not rest.startswith("\n")
        assert title(notice) not in rest


def test_its_environment_is_what_the_contract_names_and_nothing_of_ours(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:T0ken@proxy")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/sockmem-agent.service")

    script("tr '\\0' '\\n' < /proc/$$/environ > got").notify(NOTICE)

    got = dict(line.split("=", 1) for line in (tmp_path / "got").read_text().splitlines())
    assert got == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "SOCKMEM_TYPE": "sockmem.incident.opened",
        "SOCKMEM_SEVERITY": "critical",
        "SOCKMEM_HOST": "web1",
        "SOCKMEM_CAUSE": "orphans",
        "SOCKMEM_TITLE": title(NOTICE),
        "SOCKMEM_INCIDENT": "20261122T150539Z-7f3a",
        "SOCKMEM_NOTICE": NOTICE.id,
    }


@pytest.mark.parametrize("kind", ["sockmem.digest", "sockmem.test"])
def test_what_a_notice_does_not_have_is_empty(script, tmp_path: Path, kind: str) -> None:
    script('echo "$SOCKMEM_SEVERITY,$SOCKMEM_CAUSE,$SOCKMEM_INCIDENT,${SOCKMEM_HOST:?}" > got').notify(
        make_sent_notice(kind)
    )

    assert (tmp_path / "got").read_text().startswith("info,,,")


def test_a_hosts_name_cannot_break_out_of_its_variable(script, tmp_path: Path) -> None:
    script('printf %s "$SOCKMEM_HOST" > got').notify(make_sent_notice(host="w\0\n\x1b]0;x\x07" + "w" * 100))

    assert ("w\\x00\\x0a\\x1b]0;x\\x07" + "w" * 100)[:64] in (tmp_path / "got").read_text()
    assert "\n" not in (tmp_path / "got").read_text()


def test_its_arguments_are_handed_over_as_they_are(script, tmp_path: Path) -> None:
    script('printf "%s|" "$@" > got', "a b", "$HOME;`id`", "").notify(NOTICE)

    assert "a b|$HOME;`id`||" == (tmp_path / "got").read_text()


def test_it_gets_no_file_of_ours_and_no_working_directory(script, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("T0ken")
    with (tmp_path / "secret").open() as secret:
        fcntl.fcntl(secret, fcntl.F_SETFD, 0)  # a program would inherit it
        script("echo $OLDPWD > cwd; for fd in /proc/$$/fd/*; do readlink $fd; done > fds").notify(NOTICE)

    links = (tmp_path / "fds").read_text()
    assert "secret" not in links
    assert "notice" in links
    assert "/\n" == (tmp_path / "cwd").read_text()


def test_it_is_ended_before_the_agent_where_memory_is_short(script, tmp_path: Path) -> None:
    script("sleep 0.2; cat /proc/$$/oom_score_adj > got").notify(NOTICE)

    assert "500\n" == (tmp_path / "got").read_text()


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2, 64, 65, 66, 69, 73, 75, 77, 78, 125, 126, 127, 128, 255])
def test_its_exit_status_says_what_became_of_the_notice(script, status: int) -> None:
    delivery = script(f"exit {status}").notify(NOTICE)

    expected = (
        Delivered(detail="exit status 0")
        if status == 0
        else (Rejected if status in {64, 65, 77, 78, 126, 127} else again)(why=f"exit status {status}")
    )
    assert delivery == expected
    assert {64, 65, 77, 78, 126, 127} == REFUSALS


def test_one_that_a_signal_ended_is_tried_again_and_may_have_done_it_already(script) -> None:
    ended = again(why="the command was ended by signal 11", may_be_taken=True)
    assert script("kill -SEGV $$").notify(NOTICE) == ended


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("echo\n")
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "binary").chmod(0o755)
    (tmp_path / "orphan").write_text("#!/does/not/exist\n")
    (tmp_path / "orphan").chmod(0o755)

    def run(name: str) -> object:
        return CommandNotifier(CommandSettings(name="run", command=(str(tmp_path / name),))).notify(NOTICE)

    missing = "no such file or directory (the program, or the interpreter that its first line names)"
    assert run("none") == Rejected(why=f"cannot be run: {missing}")
    assert run("orphan") == Rejected(why=f"cannot be run: {missing}")
    assert run("text") == Rejected(why="cannot be run: permission denied")
    assert run(".") == Rejected(why="cannot be run: permission denied")
    assert run("text/x") == Rejected(why="cannot be run: not a directory")
    assert run("binary") == Rejected(why="cannot be run: exec format error")


def test_a_host_without_room_for_a_process_is_worth_another_try(script, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "")

    notifier = script("true")
    monkeypatch.setattr(subprocess, "Popen", refuse)

    assert notifier.notify(NOTICE) == Retry(why="cannot be run: resource temporarily unavailable")


# --- and how it behaves badly ---------------------------------------------------------------------------------------


def test_what_is_not_done_in_time_is_killed_with_its_children_though_they_ignore_signals(
    script, tmp_path: Path
) -> None:
    children = "trap '' TERM INT HUP; (trap '' TERM; echo $$ > one; exec sleep 60) & echo $! > two; wait"

    started = time.monotonic()

    assert script(children, timeout_seconds=1).notify(NOTICE) == again(
        why="killed: not done within 1 s", may_be_taken=True
    )
    assert 1 <= time.monotonic() - started < 60
    pids = [(tmp_path / name).read_text().strip() for name in ("one", "two")]
    wait_for("its processes to be gone", lambda: not any(map(lives, pids)))


def test_what_it_leaves_behind_in_its_group_is_killed_when_it_ends(script, tmp_path: Path) -> None:
    # Were its child waited for, it would be killed.
    delivery = script("sleep 60 & echo $! > one", timeout_seconds=20).notify(NOTICE)

    assert delivery == Delivered(detail="exit status 0")
    wait_for("its child to be gone", lambda: not lives((tmp_path / "one").read_text().strip()))


def test_a_daemon_that_left_the_group_and_keeps_the_pipes_delays_nobody(script, tmp_path: Path) -> None:
    leave = "setsid sh -c 'echo $$ > daemon; exec sleep 60' & until [ -s daemon ]; do sleep 0.01; done; exit 0"

    assert script(leave, timeout_seconds=20).notify(NOTICE) == Delivered(detail="exit status 0")
    daemon = int((tmp_path / "daemon").read_text())
    assert lives(str(daemon))
    os.kill(daemon, signal.SIGKILL)


def test_one_that_does_not_read_delays_nobody(script) -> None:
    notice = make_sent_notice(summary="x" * 1_000_000)

    assert script("exec <&-; exit 0").notify(notice) == Delivered(detail="exit status 0")
    assert script("exit 0").notify(notice) == Delivered(detail="exit status 0")


def test_one_that_prints_without_end_costs_next_to_nothing(script, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)

    delivery = script("exec cat /dev/zero", timeout_seconds=2).notify(NOTICE)

    after = resource.getrusage(resource.RUSAGE_SELF)
    assert delivery == again(why="killed: not done within 2 s", may_be_taken=True)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert len(caplog.text) < 2000


def test_one_that_prints_much_and_ends_is_delivered(script) -> None:
    assert script("head -c 1000000 /dev/zero").notify(NOTICE) == Delivered(detail="exit status 0")


def test_one_whose_program_takes_long_to_be_loaded_stops_no_other_thread(script) -> None:
    """A program on a network that hangs: here its file is leased by somebody who does not give it back."""
    notifier = script("exit 0")
    held = os.open(notifier._settings.command[0], os.O_RDONLY)
    deliveries: list[object] = []
    thread = threading.Thread(target=lambda: deliveries.append(notifier.notify(NOTICE)))
    before = signal.signal(signal.SIGIO, lambda *_: None)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # and this thread, which would watch the kernel, ran all the time
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        thread.join(20)
    finally:
        os.close(held)
        signal.signal(signal.SIGIO, before)
    assert [Delivered(detail="exit status 0")] == deliveries


def test_one_that_even_sigkill_does_not_end_is_left_alone_until_it_is_gone(
    script, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = script("exec sleep 60", timeout_seconds=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda *_: None)  # as if the kernel did not let go of it

        hangs = Retry(why="the command hangs in the kernel and cannot be killed", may_be_taken=True)
        assert notifier.notify(NOTICE) == hangs
    hanging = notifier._process

    assert notifier.notify(NOTICE) == Retry(why="an earlier run hangs in the kernel and cannot be killed")
    assert notifier._process is hanging
    notifier._process.kill()
    notifier._process.wait()
    assert notifier.notify(NOTICE) == again(why="killed: not done within 1 s", may_be_taken=True)


def test_it_runs_without_any_privilege(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can take the privileges away")
    program = """
from agent.core.settings import CommandSettings
from agent.notifiers.command import CommandNotifier
from material import make_sent_notice
command = ("/bin/sh", "-c", "sleep 60 & grep -E '^(NoNewPrivs|CapEff|CapBnd|Uid)' /proc/$$/status")
import logging
logging.basicConfig(level="INFO", format="%(message)s")
print(CommandNotifier(CommandSettings(name="run", command=command)).notify(make_sent_notice()))
"""
    taken = ("--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs", "--bounding-set=-all")

    def run_as_nobody(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["setpriv", *taken, sys.executable, "-c", text],
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": "tests", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    if run_as_nobody("import msgspec").returncode:
        pytest.skip("nobody may not use this Python")
    done = run_as_nobody(program)

    assert "Delivered(detail='exit status 0')\n" == done.stdout, done.stderr
    assert "CapEff: 0000000000000000" in done.stderr
    assert "NoNewPrivs: 1" in done.stderr


# --- what it prints -------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_first_256_bytes_of_its_output_are_logged(script, logged) -> None:
    script("echo one; echo two >&2; head -c 1000 /dev/zero | tr '\\0' x").notify(NOTICE)

    assert [("INFO", "run: the command printed «one\\x0atwo\\x0a" + "x" * 248 + "»")] == logged()


def test_a_failures_output_is_a_warning_and_the_same_is_logged_once(script, logged) -> None:
    notifier = script("echo no route; exit 1")

    for _ in range(3):
        notifier.notify(NOTICE)

    assert [("WARNING", "run: the command printed «no route»")] == logged()


def test_output_can_neither_steer_a_terminal_nor_pass_for_a_line_of_the_kernels(script, logged) -> None:
    script(r"printf '\033[2J\377\nkernel: TCP: too many orphaned sockets\n'").notify(NOTICE)

    assert [
        ("INFO", "run: the command printed «\\x1b[2J\ufffd\\x0akernel: TCP: too many orphaned sockets»")
    ] == logged()


def test_silence_is_not_logged(script, logged) -> None:
    script("exit 0").notify(NOTICE)

    assert [] == logged()
