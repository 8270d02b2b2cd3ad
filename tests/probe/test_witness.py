"""The witness against this kernel: real tracing instances, real resets.

A socket killed for want of memory needs a host that runs out of it. The tests take another reason, which every program
may cause (a connection closed with data unread), through the same code. tracefs is mounted in a namespace of its own
where this host has it not; the instances are the kernel's, so they have names of their own. What this kernel does not
have (histograms), or does not do when asked (EIO), is laid out in files.
"""

import os
import pwd
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from harness import Subject, Trace, as_nobody

from agent.core.kernel.tracing import KILL_EVENT, REFUSAL_EVENT, Kills, Refusals, Seen
from agent.core.readings import Gap
from agent.probe import witness
from agent.probe.witness import Instances, Reader, make, remove

REASON = "TCP_ABORT_ON_CLOSE"
FORMATS = Path(__file__).parent.parent / "core/kernel/tracing/6.18"
NOBODYS_GROUP = pwd.getpwnam("nobody").pw_gid
FORBIDDEN = "permission denied: run as root, or let this user read it"
HERE = Instances(Path(), Path("none"))


@pytest.fixture
def them(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instances]:
    """Two instances that are not made yet, of kills for another reason."""
    monkeypatch.setattr(witness, "KILL_REASON", REASON)
    place = tracefs / "instances"
    instances = Instances(place / f"sockmem-test-{os.getpid()}-kills", place / f"sockmem-test-{os.getpid()}-refusals")
    yield instances
    remove(instances)


# PROC_PID_INIT_INO of include/linux/proc_ns.h.
FIRST_PID_NAMESPACE = f"pid:[{0xEFFFFFFC}]"


@pytest.fixture
def subject() -> Iterator[Subject]:
    if str(Path("/proc/self/ns/pid").readlink()) != FIRST_PID_NAMESPACE:
        pytest.skip("the trace has process ids as the host counts them, and this is a container")
    made = Subject()
    yield made
    made.end()


def count(subject: Subject, kills: tuple[Kills, ...]) -> int:
    """Count those of the subject; others on this host may be reset at the same time."""
    return sum(each.count for each in kills if each.pid == subject.pid)


@pytest.fixture
def reader(them: Instances) -> Iterator[Reader]:
    """A reader of two new instances."""
    assert () == make(them)
    opened = Reader(them)
    yield opened
    opened.close()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_resets_are_witnessed_with_the_program_both_ends_and_the_time(reader: Reader, subject: Subject) -> None:
    before = datetime.now(timezone.utc)
    subject.is_reset(3)
    seen = reader.read()

    kills = [each for each in seen.kills if each.pid == subject.pid]
    assert 3 == count(subject, seen.kills)
    assert {("127.0.0.1", "127.0.0.1")} == {(each.address, each.peer) for each in kills}
    assert {subject.port} <= {port for each in kills for port in (each.port, each.peer_port)}
    assert {Path(f"/proc/{subject.pid}/comm").read_text().strip()} == {each.name for each in kills}
    assert seen.since is not None
    assert timedelta(seconds=-0.1) < seen.since - before < timedelta(seconds=60)


def test_a_reset_of_no_moment_that_there_is_is_witnessed_without_one(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    pipe = trace.instances.kills / "trace_pipe"
    trace.kill(2)
    pipe.write_text(pipe.read_text().replace("5505.345442", "9" * 30))
    reader = Reader(trace.instances)
    seen = reader.read()
    reader.close()

    assert ([2], None) == ([each.count for each in seen.kills], seen.since)


def test_where_nothing_happened_nothing_is_seen(reader: Reader, subject: Subject) -> None:
    subject.is_reset(1)
    assert 1 == count(subject, reader.read().kills)

    assert 0 == count(subject, reader.read().kills)
    assert (True, True, ()) == (reader.sees_kills, reader.sees_refusals, reader.gaps())


def test_what_happened_before_the_reader_came_is_dated_by_the_kernel(them: Instances, subject: Subject) -> None:
    make(them)
    subject.is_reset(1)
    came = datetime.now(timezone.utc)
    reader = Reader(them)
    seen = reader.read()
    reader.close()

    assert 1 == count(subject, seen.kills)
    assert seen.since is not None
    assert seen.since < came


def test_what_is_too_much_for_one_reading_is_left_to_the_next(
    them: Instances, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "KILLS_AT_MOST_BYTES", 1)
    make(them)
    reader = Reader(them)
    subject.is_reset(200)
    counts = [count(subject, reader.read().kills) for _ in range(50)]
    reader.close()

    assert 0 < counts[0] < 200
    assert 200 == sum(counts)


def test_overwritten_kills_are_counted_exactly(them: Instances, reader: Reader, subject: Subject) -> None:
    (them.kills / "buffer_size_kb").write_text("1")
    subject.is_reset(1000)
    stats = [path.read_text() for path in them.kills.glob("per_cpu/cpu*/stats")]
    seen = reader.read()

    entries, overrun = (total(stats, name) for name in ("entries", "overrun"))
    assert overrun > 500
    assert (overrun, entries) == (seen.lost, sum(each.count for each in seen.kills))


def total(stats: list[str], name: str) -> int:
    lines = (line.split(": ") for text in stats for line in text.splitlines())
    return sum(int(line[1]) for line in lines if line[0] == name)


def test_second_reader_learns_of_the_first_and_reads_when_that_has_ended(
    them: Instances, reader: Reader, subject: Subject
) -> None:
    second = Reader(them)
    if second.sees_kills:
        second.close()
        pytest.skip("NOT TESTED: this kernel lets two read")
    assert Gap(what=str(them.kills), why="in use: another program reads it, and only one can") in second.gaps()

    reader.close()
    subject.is_reset(2)
    assert 2 == count(subject, second.read().kills)
    second.close()


def test_reader_that_came_first_reads_as_soon_as_there_is_something(them: Instances, subject: Subject) -> None:
    reader = Reader(them)
    assert Seen() == reader.read()
    assert [Gap(what=str(path), why="does not exist") for path in them] == list(reader.gaps())
    assert (False, False) == (reader.sees_kills, reader.sees_refusals)

    make(them)
    reader.read()
    subject.is_reset(2)
    assert 2 == count(subject, reader.read().kills)
    reader.close()


def test_what_happened_before_the_instances_were_made_is_not_counted(them: Instances, subject: Subject) -> None:
    make(them)
    subject.is_reset(2)
    make(them)
    reader = Reader(them)
    assert 0 == count(subject, reader.read().kills)
    reader.close()


# --- making and removing ---------------------------------------------------------------------------------------------


def test_kernel_records_only_the_reason(them: Instances, reader: Reader, subject: Subject) -> None:
    file = them.kills / "events" / KILL_EVENT / "filter"
    expected = file.read_text()
    assert expected.startswith("reason == ")

    file.write_text(expected.replace("==", "!="))
    subject.is_reset(3)
    assert 0 == count(subject, reader.read().kills)


def test_made_twice_there_is_one_of_each_and_what_was_changed_is_set_right(them: Instances) -> None:
    make(them)
    expected = sorted(them.kills.parent.iterdir()), settings(them)
    (them.kills / "events" / KILL_EVENT / "filter").write_text("state == 1")
    (them.kills / "trace_clock").write_text("local")
    (them.kills / "buffer_size_kb").write_text("64")
    (them.refusals / "events" / REFUSAL_EVENT / "enable").write_text("0")
    assert settings(them) != expected[1]

    assert () == make(them)
    assert expected == (sorted(them.kills.parent.iterdir()), settings(them))


def test_instance_that_is_being_read_is_set_right_in_place(them: Instances, reader: Reader, subject: Subject) -> None:
    expected = settings(them)
    for option in ("nocontext-info", "noirq-info", "hex", "latency-format", "stacktrace"):
        (them.kills / "trace_options").write_text(option)
    (them.kills / "tracing_on").write_text("0")
    (them.kills / "events" / KILL_EVENT / "filter").write_text("state == 1")

    assert () == make(them)
    assert expected == settings(them)
    reader.read()
    subject.is_reset(3)
    assert 3 == count(subject, reader.read().kills)


def settings(them: Instances) -> list[str]:
    names = ("buffer_size_kb", "trace_clock", "trace_options", "tracing_on")
    files = [path / name for path in them for name in names]
    events = (them.kills / "events" / KILL_EVENT, them.refusals / "events" / REFUSAL_EVENT)
    return [
        file.read_text()
        for file in files + [path / name for path in events for name in ("filter", "enable", "trigger")]
    ]


@pytest.mark.parametrize(("cpus", "kib"), [(1, 1024), (16, 1024), (256, 64), (8192, 2)])
def test_buffers_are_bounded_over_all_processors(
    them: Instances, monkeypatch: pytest.MonkeyPatch, cpus: int, kib: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    make(them)

    # The kernel rounds up to whole pages, and takes two and a spare one at least.
    assert kib <= int((them.kills / "buffer_size_kb").read_text()) <= kib + 12


def test_only_the_group_may_read_what_the_reader_opens(
    them: Instances, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(them, gid=NOBODYS_GROUP)
    subject.is_reset(2)
    monkeypatch.chdir(them.kills)  # Only root may enter what is above.

    assert f"pid={subject.pid}" in as_nobody(lambda: repr(Reader(HERE).read().kills))
    assert "Permission denied" in as_nobody(lambda: Path("trace").read_text())
    for path in (them.kills, them.kills / "events" / KILL_EVENT, them.kills / "trace_pipe"):
        status = path.stat()
        assert (NOBODYS_GROUP, 0) == (status.st_gid, status.st_mode & 0o027), path


def test_user_outside_the_group_reads_nothing(them: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    make(them, gid=NOBODYS_GROUP - 1)
    monkeypatch.chdir(them.kills)

    assert f"why='{FORBIDDEN}'" in as_nobody(lambda: repr(Reader(HERE).gaps()))


def test_removed_instances_are_gone(them: Instances) -> None:
    make(them)
    assert () == remove(them)
    assert (False, False) == (them.kills.exists(), them.refusals.exists())
    assert () == remove(them)


def test_instance_that_is_being_read_is_switched_off_and_stays(
    them: Instances, reader: Reader, subject: Subject
) -> None:
    assert Gap(what=str(them.kills), why="in use: another program reads it, and only one can") in remove(them)

    subject.is_reset(2)
    assert 0 == count(subject, reader.read().kills)
    assert int((them.kills / "buffer_size_kb").read_text()) < 64
    reader.close()
    assert () == remove(them)
    assert not them.kills.exists()


def test_kernel_that_does_not_say_why_is_a_gap_and_refusals_are_witnessed(
    them: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(them)
    monkeypatch.setattr(witness, "KILL_REASON", "UNHEARD_OF")
    why = "this kernel does not say why it resets a connection; Linux 6.12 and newer do"

    assert (Gap(what=str(them.kills), why=why),) == make(them)
    assert (False, True) == (them.kills.exists(), them.refusals.exists())
    reader = Reader(them)
    assert (False, True) == (reader.sees_kills, reader.sees_refusals)
    reader.close()


def test_without_tracefs_nothing_is_made_and_the_gap_says_how_to_mount_it(tmp_path: Path) -> None:
    them = Instances(tmp_path / "instances/kills", tmp_path / "instances/refusals")
    why = "tracefs is not mounted; run: mount -t tracefs tracefs /sys/kernel/tracing"

    assert [Gap(what=str(path), why=why) for path in them] == list(make(them))
    assert [] == list(tmp_path.iterdir())
    assert () == remove(them)


def test_only_root_makes_and_removes(them: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    make(them)
    monkeypatch.chdir(them.kills.parent)
    names = Instances(*(Path(path.name) for path in them))

    assert 4 == as_nobody(lambda: repr(make(names)) + repr(remove(names))).count(f"why='{FORBIDDEN}'")
    assert them.kills.exists()


# --- laid out in files -----------------------------------------------------------------------------------------------


@pytest.fixture
def laid_out(tmp_path: Path) -> Instances:
    """Two instances as files: what is written to a trace_pipe is read once."""
    them = Instances(tmp_path / "kills", tmp_path / "refusals")
    for path, event in ((them.kills, KILL_EVENT), (them.refusals, REFUSAL_EVENT)):
        (path / "events" / event).mkdir(parents=True)
        (path / "events" / event / "format").write_text((FORMATS / Path(event).name).read_text())
        (path / "trace_pipe").touch()
    return them


KILL = (
    "         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
    "skaddr=00000000fdcd7b81 src=127.0.0.1:42102 dest=127.0.0.1:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
)
REFUSAL = (
    "          <idle>-0       [000] ..s2.  5611.000123: sock_exceed_buf_limit: proto:TCP sysctl_mem=500,800,1000 "
    "allocated=1217 sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 wmem_alloc=1 wmem_queued=0 kind=SK_MEM_RECV\n"
)
HIST = """# event histogram
#
# trigger info: hist:keys=common_pid.execname:vals=hitcount,allocated:sort=hitcount:size=512 if kind == 0 [active]
#

{ common_pid: python3         [     20257] } hitcount:        178  allocated:     216626

Totals:
    Hits: 178
    Entries: 1
    Dropped: 0
"""


def test_refusals_and_losses_come_from_the_ring_where_there_is_no_histogram(laid_out: Instances) -> None:
    reader = Reader(laid_out)
    with (laid_out.refusals / "trace_pipe").open("a") as file:
        file.write(REFUSAL * 2 + "CPU:0 [LOST 7 EVENTS]\n")
    with (laid_out.kills / "trace_pipe").open("a") as file:
        file.write(KILL + "CPU:0 [LOST 3 EVENTS]\n")
    seen = reader.read()
    reader.close()

    assert (
        Refusals("receive", None, None, 2, 1217, (500, 800, 1000)),
        Refusals(None, None, None, 7),
    ) == seen.refusals
    assert ((Kills("python3", 20257, "127.0.0.1", 42102, "127.0.0.1", 8898, 1),), 3) == (seen.kills, seen.lost)


def test_flood_of_refusals_costs_no_more_than_its_share_of_a_reading(laid_out: Instances) -> None:
    (laid_out.refusals / "trace_pipe").write_text(REFUSAL * 5000)
    reader = Reader(laid_out)
    counts = [sum(each.count for each in reader.read().refusals) for _ in range(2)]
    reader.close()

    assert all(200 < number < 400 for number in counts)


def test_histogram_tells_what_is_new_since_the_reader_came(laid_out: Instances) -> None:
    hist = laid_out.refusals / "events" / REFUSAL_EVENT / "hist"
    hist.write_text(HIST)
    reader = Reader(laid_out)
    assert (True, Seen()) == (reader.sees_refusals, reader.read())

    hist.write_text(HIST.replace("178  allocated:     216626", "180  allocated:     219026"))
    assert (Refusals("send", "python3", 20257, 2, 1200),) == reader.read().refusals
    assert () == reader.read().refusals
    reader.close()


def test_histogram_without_a_trigger_is_none(laid_out: Instances) -> None:
    (laid_out.refusals / "events" / REFUSAL_EVENT / "hist").touch()
    (laid_out.refusals / "trace_pipe").write_text(REFUSAL)
    reader = Reader(laid_out)

    assert 1 == sum(each.count for each in reader.read().refusals)
    reader.close()


def test_histogram_made_anew_under_the_reader_invents_nothing(laid_out: Instances) -> None:
    hist = laid_out.refusals / "events" / REFUSAL_EVENT / "hist"
    hist.write_text(HIST)
    (laid_out.refusals / "trace_pipe").unlink()
    reader = Reader(laid_out)
    hist.unlink()
    assert ((), False) == (reader.read().refusals, reader.sees_refusals)
    assert "does not exist" == reader.gaps()[0].why

    hist.write_text(HIST.replace("178  allocated:     216626", "  5  allocated:       6000"))
    assert ((), True) == (reader.read().refusals, reader.sees_refusals)
    reader.close()


def test_pipe_that_fails_is_a_gap_and_is_opened_again(laid_out: Instances) -> None:
    pipe = laid_out.kills / "trace_pipe"
    pipe.unlink()
    pipe.symlink_to("/proc/self/mem")  # Its first page cannot be read: EIO.
    reader = Reader(laid_out)
    assert Seen() == reader.read()
    assert (False, (Gap(what=str(laid_out.kills), why="failed: Input/output error"),)) == (
        reader.sees_kills,
        reader.gaps(),
    )

    pipe.unlink()
    pipe.write_text(KILL)
    assert 1 == len(reader.read().kills)
    assert (True, ()) == (reader.sees_kills, reader.gaps())
    reader.close()


def test_format_that_prints_no_addresses_is_a_gap(laid_out: Instances) -> None:
    form = laid_out.kills / "events" / KILL_EVENT / "format"
    form.write_text(form.read_text().replace("src=%pISpc ", ""))
    reader = Reader(laid_out)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        reader.read()

    assert (False, "prints no src") == (reader.sees_kills, reader.gaps()[0].why.partition(":")[0])
    assert opened == len(list(Path("/proc/self/fd").iterdir()))
    reader.close()
