import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import on_terminal, plain

from agent.cli import group
from agent.core.model import KINDS

ORPHANS = "Aug 18 08:33:14 jp58 kernel: [85047.045932] TCP: too many orphaned sockets"
LOG = f"""\
Aug 17 23:59:58 jp58 systemd[1]: Started Session 3 of user root.
Aug 18 08:33:10 jp58 kernel: net_ratelimit: 142 callbacks suppressed
{ORPHANS}
Aug 18 08:33:15 jp58 last message repeated 6 times
Aug 18 08:40:09 jp58 root: TCP: too many orphaned sockets
Aug 19 10:00:00 jp58 kernel: TCP: out of memory -- consider tuning tcp_mem
"""
SCAN = [sys.executable, "-m", "agent", "scan"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "messages"
    path.write_text(LOG)
    os.utime(path, (1724500000, 1724500000))
    return path


def scan(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["scan", *map(str, arguments)])


def objects(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_json_lines_hold_every_key_of_the_contract(log: Path) -> None:
    result = scan("--json", log)
    assert 0 == result.exit_code
    first, second, third, fourth = objects(result.stdout)
    keys = ["at", "uptime", "host", "kind", "suppressed", "count", "source", "provenance", "line"]
    assert keys == list(first)
    assert ("suppressed", 142) == (first["kind"], first["suppressed"])
    assert (85047.045932, "jp58", 1, f"{log}:3", "claimed", ORPHANS) == tuple(
        second[key] for key in ("uptime", "host", "count", "source", "provenance", "line")
    )
    assert re.fullmatch(r"2024-08-18T08:33:14(Z|[+-]\d\d:\d\d)", str(second["at"]))
    assert ("too_many_orphans", 6) == (third["kind"], third["count"])
    assert ("tcp_mem", None) == (fourth["kind"], fourth["suppressed"])


def test_the_table_counts_by_day_kind_and_source(log: Path) -> None:
    result = scan(log)
    assert 0 == result.exit_code
    rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert ["day", "kind", "count", "first", "last", "source"] == rows[0]
    assert ["2024-08-18", "suppressed messages", "142", "08:33:10", "08:33:10", str(log)] == rows[1]
    assert ["2024-08-18", "too many orphans", "7", "08:33:14", "08:33:15", str(log)] == rows[2]
    assert ["2024-08-19", "out of TCP memory", "1", "10:00:00", "10:00:00", str(log)] == rows[3]
    assert ["8 events, and 142 net messages suppressed next to them"] == rows[4]


def test_the_table_is_plain_when_not_a_terminal(log: Path) -> None:
    output = subprocess.run([*SCAN, log], capture_output=True, check=True).stdout
    assert b"\x1b" not in output
    assert output.isascii()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_on_a_terminal_is_for_those_who_want_it(
    log: Path, environment: dict[str, str], *, coloured: bool
) -> None:
    output = on_terminal([*SCAN, str(log)], 100, **environment)
    assert coloured == ("\x1b[33m" in output)
    assert "too many" in output


def test_on_a_wide_terminal_the_source_ends_each_line(log: Path) -> None:
    lines = plain(on_terminal([*SCAN, str(log)], 100 + len(str(log))))
    assert ["day", "kind", "count", "first", "last", "source"] == lines[0].split()
    assert all(line.endswith(f"  {log}") for line in lines[1:4])


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_breaks_neither_count_nor_source(log: Path, width: int) -> None:
    source = log.rename(log.with_name("messages-of-a-host.with.a.long.name.example.org"))
    lines = plain(on_terminal([*SCAN, str(source)], width))

    assert {line for line in lines if len(line) > width} == {f"  {source}"}
    text = " ".join(line.strip() for line in lines)
    for part in ("2024-08-18 7 too many orphans, 08:33:14 to 08:33:15, ", "142 suppressed messages, 08:33:10, "):
        assert part in text, text


def test_a_terminal_is_asked_how_wide_it_is(log: Path) -> None:
    lines = plain(on_terminal([*SCAN, str(log)], 40))
    assert "2024-08-18" == lines[0]
    assert any(line.startswith("  7 too many orphans, ") for line in lines)


def test_a_pipe_gets_whole_lines_however_long_the_path_is(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 200] * 4)
    folder.mkdir(parents=True)
    (folder / "messages").write_text(LOG)
    output = subprocess.run([*SCAN, folder / "messages"], capture_output=True, check=True, text=True).stdout
    assert 3 == sum(line.endswith(f"  {folder}/messages") for line in output.splitlines())


@pytest.mark.parametrize(
    ("since", "kinds"),
    [
        ("2024-08-17", ["suppressed", "too_many_orphans", "too_many_orphans", "tcp_mem"]),
        ("2024-08-18 08:33:15", ["too_many_orphans", "tcp_mem"]),
        ("2024-08-19T10:00:00", ["tcp_mem"]),
        ("yesterday", []),
    ],
)
def test_since_leaves_out_what_is_older(log: Path, since: str, kinds: list[str]) -> None:
    result = scan("--json", "--since", since, log)
    assert (int(not kinds), kinds) == (result.exit_code, [event["kind"] for event in objects(result.stdout)])
    assert "--since" not in result.stderr


def test_since_says_from_when_on_nothing_was_found(log: Path) -> None:
    result = scan("--since", "2030-01-01", log)
    assert (1, True) == (result.exit_code, result.stdout.startswith("no events found since 2030-01-01 00:00:00"))


def test_since_keeps_what_has_no_date_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "dmesg"
    path.write_text("[  520.897104] TCP: too many orphaned sockets\nOut of socket memory\n")
    result = scan("--json", "--since", "1h", path)
    assert (0, 2) == (result.exit_code, len(objects(result.stdout)))
    assert "sockmem-agent: --since does not apply to events without a date; kept: 2\n" == result.stderr


def test_since_that_is_no_time_is_2_and_says_what_is_one(log: Path) -> None:
    result = scan("--since", "a while", log)
    assert 2 == result.exit_code
    assert "'a while' is not a time; use one like 2h" in result.stderr


def test_no_events_is_status_1(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.write_text("Aug 18 08:33:10 jp58 kernel: net_ratelimit: 142 callbacks suppressed\n")
    assert (1, "no events found\n") == (scan(quiet).exit_code, scan(quiet).stdout)
    assert (1, "") == (scan("--json", quiet).exit_code, scan("--json", quiet).stdout)


def test_what_was_found_is_printed_before_unreadable_input_is_named(log: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no-such"
    result = scan("--json", missing, log)
    assert 66 == result.exit_code
    assert 4 == len(objects(result.stdout))
    assert f"sockmem-agent: {missing}: no such file; check the name" == result.stderr.splitlines()[-1]


def test_a_damaged_file_alone_is_66_and_no_traceback(tmp_path: Path) -> None:
    damaged = tmp_path / "messages.gz"
    damaged.write_bytes(gzip.compress(LOG.encode())[:40])
    result = subprocess.run([*SCAN, damaged], capture_output=True, text=True, check=False)
    assert (66, "") == (result.returncode, result.stdout)
    assert 1 == result.stderr.count("\n")


def test_standard_input_may_be_compressed() -> None:
    packed = gzip.compress(LOG.encode())
    result = subprocess.run([*SCAN, "--json", "-"], input=packed, capture_output=True, check=True)
    assert ["-:2", "-:3", "-:4", "-:6"] == [event["source"] for event in objects(result.stdout.decode())]


def test_files_are_one_log_in_the_order_given(tmp_path: Path) -> None:
    older, newer = tmp_path / "dmesg.1", tmp_path / "dmesg.0"
    older.write_text("x\nnet_ratelimit: 3 callbacks suppressed\n")
    newer.write_text("TCP: too many orphaned sockets\n")
    assert ["suppressed", "too_many_orphans"] == [each["kind"] for each in objects(scan("--json", older, newer).stdout)]
    assert ["too_many_orphans"] == [each["kind"] for each in objects(scan("--json", newer, older, newer).stdout)][:1]


@pytest.mark.parametrize("arguments", [[], ["--journal", "messages"], ["--directory", "x", "messages"], ["--wrong"]])
def test_bad_usage_is_2_and_says_what_to_do(arguments: list[str]) -> None:
    result = scan(*arguments)
    assert 2 == result.exit_code
    assert "Usage: " in result.stderr


def test_a_directory_without_journal_files_is_66_and_is_not_waited_for(tmp_path: Path) -> None:
    result = scan("--directory", tmp_path)

    assert os.EX_NOINPUT == result.exit_code
    fix = "name a directory with --directory, or log files"
    assert f"sockmem-agent: no journal file in {tmp_path}; {fix}\n" == result.stderr


def test_no_journal_directory_is_66(tmp_path: Path) -> None:
    result = scan("--directory", tmp_path / "no-such")
    assert 66 == result.exit_code
    assert "no such directory" in result.stderr


REMOTE = Path("/lib/systemd/systemd-journal-remote")
ENTRY = """\
__REALTIME_TIMESTAMP=1723962794204518
__MONOTONIC_TIMESTAMP=85047045932
_BOOT_ID=0123456789abcdef0123456789abcdef
_TRANSPORT={transport}
SYSLOG_FACILITY={facility}
SYSLOG_IDENTIFIER=kernel
_HOSTNAME=jp58
MESSAGE=TCP: too many orphaned sockets

"""


@pytest.mark.skipif(not REMOTE.exists(), reason="needs Debian's systemd-journal-remote to make a journal file")
def test_journal_files_prove_that_the_kernel_spoke(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal", reason="needs systemd-python")
    entries = ENTRY.format(transport="kernel", facility=0) + ENTRY.format(transport="syslog", facility=3)
    process = [REMOTE, "-o", tmp_path / "system.journal", "-"]
    subprocess.run(process, input=entries, text=True, capture_output=True, check=True)
    result = scan("--json", "--directory", tmp_path)
    assert 0 == result.exit_code
    (event,) = objects(result.stdout)
    assert ("kernel", "too_many_orphans", "jp58") == (event["provenance"], event["kind"], event["host"])
    assert str(event["source"]).startswith("journal:s=")


@pytest.mark.skipif(not REMOTE.exists(), reason="needs Debian's systemd-journal-remote to make a journal file")
def test_a_user_without_inotify_scans_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = pytest.importorskip("agent.sources.journal", reason="needs systemd-python")

    class Unwatched(journal.Reader):  # type: ignore[misc]
        def fileno(self) -> int:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(journal, "Reader", Unwatched)
    process = [REMOTE, "-o", tmp_path / "system.journal", "-"]
    entry = ENTRY.format(transport="kernel", facility=0)
    subprocess.run(process, input=entry, text=True, check=True, capture_output=True)
    result = scan("--directory", tmp_path, "--json")

    assert (0, "") == (result.exit_code, result.stderr)


@pytest.mark.skipif(not REMOTE.exists(), reason="needs Debian's systemd-journal-remote to make a journal file")
def test_a_damaged_journal_file_beside_a_good_one_is_66(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal", reason="needs systemd-python")
    process = [REMOTE, "-o", tmp_path / "system.journal", "-"]
    entry = ENTRY.format(transport="kernel", facility=0)
    subprocess.run(process, input=entry, text=True, capture_output=True, check=True)
    damaged = tmp_path / "system@bad.journal"
    damaged.write_bytes(b"not a journal file" + (tmp_path / "system.journal").read_bytes())
    result = scan("--json", "--directory", tmp_path)
    assert 66 == result.exit_code
    assert 1 == len(objects(result.stdout))
    assert f"{damaged}: damaged, or written by a newer systemd" in result.stderr


FORGED = "Aug 18 08:40:09 jp58 root: TCP: too many orphaned sockets"


def test_lines_that_only_hold_the_kernels_words_are_counted_on_standard_error_and_the_first_is_shown(log: Path) -> None:
    log.write_text(LOG + FORGED.replace("root", "nagios") + "\nAug 20 01:00:00 jp58 app: 3 callbacks suppressed\n")
    result = scan("--json", log)

    assert 4 == len(objects(result.stdout))
    said = "not counted: 2 lines contain the kernel's words but cannot be read as its messages; the first is"
    assert [
        f"sockmem-agent: {said} {log}:5: {FORGED}",
        "sockmem-agent: scan --explain shows why",
    ] == result.stderr.splitlines()


def test_one_such_line_alone_is_still_no_event_but_no_longer_silence(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_text(FORGED + "\n")
    result = scan(path)

    assert (1, "no events found\n") == (result.exit_code, result.stdout)
    assert f"1 line contains the kernel's words but cannot be read as its messages; it is {path}:1: " in result.stderr


def test_explain_shows_each_step_from_envelope_to_event(log: Path) -> None:
    result = scan("--explain", log)
    trees = result.stdout.split(f"{log}:")[1:]

    assert (0, "") == (result.exit_code, result.stderr)
    assert ["2", "3", "4", "5", "6"] == [tree.partition(":")[0] for tree in trees]
    assert [
        f"5: {FORGED}",
        "  |-- yes  text: TCP: too many orphaned sockets",
        "  |-- yes  envelope: Aug 18 08:40:09 jp58",
        "  |-- no   speaker: 'root:' is the tag of another program; the kernel's is 'kernel:'",
        "  `-- no   event: none",
    ] == trees[3].splitlines()
    assert "  `-- yes  event: suppressed" == trees[0].splitlines()[-1]
    assert "no " not in trees[1]


def test_explain_waits_with_a_count_of_suppressed_messages_for_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    lonely = "Aug 17 08:33:10 jp58 kernel: net_ratelimit: 7 callbacks suppressed\n"
    path.write_text(lonely + LOG)
    lines = scan("--explain", path).stdout.splitlines()

    assert [
        "  `-- no   event: it counts only next to one of the other messages, or within 60 seconds of one",
        "  `-- yes  event: suppressed",
        "  `-- yes  event: too_many_orphans",
        "  `-- yes  event: too_many_orphans",
        "  `-- no   event: none",
        "  `-- yes  event: tcp_mem",
    ] == [line for line in lines if line.startswith("  `")]


def test_explain_shows_each_object_of_an_array(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    one = '{"_TRANSPORT":"kernel","MESSAGE":"Out of socket memory"}'
    path.write_text(f"[{one},{one.replace('kernel', 'stdout')},{one}]")
    ends = [line for line in scan("--explain", path).stdout.splitlines() if line.startswith("  `")]

    assert ["yes  event: out_of_socket_memory", "no   event: none", "yes  event: out_of_socket_memory"] == [
        end.removeprefix("  `-- ") for end in ends
    ]


@pytest.mark.parametrize(("text", "status"), [(LOG, 0), (FORGED, 1), ("", 1)])
def test_explain_has_the_exit_status_of_scan(text: str, status: int) -> None:
    for options in (["--explain"], []):
        result = subprocess.run([*SCAN, *options, "-"], input=text, text=True, capture_output=True, check=False)
        assert status == result.returncode


def test_explain_of_an_unreadable_file_is_66(tmp_path: Path) -> None:
    result = scan("--explain", tmp_path / "no-such")
    assert (66, True) == (result.exit_code, "no such file; check the name" in result.stderr)


def test_a_line_that_could_steer_a_terminal_is_shown_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    path.write_text("\x1b[2Japp: TCP: too many orphaned sockets\n")

    assert "\x1b" not in scan("--explain", path).stdout
    assert "\x1b" not in scan(path).stderr


@pytest.mark.parametrize("options", [["--json"], ["--since", "1h"]])
def test_explain_goes_with_no_other_option(log: Path, options: list[str]) -> None:
    result = scan("--explain", *options, log)
    assert (2, True) == (result.exit_code, "--explain reads log files and goes with no other option" in result.stderr)


def test_explain_of_a_journal_is_wrong_usage() -> None:
    assert 2 == scan("--explain", "--journal").exit_code


def test_help_has_an_example() -> None:
    assert "Example: sockmem-agent scan --since 2d /var/log/messages.1 /var/log/messages" in re.sub(
        r"\s+", " ", scan("--help").stdout
    )


def test_a_reader_that_went_away_is_no_traceback(log: Path) -> None:
    many = log.read_text() * 20_000
    log.write_text(many)
    process = subprocess.Popen([*SCAN, "--json", log], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


def test_a_name_that_is_no_text_is_shown_harmlessly(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/mess\xffages\x1b[2J"
    Path(os.fsdecode(path)).write_text(LOG)
    table = subprocess.run([*SCAN, path], capture_output=True, check=True).stdout
    assert b"\x1b" not in table
    lines = subprocess.run([*SCAN, "--json", path], capture_output=True, check=True).stdout
    assert 4 == len(objects(lines.decode()))


def test_events_without_a_date_are_shown_by_uptime(tmp_path: Path) -> None:
    path = tmp_path / "dmesg"
    path.write_text("[  520.897104] TCP: too many orphaned sockets\nOut of socket memory\n")
    output = scan(path).stdout
    assert re.search(r"no date +out of socket memory +1 +unknown +unknown +\S+", output)
    assert re.search(r"no date +too many orphans +1 +up 521 s +up 521 s +\S+", output)
    assert "2 events" in output


def test_every_kind_has_its_words() -> None:
    assert {"out_of_socket_memory", "too_many_orphans", "tcp_mem", "suppressed"} == set(KINDS)


def test_it_starts_without_what_reads_the_configuration_and_the_state_directory() -> None:
    code = "import agent.cli.scan, sys; print(*sorted({'agent.config', 'agent.store'} & set(sys.modules)))"
    assert "" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
