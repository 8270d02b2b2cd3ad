"""Measure what the witness costs: processor time of reading a second's worth of kills and of refusals, and of nothing.

Recorded lines and histograms, in files laid out like the two tracing instances. The kernel's own part, which makes the
text while it is read, is not in it: about 2 us a kill.

    python -m benchmarks.witness [SECONDS]
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.core.kernel.tracing import KILL_EVENT, REFUSAL_EVENT
from agent.probe.witness import Instances, Reader
from benchmarks.processes import status_fields
from benchmarks.table import Row, run

FORMATS = Path(__file__).parent.parent / "tests/core/kernel/tracing/6.12"
SECONDS, WARM_UP = 15, 5
KILLS, REFUSALS, WRITERS = 10_000, 100_000, 500
CPU_REACH_PERCENT, IDLE_REACH_US, MEMORY_REACH_MB = 5, 100, 1
IDLE_READS = 2000
KILL = (
    "         python3-20257   [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
    "skaddr=00000000fdcd7b81 src=127.0.0.1:{} dest=127.0.0.1:8898 state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
)
CROWD = (
    "             sshd-{:<7} [001] b..1.  5505.345442: tcp_send_reset: skbaddr=0000000000000000 "
    "skaddr=00000000fdcd7b81 src=192.0.2.1:22 dest=10.{}.{}.7:{} state=TCP_CLOSE reason=TCP_ABORT_ON_MEMORY\n"
)
REFUSAL = (
    "          <idle>-0       [000] ..s2.  5611.000123: sock_exceed_buf_limit: proto:TCP sysctl_mem=500,800,1000 "
    "allocated=1217 sysctl_rmem=4096 rmem_alloc=0 sysctl_wmem=4096 wmem_alloc=1 wmem_queued=0 kind=SK_MEM_RECV\n"
)
HEAD = "# event histogram\n#\n# trigger info: hist:keys={}:vals=hitcount,allocated:sort=hitcount [active]\n#\n\n"
TOTALS = "\nTotals:\n    Hits: {}\n    Entries: {}\n    Dropped: 0\n\n\n"


def lay_out(work: Path) -> Instances:
    """Lay out the files that the reader opens."""
    them = Instances(work / "kills", work / "refusals")
    for path, event in ((them.kills, KILL_EVENT), (them.refusals, REFUSAL_EVENT)):
        (path / "events" / event).mkdir(parents=True)
        (path / "events" / event / "format").write_text((FORMATS / Path(event).name).read_text())
        (path / "trace_pipe").touch()
    return them


def one_program(second: int) -> str:
    return "".join(KILL.format(1024 + (second + number * 7) % 60000) for number in range(KILLS))


def crowd(second: int) -> str:
    """Kills no two of which have the process or the peer in common."""
    numbers = range(second, second + KILLS)
    return "".join(CROWD.format(1000 + n, n % 250, n // 250 % 250, 1024 + n) for n in numbers)


def ring(second: int) -> str:
    """Leave of a flood what a buffer does: 64 KiB of lines, and the mark of all that was overwritten."""
    kept = 300
    return f"CPU:0 [LOST {REFUSALS - kept + second % 2} EVENTS]\n" + REFUSAL * kept


def histogram(second: int) -> str:
    """Count refusals of hundreds of writers, and as many of what is received."""
    count = REFUSALS * (second + 1) // 2
    row = "{{ common_pid: worker          [{:>10}] }} hitcount: {:>10}  allocated: {:>10}\n"
    rows = (row.format(2000 + number, count // WRITERS, count // WRITERS * 1217) for number in range(WRITERS))
    writers = HEAD.format("common_pid.execname") + "".join(rows) + TOTALS.format(count, WRITERS)
    received = f"{{ kind:          1 }} hitcount: {count:>10}  allocated: {count * 1217:>10}\n"
    return writers + HEAD.format("kind") + received + TOTALS.format(count, 1)


def feed(file: Path, text: str) -> None:
    """Put text where the reader reads next: behind what it has read of a pipe, in place of a histogram."""
    with file.open("w" if file.name == "hist" else "a") as written:
        written.write(text)


def peak_mb() -> float:
    return status_fields(Path("/proc/self/status"))["VmHWM"] * 1024 / 1e6


def measure(file: str, text: Callable[[int], str], seconds: int) -> tuple[float, float, float]:
    """Let it read one text a second; return percents of a processor, the growth of its peak in MB, events a second."""
    used, told, peak = 0.0, 0, 0.0
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        them = lay_out(Path(directory))
        feed(Path(directory) / file, text(0))
        reader = Reader(them)
        for second in range(1, seconds + WARM_UP):
            feed(Path(directory) / file, text(second))
            began = time.process_time()
            seen = reader.read()
            if second < WARM_UP:
                reader.read()
                peak = peak_mb()
                continue
            used += time.process_time() - began
            told += sum(each.count for each in seen.kills) + sum(each.count for each in seen.refusals)
        reader.close()
    return 100 * used / seconds, peak_mb() - peak, told / seconds


def idle_microseconds(text: str) -> float:
    """Measure one reading of nothing new, beside a histogram with this text, if any."""
    with tempfile.TemporaryDirectory(prefix="sockmem-bench-") as directory:
        them = lay_out(Path(directory))
        if text:
            feed(them.refusals / "events" / REFUSAL_EVENT / "hist", text)
        reader = Reader(them)
        began = time.process_time()
        for _ in range(IDLE_READS):
            reader.read()
        used = time.process_time() - began
        reader.close()
    return 1e6 * used / IDLE_READS


def rows(seconds: int = SECONDS) -> Iterator[Row]:
    """Read each flood for so many seconds, and then nothing."""
    floods = (
        (f"{KILLS:,} kills a second, of one program", "kills/trace_pipe", one_program),
        (f"{KILLS:,} kills a second, no two alike", "kills/trace_pipe", crowd),
        (f"{REFUSALS:,} refusals a second, from the ring", "refusals/trace_pipe", ring),
        (f"{REFUSALS:,} refusals a second, counted by the kernel", f"refusals/events/{REFUSAL_EVENT}/hist", histogram),
    )
    for what, file, text in floods:
        percent, grown, told = measure(file, text, seconds)
        assert told > KILLS / 2, f"{what}: only {told:.0f} a second were seen"
        yield Row(f"witness, {what}: processor", (percent,), "% of one", (CPU_REACH_PERCENT,))
        yield Row(f"witness, {what}: memory grows by", (grown,), "MB", (MEMORY_REACH_MB,))
    idle = (idle_microseconds(""), idle_microseconds(histogram(0)))
    yield Row("witness, nothing happened: two rings / a full histogram", idle, "us a reading", (IDLE_REACH_US,) * 2)


if __name__ == "__main__":
    run(rows)
