"""/dev/kmsg: the real one where it can be read, and a socket that keeps record boundaries as the device does."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.core.cursor import Cursor, KmsgCursor
from agent.core.model import LogRecord
from agent.sources import kmsg as kmsg_module
from agent.sources.kmsg import BATCH, KmsgSource

BOOT = "11111111-2222-3333-4444-555555555555"
ORPHANS = "TCP: too many orphaned sockets"
BOOTED_AT = datetime.fromtimestamp(1_790_000_000, timezone.utc)


class Ring:
    """What the kernel does behind /dev/kmsg: each open file reads from the oldest record, one record a read().

    The records come through a real socketpair, so that poll(), EAGAIN and record boundaries are the kernel's own;
    ``errors`` are raised by the reads to come, before any record.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[bytes] = []
        self.errors: list[int] = []
        self.writers: list[socket.socket] = []
        self.read = kmsg_module.read_record
        self.lag_seconds = 0
        self.now = BOOTED_AT + timedelta(hours=1)
        monkeypatch.setattr(kmsg_module, "lag_seconds", lambda: self.lag_seconds)
        monkeypatch.setattr(kmsg_module, "open_device", self.open_device)
        monkeypatch.setattr(kmsg_module, "read_record", self.read_record)

    def open_device(self, path: str) -> int:
        assert "/dev/kmsg" == path
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        self.writers.append(theirs)
        for record in self.records:
            theirs.send(record)
        return ours.detach()

    def read_record(self, fd: int) -> bytes:
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, os.strerror(code))
        return self.read(fd)

    def say(self, sequence: int, text: str = ORPHANS, priority: int = 6) -> None:
        record = f"{priority},{sequence},{sequence * 1_000_000 + 250_000},-;{text}\n".encode()
        self.records.append(record)
        for writer in self.writers:
            writer.send(record)

    def overwrite(self, count: int) -> None:
        """The oldest records make room; only files opened later notice here."""
        del self.records[:count]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    ring = Ring(monkeypatch)
    yield ring
    for writer in ring.writers:
        writer.close()


@pytest.fixture
def proc_root(tmp_path: Path) -> Path:
    kernel = tmp_path / "sys" / "kernel"
    (kernel / "random").mkdir(parents=True)
    (kernel / "random" / "boot_id").write_text(f"{BOOT}\n")
    (kernel / "hostname").write_text("web1\n")
    (tmp_path / "stat").write_text("cpu  1 2 3 4\nbtime 1790000000\nprocesses 7\n")
    return tmp_path


Open = Callable[..., KmsgSource]


@pytest.fixture
def opened(ring: Ring, proc_root: Path) -> Iterator[Open]:
    sources: list[KmsgSource] = []

    def open_source(start: str = "beginning", cursor: Cursor | None = None) -> KmsgSource:
        sources.append(KmsgSource(proc_root=proc_root, start=start, cursor=cursor, now=lambda: ring.now))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


def texts(source: KmsgSource) -> list[str]:
    return [record.text for record in source.read()]


def whys(source: KmsgSource) -> list[str]:
    return [gap.why for gap in source.gaps()]


def at_sequence(sequence: int, boot_id: str = BOOT) -> Cursor:
    return Cursor(kmsg=KmsgCursor(boot_id=boot_id, sequence=sequence))


def test_a_record_is_handed_over_with_its_stamp_on_the_boot_time(ring: Ring, opened: Open) -> None:
    ring.say(7, f"{ORPHANS}\n SUBSYSTEM=net\n DEVICE=+x:y")

    assert list(opened().read()) == [
        LogRecord(
            text=ORPHANS,
            line=f"6,7,7250000,-;{ORPHANS}",
            source=f"kmsg:{BOOT}:7",
            provenance="kernel",
            ordinal=1,
            at=datetime(2026, 9, 21, 14, 13, 27, 250_000, tzinfo=timezone.utc),
            uptime=7.25,
            host="web1",
            cursor=at_sequence(7),
        )
    ]


@pytest.mark.parametrize("priority", [8 + 6, 3 * 8 + 6, 23 * 8])
def test_what_user_space_wrote_is_never_yielded_but_passed(ring: Ring, opened: Open, priority: int) -> None:
    ring.say(1, priority=priority)
    source = opened()

    assert [] == texts(source)
    assert source.position() == at_sequence(1)


def test_start_now_is_silent_about_the_ring_and_knows_its_end(ring: Ring, opened: Open) -> None:
    for sequence in range(5):
        ring.say(sequence, "old")
    source = opened("now")
    assert source.position() == at_sequence(4)
    ring.say(5, "new")

    assert ["new"] == texts(source)
    assert () == source.gaps()


def test_start_beginning_reads_the_ring(ring: Ring, opened: Open) -> None:
    ring.say(900, "oldest left")
    ring.say(901, "newest")
    source = opened("beginning")

    assert ["oldest left", "newest"] == texts(source)
    assert () == source.gaps()


def test_a_restart_in_the_same_boot_goes_on_behind_each_record(ring: Ring, opened: Open) -> None:
    for sequence in range(4):
        ring.say(sequence, str(sequence))
    for record in list(opened().read()):
        source = opened("now", record.cursor)
        assert [str(n) for n in range(record.ordinal, 4)] == texts(source)
        assert () == source.gaps()


def test_records_overwritten_while_the_agent_was_away_are_counted(ring: Ring, opened: Open) -> None:
    for sequence in range(10):
        ring.say(sequence, str(sequence))
    ring.overwrite(8)
    source = opened("now", at_sequence(2))

    assert ["8", "9"] == texts(source)
    assert ["5 kernel records were overwritten before they could be read"] == whys(source)
    assert [] == whys(source)


def test_after_another_boot_the_whole_ring_is_read_and_the_gap_told(ring: Ring, opened: Open) -> None:
    ring.say(0, "first of this boot")
    source = opened("now", at_sequence(77, boot_id="another"))
    assert source.position() == at_sequence(-1)

    assert ["first of this boot"] == texts(source)
    assert [True] == ["rebooted" in why for why in whys(source)]


def test_after_another_boot_a_restart_before_the_first_read_loses_nothing(ring: Ring, opened: Open) -> None:
    ring.say(0, "before the agent")
    cursor = opened("now", at_sequence(77, boot_id="another")).position()
    ring.say(1, "while it was away")
    again = opened("now", cursor)

    assert ["before the agent", "while it was away"] == texts(again)
    assert [] == whys(again), "the gap was told when it was seen"


def test_after_another_boot_what_its_ring_lost_is_counted(ring: Ring, opened: Open) -> None:
    ring.say(30)
    source = opened("now", at_sequence(77, boot_id="another"))
    texts(source)

    assert ["30 kernel records were overwritten before they could be read"] == whys(source)[1:]


def test_epipe_is_read_past_and_the_missing_records_counted(ring: Ring, opened: Open) -> None:
    ring.say(1, "1")
    source = opened()
    seen = texts(source)
    ring.say(12, "12")
    ring.errors = [errno.EPIPE]

    assert ["1", "12"] == seen + texts(source)
    assert ["10 kernel records were overwritten before they could be read"] == whys(source)


def test_epipe_before_the_first_record_is_told_without_a_number(ring: Ring, opened: Open) -> None:
    ring.say(12)
    ring.errors = [errno.EPIPE]
    source = opened()

    assert [ORPHANS] == texts(source)
    assert ["an unknown number of kernel records were overwritten before they could be read"] == whys(source)


def test_a_record_that_cannot_be_read_is_a_gap_and_the_next_is_read(ring: Ring, opened: Open) -> None:
    ring.say(1)
    ring.errors = [errno.EINVAL]
    source = opened()

    assert [ORPHANS] == texts(source)
    assert ["a record is lost: it could not be read (Invalid argument)"] == whys(source)


def test_a_device_that_always_refuses_ends_the_batch_and_does_not_spin(
    ring: Ring, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(kmsg_module.time, "sleep", naps.append)
    ring.say(1)
    ring.errors = [errno.EINVAL] * kmsg_module.REFUSALS_AT_MOST
    source = opened()
    assert [] == texts(source)
    source.wait(0.5)

    assert [0.5] == naps
    assert "cannot be read on this host" in whys(source)[-1]
    assert "cannot be read on this host" in source.troubles()[0]
    assert [ORPHANS] == texts(source), "a device that comes round is read again"
    assert [] == source.troubles()


def test_what_is_no_record_is_a_gap_that_quotes_it(ring: Ring, opened: Open) -> None:
    source = opened()
    ring.writers[0].send(b"\xff\xfe what is this\n")
    ring.say(1)

    assert [ORPHANS] == texts(source)
    (why,) = whys(source)
    assert "what is this" in why


def test_a_batch_is_bounded(ring: Ring, opened: Open) -> None:
    source = opened()
    for sequence in range(100):
        ring.say(sequence)
    bounded = pytest.MonkeyPatch()
    with bounded.context() as patch:
        patch.setattr(kmsg_module, "BATCH", 60)
        first = texts(source)

    assert (60, 40) == (len(first), len(texts(source)))
    assert BATCH > 0


def test_wait_returns_when_there_is_a_record_and_takes_a_second_at_most(ring: Ring, opened: Open) -> None:
    source = opened()
    waits: list[int] = []
    real, source._poll = source._poll, type("Spy", (), {"poll": lambda _, ms: waits.append(ms)})()
    source.wait(30.0)
    source._poll = real
    ring.say(1)
    source.wait(1.0)

    assert [1000] == waits
    assert [ORPHANS] == texts(source)


def test_a_proc_without_boot_id_and_stat_leaves_time_and_place_open(ring: Ring, tmp_path: Path) -> None:
    ring.say(3)
    source = KmsgSource(proc_root=tmp_path / "none", start="beginning")

    (record,) = source.read()

    assert (record.at, record.uptime, record.host, record.cursor) == (None, 3.25, None, Cursor())
    assert {f"{tmp_path}/none/{name}" for name in ("stat", "sys/kernel/hostname", "sys/kernel/random/boot_id")} == {
        gap.what for gap in source.gaps()
    }
    source.close()


def test_the_same_record_has_the_same_time_after_a_restart(ring: Ring, opened: Open) -> None:
    ring.say(1)

    assert [r.at for r in opened().read()] == [r.at for r in opened().read()]


@pytest.mark.parametrize(("booted", "sequence"), [(1_790_000_000, 10**11), (10**12 - 1, 7)])
def test_a_record_of_no_moment_that_there_is_is_handed_over_without_one(
    ring: Ring, opened: Open, proc_root: Path, booted: int, sequence: int
) -> None:
    (proc_root / "stat").write_text(f"btime {booted}\n")
    ring.say(sequence)

    assert [None] == [record.at for record in opened().read()]


def test_what_stamps_are_behind_by_suspend_and_steering_is_added(ring: Ring, opened: Open) -> None:
    ring.say(7)
    ring.lag_seconds = 400

    assert [BOOTED_AT + timedelta(seconds=407.25)] == [record.at for record in opened().read()]


def test_a_record_that_came_since_the_last_look_is_not_older_than_that(ring: Ring, opened: Open) -> None:
    source = opened("now")
    ring.now += timedelta(seconds=1)
    ring.say(7)

    assert [ring.now] == [record.at for record in source.read()], "its stamp says an hour ago"


@pytest.mark.parametrize(("off", "expected"), [(-1.75, -1.75), (1.5, 1.5), (-2.5, 0.0), (2.5, 0.0)])
def test_a_replay_within_the_slack_tells_the_time_that_was_told_live(
    ring: Ring, opened: Open, off: float, expected: float
) -> None:
    ring.say(99)
    source = opened("now")
    ring.now, cursor = BOOTED_AT + timedelta(seconds=100.25 - off), source.position()
    texts(source)
    ring.say(100)
    live = [record.at for record in source.read()]

    assert [ring.now + timedelta(seconds=expected)] == live
    if expected:
        assert live == [record.at for record in opened("now", cursor).read()]


def test_a_record_has_the_name_that_the_host_has_by_then(ring: Ring, opened: Open, proc_root: Path) -> None:
    source = opened()
    ring.say(1)
    (proc_root / "sys/kernel/hostname").write_text("web-new\n")

    assert ["web-new"] == [record.host for record in source.read()]


def test_no_record_is_of_the_future(ring: Ring, opened: Open) -> None:
    ring.say(7)
    ring.lag_seconds = 7200

    assert [ring.now] == [record.at for record in opened().read()]


def test_the_lag_is_what_the_clocks_of_this_host_say(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {time.CLOCK_BOOTTIME: 5000.4, time.CLOCK_MONOTONIC_RAW: 1000.2}
    monkeypatch.setattr(kmsg_module.time, "clock_gettime", clocks.__getitem__)

    assert 4000 == kmsg_module.lag_seconds()


def test_a_device_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-kmsg"):
        KmsgSource(str(tmp_path / "no-kmsg"))


# --- the real device ------------------------------------------------------------------------------------------------


def readable() -> bool:
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return bool(os.read(fd, 16384))
    except OSError:
        return False
    finally:
        os.close(fd)


def in_the_ring() -> list[tuple[int, int]]:
    """Sequence and facility of each record now. A full ring drops its oldest for each new one."""
    fd, found = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), []
    try:
        while True:
            with contextlib.suppress(BrokenPipeError):
                priority, sequence, *_ = os.read(fd, 16384).split(b",", 2)
                found.append((int(sequence), int(priority) >> 3))
    except BlockingIOError:
        return found
    finally:
        os.close(fd)


@pytest.mark.skipif(not readable(), reason="/dev/kmsg cannot be read here (needs CAP_SYSLOG with dmesg_restrict=1)")
def test_the_real_ring_is_read_in_order_and_gone_on_with() -> None:
    before = in_the_ring()
    source = KmsgSource(start="beginning")
    records = [record for _ in range(50) for record in source.read()]
    gaps, end = source.gaps(), source.position()
    source.close()
    after = set(in_the_ring())
    kept = [sequence for sequence, facility in before if facility == 0 and (sequence, facility) in after]
    read = [int(record.source.rpartition(":")[2]) for record in records]
    again = KmsgSource(cursor=end)
    rest = list(again.read())
    again.close()

    assert kept == [sequence for sequence in read if sequence in set(kept)]
    assert end.kmsg
    assert before[-1][0] <= end.kmsg.sequence
    assert read == sorted(set(read))
    assert before[0] not in after or () == gaps
    assert all(r.uptime is not None and r.at is not None and r.at.tzinfo is timezone.utc for r in records)
    assert not {r.source for r in rest} & {r.source for r in records}


def test_what_root_writes_to_the_real_device_is_not_the_kernels() -> None:
    """Facility 1 is what user space gets; skipped where the device swallows writes (printk.devkmsg=off)."""
    if not readable() or not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("/dev/kmsg cannot be read and written here")
    source = KmsgSource(start="now")
    before = source.position()
    # The kernel may say the same meanwhile, because of another test.
    text = f"{ORPHANS}, says {__name__}"
    Path("/dev/kmsg").write_bytes(f"<6>{text}\n".encode())
    seen, after = texts(source), source.position()
    source.close()
    if before == after:
        pytest.skip("the kernel swallows what is written to /dev/kmsg here (printk.devkmsg=off)")

    assert text not in seen


def test_a_saved_position_ahead_of_the_ring_is_told_and_blinds_nobody(ring: Ring, opened: Open) -> None:
    ring.say(7, "old")
    source = opened("now", at_sequence(10**15))
    assert [] == texts(source)
    ring.say(8, "new")

    assert ["new"] == texts(source)
    assert ["the saved position is ahead of the kernel's newest record; reading resumes there"] == whys(source)
    assert source.position() == at_sequence(8)
