"""The kernel's tracepoints in text.

tests/core/kernel/tracing/ has the format files of the kernels that it names, read in booted machines. What is not read
from a kernel is marked as constructed.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.kernel.procfs import ParseError
from agent.core.kernel.tracing import (
    KILL_REASON,
    ROWS_AT_MOST,
    Kills,
    KillText,
    Refusals,
    hist_triggers,
    kill_pattern,
    kill_reason,
    parse_format,
    parse_hist,
    parse_kills,
    parse_lost,
    parse_refusals,
    refusal_pattern,
    risen,
)

ROOT = Path(__file__).parent.parent.parent.parent
FORMATS = Path(__file__).parent / "tracing"
KERNELS = sorted(path.name for path in FORMATS.iterdir())
RESET_TEXT = (FORMATS / "6.18/tcp_send_reset").read_text()
REFUSED_TEXT = (FORMATS / "6.18/sock_exceed_buf_limit").read_text()
RESET, REFUSED = parse_format(RESET_TEXT), parse_format(REFUSED_TEXT)
KILLED, STARVED = kill_pattern(RESET, KILL_REASON), refusal_pattern(REFUSED)
TASK_COMM_LEN = 15
KILL = (
    b"         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
    b"skaddr=00000000fdcd7b81 src=127.0.0.1:42102 dest=127.0.0.1:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
)
MARK = b"CPU:1 [LOST 12 EVENTS]\n"
REFUSAL = (
    b"         python3-20257   [000] .....  5611.000123: sock_exceed_buf_limit: proto:TCP sysctl_mem=500,800,1000 "
    b"allocated=1217 sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 wmem_alloc=1 wmem_queued=0 kind=SK_MEM_SEND\n"
)
ROW = b"{ common_pid: python3         [     20257] } hitcount:        178  allocated:     216626\n"
HIST = (
    b"# event histogram\n#\n# trigger info: hist:keys=common_pid.execname:vals=hitcount,allocated:sort=hitcount"
    b':size=512 if name ~ "TCP*" && kind == 0 && !(common_flags & 24) [active]\n#\n\n'
    + ROW
    + b"\nTotals:\n    Hits: 178\n"
    b"    Entries: 1\n    Dropped: 3\n\n\n"
    b"# event histogram\n#\n# trigger info: hist:keys=kind:vals=hitcount,allocated:sort=hitcount:size=128"
    b' if name ~ "TCP*" && (kind != 0 || common_flags & 24) [active]\n#\n\n'
    b"{ kind:          1 } hitcount:         10  allocated:      12170\n\nTotals:\n    Hits: 10\n"
    b"    Entries: 1\n    Dropped: 0\n"
)
EXPECTED = Kills("python3", 20257, "127.0.0.1", 42102, "127.0.0.1", 8898, 1)


def named(line: bytes, comm: bytes) -> bytes:
    """Give the process of a line another name, padded as the kernel pads it."""
    return b"%16s" % comm + line[16:]


def test_formats_are_of_kernels_of_each_kind() -> None:
    assert {"5.10", "6.1", "6.12", "6.18", "7.3"} <= set(KERNELS)


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_reason_has_a_number_from_612_on(kernel: str) -> None:
    form = parse_format((FORMATS / kernel / "tcp_send_reset").read_text())
    tells = tuple(map(int, kernel.split("."))) >= (6, 12)

    assert tells == ("reason" in form.fields)
    assert tells == (kill_reason(form, KILL_REASON) is not None)
    if tells:
        assert 1 == len(parse_kills(kill_pattern(form, KILL_REASON), KILL).kills)


@pytest.mark.parametrize("kernel", KERNELS)
def test_refusals_are_read_on_every_kernel(kernel: str) -> None:
    form = parse_format((FORMATS / kernel / "sock_exceed_buf_limit").read_text())

    assert {"SK_MEM_SEND": 0, "SK_MEM_RECV": 1} == form.symbols["kind"]
    assert (Refusals("send", "python3", 20257, 1, 1217, (500, 800, 1000)),) == parse_refusals(
        refusal_pattern(form), REFUSAL
    )


@pytest.mark.parametrize(
    ("table", "number"),
    [
        ('{ 0, "NOT_SPECIFIED" }, { 13, "TCP_ABORT_ON_MEMORY" }', 13),
        ('{ 0, "NOT_SPECIFIED" }, { 0x2f, "TCP_ABORT_ON_MEMORY" }', 47),
        ('{ SK_RST_A, "A" }, { SK_RST_B, "B" }, { SK_RST_TCP_ABORT_ON_MEMORY, "TCP_ABORT_ON_MEMORY" }', 2),
        ('{ 7, "A" }, { SK_RST_REASON_TCP_ABORT_ON_MEMORY, "TCP_ABORT_ON_MEMORY" }', 8),
        ('{ 013, "TCP_ABORT_ON_MEMORY" }', 13),
        ('{ 13, "TCP_ABORT_ON_DATA" }', None),
        ("", None),
    ],
)
def test_number_of_the_reason_is_this_kernels_own(table: str, number: int | None) -> None:
    begins = RESET_TEXT.index("__print_symbolic(REC->reason, ") + len("__print_symbolic(REC->reason, ")
    constructed = f"{RESET_TEXT[:begins]}{table})\n"

    assert number == kill_reason(parse_format(constructed), KILL_REASON)


def test_number_is_not_taken_from_the_table_of_another_field() -> None:
    constructed = RESET_TEXT.replace("REC->reason, {", "REC->state, {")

    assert kill_reason(parse_format(constructed), KILL_REASON) is None


def test_lines_are_read_as_the_format_prints_them() -> None:
    constructed = RESET_TEXT.replace(
        '"skbaddr=%p skaddr=%p src=%pISpc dest=%pISpc state=%s reason=%s"',
        '"family=%s reason=%s dest=%pISpc mark=%d src=%pISpc"',
    )
    line = KILL[: KILL.index(b"skbaddr")] + (
        b"family=AF_INET reason=TCP_ABORT_ON_MEMORY dest=127.0.0.1:8898 mark=7 src=127.0.0.1:42102\n"
    )

    assert (EXPECTED,) == parse_kills(kill_pattern(parse_format(constructed), KILL_REASON), line).kills
    assert () == parse_kills(KILLED, line).kills


@pytest.mark.parametrize("key", ["src=%pISpc ", "dest=%pISpc ", " reason=%s"])
def test_format_that_prints_less_is_refused(key: str) -> None:
    with pytest.raises(ParseError, match=f"prints no {key.strip().partition('=')[0]}"):
        kill_pattern(parse_format(RESET_TEXT.replace(key, "")), KILL_REASON)


def test_refusals_without_a_kind_have_none() -> None:
    constructed = REFUSED_TEXT.replace("\tfield:int kind;", "\tfield:int other;").replace(" kind=%s", "")
    form = parse_format(constructed)
    line = REFUSAL.replace(b" kind=SK_MEM_SEND", b"")

    assert (Refusals(None, None, None, 1, 1217, (500, 800, 1000)),) == parse_refusals(refusal_pattern(form), line)
    assert ('hist:keys=name:vals=allocated:size=128 if name ~ "TCP*"',) == hist_triggers(form)


def test_any_bytes_are_a_format_or_a_parse_error() -> None:
    dice = random.Random(7)
    for _ in range(300):
        text = list(RESET_TEXT)
        for _ in range(dice.randrange(40)):
            text[dice.randrange(len(text))] = dice.choice('\n\t"{}(),;:%=\0é\u0664 09aZ')
        try:
            form = parse_format("".join(text))
            kill_reason(form, KILL_REASON)
            kill_pattern(form, KILL_REASON)
        except ParseError:
            continue


# --- kills -----------------------------------------------------------------------------------------------------------


def test_kill_has_the_program_both_ends_and_its_time() -> None:
    assert KillText((EXPECTED,), 12, 5505.345442) == parse_kills(KILLED, MARK + KILL)


def test_nothing_is_read_from_nothing() -> None:
    assert KillText((), 0, None) == parse_kills(KILLED, b"")


@pytest.mark.parametrize(
    "comm",
    [
        b"a b",
        b"a-b-1",
        b"x:",
        b"(sd-pam)",
        b"kworker/0:1-ev",
        b"[001] b..1.",
        b"x-1 [000] b..1.",
        b"\xff\xfe",
        b"-",
        b"\t",
    ],
)
def test_name_of_the_program_may_be_anything(comm: bytes) -> None:
    expected = comm.decode(errors="replace").strip() or None
    [kills] = parse_kills(KILLED, named(KILL, comm)).kills

    assert (expected, 20257, 1) == (kills.name, kills.pid, kills.count)


def test_name_that_the_kernel_forgot_is_none() -> None:
    [kills] = parse_kills(KILLED, named(KILL, b"<...>")).kills

    assert (None, 20257) == (kills.name, kills.pid)


@pytest.mark.parametrize("flags", [b"b.s1.", b"..s2.", b"d.h1.", b"dNH2.", b"..Z..", b"..z..", b"b.s1", b"..s."])
def test_kill_in_an_interrupt_names_no_one(flags: bytes) -> None:
    [kills] = parse_kills(KILLED, KILL.replace(b"b..1.", flags)).kills

    assert (None, None, 42102) == (kills.name, kills.pid, kills.port)


@pytest.mark.parametrize("flags", [b"b..1.", b".....", b"....", b"dN.2.", b"bn.11", b"D..1."])
def test_kill_in_a_program_names_it_with_interrupts_off_or_not(flags: bytes) -> None:
    assert (EXPECTED,) == parse_kills(KILLED, KILL.replace(b"b..1.", flags)).kills


def test_process_of_a_thread_may_be_printed() -> None:
    for tgid in (b"(  20257)", b"(-------)"):
        assert (EXPECTED,) == parse_kills(KILLED, KILL.replace(b" [001]", tgid + b" [001]")).kills


@pytest.mark.parametrize(
    ("printed", "address"),
    [
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[::1]", "::1"),
        (b"[::ffff:192.0.2.7]", "192.0.2.7"),
        (b"192.0.2.7", "192.0.2.7"),
    ],
)
def test_addresses_are_of_both_kinds_and_a_mapped_one_is_what_it_maps(printed: bytes, address: str) -> None:
    [kills] = parse_kills(KILLED, KILL.replace(b"src=127.0.0.1", b"src=" + printed)).kills

    assert (address, 42102, "127.0.0.1") == (kills.address, kills.port, kills.peer)


def test_kill_without_an_address_is_a_kill() -> None:
    [kills] = parse_kills(KILLED, KILL.replace(b"src=127.0.0.1:42102", b"src=(einval)")).kills

    assert (None, None, "127.0.0.1", 8898, 1) == (kills.address, kills.port, kills.peer, kills.peer_port, kills.count)


@pytest.mark.parametrize(
    "other",
    [
        KILL.replace(b"MEMORY", b"CLOSE"),
        KILL.replace(b"tcp_send_reset", b"tcp_receive_reset"),
        KILL.replace(b"reason=TCP_ABORT_ON_MEMORY", b""),
        KILL.replace(b"MEMORY\n", b"MEMORY and more\n"),
        REFUSAL,
        b"\n",
    ],
)
def test_other_lines_are_no_kills(other: bytes) -> None:
    assert (EXPECTED,) == parse_kills(KILLED, other + KILL + other).kills


def test_of_kills_that_differ_the_port_that_repeats_is_kept() -> None:
    incoming = KILL.replace(b"42102", b"443")
    text = b"".join(incoming.replace(b":8898", b":%d" % port) for port in (50001, 50002, 50003))
    text += b"".join(KILL.replace(b":42102", b":%d" % port) for port in (50004, 50005))

    assert (
        Kills("python3", 20257, "127.0.0.1", 443, "127.0.0.1", None, 3),
        Kills("python3", 20257, "127.0.0.1", None, "127.0.0.1", 8898, 2),
    ) == parse_kills(KILLED, text).kills


def crowd(kills: int, *, pids: int = 1, ports: int = 1, peers: int = 62500) -> bytes:
    """Kills of this many processes, ports and peers, each of its own network and with a port of its own."""
    lines = (
        KILL.replace(b"20257", b"%05d" % (10000 + number % pids))
        .replace(b":42102", b":%d" % (443 + number % ports))
        .replace(
            b"dest=127.0.0.1:8898", b"dest=10.%d.%d.1:%d" % (number % peers // 250, number % peers % 250, 1024 + number)
        )
        for number in range(kills)
    )
    return b"".join(lines)


def test_crowd_of_peers_is_counted_without_them() -> None:
    assert (Kills("python3", 10000, "127.0.0.1", 443, None, None, 5000),) == parse_kills(KILLED, crowd(5000)).kills


def test_crowd_of_processes_is_counted_by_name_and_port() -> None:
    text = crowd(5000, pids=1000)

    assert (Kills("python3", None, "127.0.0.1", 443, None, None, 5000),) == parse_kills(KILLED, text).kills


def test_crowd_of_processes_keeps_its_few_peers() -> None:
    kills = parse_kills(KILLED, crowd(5000, pids=1000, peers=10)).kills

    assert [("python3", None, 443, 500)] * 10 == [(each.name, each.pid, each.port, each.count) for each in kills]
    assert {f"10.0.{number}.1" for number in range(10)} == {each.peer for each in kills}


def test_crowd_of_pairs_is_counted_by_name_and_port() -> None:
    text = crowd(5000, pids=71, peers=73)

    assert (Kills("python3", None, "127.0.0.1", 443, None, None, 5000),) == parse_kills(KILLED, text).kills


def test_crowd_that_has_nothing_in_common_is_counted() -> None:
    kills = parse_kills(KILLED, crowd(5000, pids=1000, ports=1000)).kills

    assert (ROWS_AT_MOST + 1, 5000) == (len(kills), sum(each.count for each in kills))
    assert Kills(None, None, None, None, None, None, 5000 - ROWS_AT_MOST * 5) == kills[-1]


@pytest.mark.parametrize(
    ("mark", "lost"),
    [
        (b"CPU:0 [LOST 1 EVENTS]\n", 1),
        (b"CPU:11 [LOST 4294967297 EVENTS]\nCPU:3 [LOST 2 EVENTS]\n", 4294967299),
        (b"CPU:1 [LOST EVENTS]\n", 1),
        (b" CPU:1 [LOST 2 EVENTS]\n", 0),
        (b"CPU:1 [LOST 2 EVENTS] \n", 0),
    ],
)
def test_lost_events_are_counted(mark: bytes, lost: int) -> None:
    assert lost == parse_lost(KILL + mark + KILL)


# --- what any user can write: 15 bytes --------------------------------------------------------------------------------


def forgeries(of: bytes) -> list[bytes]:
    """Return every piece of a text that fits a process's name, alone and on a line of its own."""
    pieces = {of[at : at + size] for size in (13, 14, 15) for at in range(len(of) - size + 1)}
    return sorted(pieces | {b"\n" + piece[:14] for piece in pieces} | {b"\n" + piece[:13] + b"\n" for piece in pieces})


def test_no_name_of_a_process_forges_a_kill_a_loss_or_another_process() -> None:
    for comm in forgeries(KILL + MARK):
        killed = parse_kills(KILLED, named(KILL, comm))
        [kills] = killed.kills
        assert (20257, "127.0.0.1", 42102, 1, 0) == (kills.pid, kills.address, kills.port, kills.count, killed.lost), (
            comm
        )
        assert 0 == parse_lost(named(KILL.replace(b"MEMORY", b"CLOSE"), comm)), comm


def test_no_name_of_a_process_forges_a_refusal() -> None:
    for comm in forgeries(REFUSAL + MARK):
        [refusals] = parse_refusals(STARVED, named(REFUSAL, comm))
        assert ("send", 20257, 1, 1217) == (refusals.kind, refusals.pid, refusals.count, refusals.allocated), comm


def test_no_name_of_a_process_forges_a_row_of_a_histogram() -> None:
    for comm in forgeries(HIST):
        row = b"{ common_pid: %-16s[     20257] } hitcount:        178  allocated:     216626\n" % comm
        counted = {
            (each.kind, each.pid, each.count, each.allocated)
            for each in risen({}, parse_hist(REFUSED, HIST.replace(ROW, row)))
        }
        assert {("send", 20257, 178, 1217), ("receive", None, 10, 1217), (None, None, 3, None)} == counted, comm


def test_any_bytes_are_read_without_a_surprise() -> None:
    dice = random.Random(7)
    for _ in range(300):
        text = bytearray(MARK + KILL + REFUSAL + HIST)
        for _ in range(dice.randrange(60)):
            text[dice.randrange(len(text))] = dice.choice(b"\n\t {}[]():=,-.0123456789ax\0\xff")
        parse_kills(KILLED, bytes(text))
        parse_refusals(STARVED, bytes(text))
        risen({}, parse_hist(REFUSED, bytes(text)))
        parse_kills(KILLED, dice.randbytes(2000))


HOSTILE = """
from agent.core.kernel.tracing import *

form, refused = (parse_format(open(path).read()) for path in sys.argv[1:3])
patterns = kill_pattern(form, KILL_REASON), refusal_pattern(refused)
head = b"x-1 [000] ..... 1.0: tcp_send_reset: skbaddr="
pieces = (b"-1", b" ", b"-1 ", b"1", b"-", b"[", b"{ ", b"}", b"1.", b": ", b"src=", b"tcp_send_reset: ", head, b"\\n")
for piece in (*pieces, b"CPU:1 [LOST ", b"} hitcount: 1", b"# event histogram\\n", b"    Dropped: 1"):
    text = piece * (1000000 // len(piece))
    for sample in (text, head + text, head + b"1 skaddr=1 src=" + text, b"[LOST " + text):
        parse_kills(patterns[0], sample)
        parse_refusals(patterns[1], sample)
        parse_hist(refused, b"# event histogram\\n" + sample)
for piece in ("{ 1, ", "__print_symbolic(REC->reason, {", "\\tfield:", "a", " ", "%", "src=", '{ 1, "A" }, '):
    text = piece * (200000 // len(piece))
    for printed in (f'"a=%d {text}", {text}', f'"a", __print_symbolic(REC->reason, {text})'):
        try:
            kill_pattern(parse_format(f"name: x\\n\\tfield:{text};\\nprint fmt: {printed}"), KILL_REASON)
        except ParseError:
            pass
"""


def test_time_grows_with_the_text_and_not_with_its_square() -> None:
    files = [FORMATS / "6.18/tcp_send_reset", FORMATS / "6.18/sock_exceed_buf_limit"]
    command = [sys.executable, "-c", f"import sys\n{HOSTILE}", *files]

    # Seconds if it is linear, and hours otherwise.
    assert 0 == subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refusal_of_a_writer_names_it() -> None:
    assert (Refusals("send", "python3", 20257, 1, 1217, (500, 800, 1000)),) == parse_refusals(STARVED, REFUSAL)


def test_refusal_in_an_interrupt_and_of_what_is_received_name_no_one() -> None:
    received = REFUSAL.replace(b"SEND", b"RECV")
    text = REFUSAL.replace(b".....", b"..s2.") + received + received.replace(b".....", b"..s2.")

    assert {("receive", None, None, 2), ("send", None, None, 1)} == {
        (each.kind, each.name, each.pid, each.count) for each in parse_refusals(STARVED, text)
    }


def test_refusals_have_the_mean_of_the_sizes_and_the_lost_ones_are_counted() -> None:
    text = REFUSAL + REFUSAL.replace(b"1217", b"1219") + MARK

    assert (
        Refusals("send", "python3", 20257, 2, 1218, (500, 800, 1000)),
        Refusals(None, None, None, 12),
    ) == parse_refusals(STARVED, text)


def test_histograms_count_by_writer_by_kind_and_what_there_was_no_room_for() -> None:
    assert (
        Refusals("send", "python3", 20257, 178, 1217),
        Refusals("receive", None, None, 10, 1217),
        Refusals(None, None, None, 3),
    ) == risen({}, parse_hist(REFUSED, HIST))


def test_of_a_histogram_only_what_is_new_is_counted() -> None:
    before = parse_hist(REFUSED, HIST)
    now = parse_hist(REFUSED, HIST.replace(b"178  allocated:     216626", b"180  allocated:     219026"))

    assert () == risen(before, before)
    assert (Refusals("send", "python3", 20257, 2, 1200),) == risen(before, now)


def test_hits_that_came_while_the_rows_were_printed_are_counted_with_their_rows() -> None:
    assert 191 == sum(each.count for each in risen({}, parse_hist(REFUSED, HIST.replace(b"Hits: 178", b"Hits: 190"))))


def test_histogram_that_fell_was_made_anew() -> None:
    now = parse_hist(REFUSED, HIST.replace(b"178  allocated:     216626", b"  5  allocated:       6000"))

    assert Refusals("send", "python3", 20257, 5, 1200) in risen(parse_hist(REFUSED, HIST), now)


def test_kernel_counts_writers_apart_from_interrupts() -> None:
    assert (
        'hist:keys=common_pid.execname:vals=allocated:size=512 if name ~ "TCP*" && kind == 0 && !(common_flags & 24)',
        'hist:keys=kind:vals=allocated:size=128 if name ~ "TCP*" && (kind != 0 || common_flags & 24)',
    ) == hist_triggers(REFUSED)
