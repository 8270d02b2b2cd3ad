"""The time to count a busy host's sockets, beside ``ss -tanmH`` on the same sockets.

Helper processes hold both ends of real connections in 127.0.0.0/8. Then ss and the dump (``benchmarks.one_dump``)
alternate.

    python -m benchmarks.sockdiag [SOCKETS]
"""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.table import Row, run

ROUNDS = 5
SOCKETS = 200_000
NAMED_REACH_SECONDS, RSS_REACH_MB, OFF_REACH_PERCENT = 0.6, 20, 2
HELD_BY_ONE = 16_000
ADDRESSES = 250
ORPHANS_EACH = 40


def hold(count: int, network: int) -> None:
    """Make connections to ourselves at 127.NETWORK.0.0/24, some with unread data, and keep them until stdin ends.

    ORPHANS_EACH more are closed with data that their peers do not read, and are orphans from then on.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("0.0.0.0", 0), backlog=1000)
    port = listener.getsockname()[1]
    kept = []
    for number in range(count // 2):
        out = socket.create_connection((f"127.{network}.0.{number % ADDRESSES + 1}", port))
        if number % 4 == 0:
            out.send(b"nobody reads this")
        kept += [out.detach(), listener.accept()[0].detach()]
    orphaned = [make_orphan(listener, port) for _ in range(ORPHANS_EACH)]
    print("ready", flush=True)
    sys.stdin.read()
    del orphaned


def make_orphan(listener: socket.socket, port: int) -> socket.socket:
    """Leave an orphan to the kernel for as long as its peer, which is returned, is open and does not read."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    with listener.accept()[0] as closed:
        closed.settimeout(0)
        closed.send(bytes(100_000))
    return peer


@contextmanager
def held(count: int) -> Iterator[None]:
    """Keep ``count`` sockets established while the block runs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = min(HELD_BY_ONE, (most - 100) // 2 * 2)
    shares = [min(share, count - begun) for begun in range(0, count, share)]
    helpers = [
        start("benchmarks.sockdiag", "--hold", str(each), str(number)) for number, each in enumerate(shares, start=1)
    ]
    try:
        for helper in helpers:
            assert helper.stdout is not None
            assert helper.stdout.readline() == "ready\n", "a helper could not make its connections"
        yield
    finally:
        for helper in helpers:
            helper.communicate()


def start(*module: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", *module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_ss() -> float:
    began = time.perf_counter()
    subprocess.run(["ss", "-tanmH"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def run_dump() -> dict[str, float]:
    took: dict[str, float] = json.loads(start("benchmarks.one_dump").communicate()[0])
    return took


def rows(count: int = SOCKETS) -> Iterator[Row]:
    """Compare with ss, and the sums with what the kernel counts."""
    with held(count):
        rounds = [(run_ss(), run_dump()) for _ in range(ROUNDS)]
    ss = {"ss -tanmH": (median(took for took, _ in rounds),)}
    of = {key: (median(dump[key] for _, dump in rounds),) for key in rounds[0][1]}
    assert of["seen"][0] >= count, f"{of['seen'][0]} sockets were seen"
    what = f"{count:,} sockets"
    yield Row(f"{what}: counted, by process and cgroup", of["named"], "s", (NAMED_REACH_SECONDS,), ss)
    yield Row(f"{what}: the dump alone", of["dumped"], "s", ss["ss -tanmH"], ss)
    yield Row(f"{what}: resident memory at most", of["peak"], "MB", (RSS_REACH_MB,))
    yield Row(
        f"{what}: bytes of all / of the holders, off from sockstat's",
        of["bytes off"] + of["holders' bytes off"],
        "%",
        (OFF_REACH_PERCENT,) * 2,
    )
    yield Row(
        f"{what}: orphans of all / of the holders, off from sockstat's",
        of["orphans off"] + of["holders' orphans off"],
        "",
        (0, 0),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--hold"]:
        hold(*map(int, sys.argv[2:]))
    else:
        run(rows)
