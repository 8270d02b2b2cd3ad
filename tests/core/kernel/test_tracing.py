"""The kernel's tracepoints in text; tests/core/kernel/tracing/ has their format files."""

from pathlib import Path

from agent.core.kernel.tracing import (
    KILL_REASON,
    Kills,
    KillText,
    Refusals,
    kill_pattern,
    kill_reason,
    parse_format,
    parse_hist,
    parse_kills,
    parse_refusals,
    refusal_pattern,
    risen,
)

FORMATS = Path(__file__).parent / "tracing"
RESET = parse_format((FORMATS / "6.18/tcp_send_reset").read_text())
REFUSED = parse_format((FORMATS / "6.18/sock_exceed_buf_limit").read_text())
KILL = (
    b"         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
    b"skaddr=00000000fdcd7b81 src=127.0.0.1:42102 dest=127.0.0.1:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
)
REFUSAL = (
    b"          <idle>-0       [000] ..s2.  5611.000123: sock_exceed_buf_limit: proto:TCP sysctl_mem=500,800,1000 "
    b"allocated=1217 sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 wmem_alloc=1 wmem_queued=0 kind=SK_MEM_RECV\n"
)
HIST = b"""# event histogram
#
# trigger info: hist:keys=common_pid.execname:vals=hitcount,allocated:sort=hitcount:size=512 if kind == 0 [active]
#

{ common_pid: python3         [     20257] } hitcount:        178  allocated:     216626

Totals:
    Hits: 178
    Entries: 1
    Dropped: 3


# event histogram
#
# trigger info: hist:keys=kind:vals=hitcount,allocated:sort=hitcount:size=128 if kind == 1 [active]
#

{ kind:          1 } hitcount:         10  allocated:      12170

Totals:
    Hits: 10
    Entries: 1
    Dropped: 0
"""


def test_the_number_of_the_reason_is_this_kernels() -> None:
    assert kill_reason(RESET, KILL_REASON) == 13
    assert kill_reason(RESET, "TCP_ABORT_ON_CLOSE") == 11
    assert kill_reason(RESET, "NEVER_HEARD_OF") is None


def test_a_kill_has_the_program_that_closed_and_both_ends() -> None:
    expected = KillText((Kills("python3", 20257, "127.0.0.1", 42102, "127.0.0.1", 8898, 1),), 12, 5505.345442)
    assert expected == parse_kills(kill_pattern(RESET, KILL_REASON), b"CPU:1 [LOST 12 EVENTS]\n" + KILL)


def test_kills_are_alike_but_for_the_port_that_does_not_repeat() -> None:
    text = KILL + KILL.replace(b":42102", b":42103")
    expected = (Kills("python3", 20257, "127.0.0.1", None, "127.0.0.1", 8898, 2),)
    assert expected == parse_kills(kill_pattern(RESET, KILL_REASON), text).kills


def test_a_refusal_in_an_interrupt_names_no_one() -> None:
    expected = (Refusals("receive", None, None, 1, 1217, (500, 800, 1000)),)
    assert expected == parse_refusals(refusal_pattern(REFUSED), REFUSAL)


def test_a_histogram_counts_by_writer_and_by_kind_and_what_it_had_no_room_for() -> None:
    expected = (
        Refusals("send", "python3", 20257, 178, 1217),
        Refusals("receive", None, None, 10, 1217),
        Refusals(None, None, None, 3),
    )
    assert expected == risen({}, parse_hist(REFUSED, HIST))
