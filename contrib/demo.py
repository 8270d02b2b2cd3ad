"""Play a made-up incident on the real agent, and show what a user would get: ``make demo``.

A temporary log, a made-up /proc of a small web shop and a receiver on loopback stand in for the host, the kernel and
Slack; the agent is the real one, started as a process. Nothing of this host is touched, and all of it is removed.
"""

# A script, run with -m from the top of the repository, whose work is to print; the one program started is our own.

import argparse
import base64
import hashlib
import hmac
import html
import json
import secrets
import subprocess
import sys
import tempfile
import textwrap
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from contrib.stage import Post, Receiver, agent_command, clean_environment, next_post, running_agent, wait_for

HOST = "shop-1"
UPTIME = 84_211
PAGE = 4096
QUIET_SECONDS = 5
CHANNELS = ("team", "ops")
ESSENTIALS = ("id", "host", "cause", "confidence", "summary", "events", "suppressed_at_least", "peak", "closed_at")
SIGNED_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

CONFIG = """\
[source]
kind = "file"
paths = ["{work}/messages"]
start = "beginning"

[store]
directory = "{work}/state"

[incident]
quiet_seconds = {quiet}

[[notify]]
name = "team"
type = "slack"
url = "{url}/team"

[[notify]]
name = "ops"
type = "webhook"
url = "{url}/ops"
secret_file = "{work}/secret"
"""

# A 4 GiB web server. The kernel made these limits at boot: 1 orphan for 256 KiB of RAM, 9.4 % of RAM for TCP.
STILL = {
    "sys/kernel/hostname": HOST,
    "sys/kernel/osrelease": "6.1.0-30-amd64",
    "sys/kernel/random/boot_id": "5f0c9a3e-7d41-4e0b-9a65-1d2c3b4a5968",
    "sys/net/ipv4/tcp_mem": "46098\t61465\t92196",
    "sys/net/ipv4/tcp_max_orphans": "16384",
    "sys/net/ipv4/tcp_orphan_retries": "0",
    "sys/net/ipv4/tcp_fin_timeout": "60",
    "sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304",
    "sys/net/ipv4/tcp_max_tw_buckets": "16384",
    "sys/net/ipv4/tcp_tw_reuse": "2",
    "sys/net/ipv4/tcp_retries2": "15",
    "sys/net/core/message_cost": "5",
    "sys/net/core/message_burst": "10",
    "meminfo": f"MemTotal: {4 * 1024 * 1024} kB\nMemFree: 409600 kB\nMemAvailable: 1996416 kB\nSwapTotal: 0 kB",
    "vmstat": f"nr_free_pages {409600 * 1024 // PAGE}",
    "pressure/memory": (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=81723\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=60121"
    ),
    "net/sockstat6": "TCP6: inuse 12\nUDP6: inuse 2\nRAW6: inuse 0",
    "net/snmp": "Tcp: MaxConn ActiveOpens PassiveOpens CurrEstab OutRsts\nTcp: -1 51023 2211089 9312 40211",
}


def write_host(proc: Path, *, orphan: int, tw: int, mem: int, killed: int) -> None:
    """Make the made-up host look like this: gauges and counters as the kernel prints them."""
    moving = {
        "uptime": f"{UPTIME}.31 160222.18",
        "net/sockstat": (
            f"sockets: used 11824\nTCP: inuse {9406 + orphan} orphan {orphan} tw {tw} alloc {9511 + orphan} mem {mem}\n"
            "UDP: inuse 6 mem 3\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0"
        ),
        "net/netstat": (
            "TcpExt: SyncookiesSent PruneCalled TCPAbortOnMemory TCPAbortOnTimeout TCPAbortFailed TCPMemoryPressures\n"
            f"TcpExt: 0 0 {killed} 2204 0 0"
        ),
        "net/protocols": (
            "protocol  size sockets  memory press maxhdr  slab module"
            "     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n"
            f"TCP       2368 {9511 + orphan:6} {mem:7}   no     320   yes  kernel"
            "      y  y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y"
        ),
    }
    for name, text in (STILL | moving).items():
        path = proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".new").write_text(text + "\n")
        path.with_name(path.name + ".new").replace(path)


def stamp() -> str:
    """Write the time as rsyslog does."""
    return f"{datetime.now(timezone.utc).astimezone():%b %e %H:%M:%S}"


def kernel_lines() -> list[str]:
    """Write what rsyslog would: the kernel's lines, and one that only quotes them."""
    kernel = f"{stamp()} {HOST} kernel: [{UPTIME}"
    return [
        f"{kernel}.114207] TCP: too many orphaned sockets",
        f"{kernel}.114391] TCP: too many orphaned sockets",
        f"{kernel}.120044] TCP: too many orphaned sockets",
        f"{stamp()} {HOST} deploy[4711]: runbook: on 'TCP: too many orphaned sockets' call the engineer on duty",
        f"{kernel}.902113] net_ratelimit: 407 callbacks suppressed",
        f"{kernel}.902118] TCP: too many orphaned sockets",
    ]


def verify(post: Post, secret: str) -> bool:
    """Check the signature as a receiver would, by the Standard Webhooks specification."""
    headers = {name.lower(): value for name, value in post.headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + post.body
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    expected = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split())


def slack_text(payload: dict[str, Any]) -> str:
    """Render Slack's blocks for a terminal; the first line is what a lock screen shows."""
    lines = [f"(lock screen) {payload['text']}", ""]
    for block in payload["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        for part in parts:
            if part:
                text = part["text"] if isinstance(part["text"], str) else part["text"]["text"]
                lines += html.unescape(text).splitlines()
        lines.append("")
    return "\n".join(lines).rstrip()


def say(title: str, text: str = "") -> None:
    """Print one part of the story."""
    print(f"\n== {title} {'=' * max(3, 96 - len(title))}\n")
    print(textwrap.indent(text, "  "))


class Played(NamedTuple):
    """What came of it: POSTs by path, what was on disk, and how long it took."""

    posts: dict[str, list[Post]]
    secret: str
    listing: str
    shown: str
    stored_seconds: float
    posted_seconds: float


def set_the_stage(work: Path, url: str) -> tuple[Path, str]:
    """Write the log, the host, the secret and the configuration; return the configuration's path and the secret."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    (work / "secret").write_text(secret + "\n")
    (work / "messages").write_text(f"{stamp()} {HOST} systemd[1]: Started shop.service.\n")
    write_host(work / "proc", orphan=212, tw=1890, mem=9120, killed=0)
    config = work / "config.toml"
    config.write_text(CONFIG.format(work=work, quiet=QUIET_SECONDS, url=url))
    return config, secret


def play(work: Path) -> Played:
    """Let it happen: an ordinary moment, the limit, the kernel's lines, calm again."""
    state, said = work / "state", work / "agent.log"
    with Receiver() as receiver:
        config, secret = set_the_stage(work, receiver.url)
        with running_agent(config, said, *made_up_host(work / "proc")):
            wait_for(lambda: list(state.glob("history/*")), "first sample", said)
            time.sleep(2)  # the log's stamps are whole seconds: this sample shall be from before the event by them, too
            write_host(work / "proc", orphan=16391, tw=2207, mem=30412, killed=6)
            written = time.perf_counter()
            with (work / "messages").open("a") as log:
                log.write("\n".join(kernel_lines()) + "\n")
            wait_for(lambda: list(state.glob("incidents/[0-9]*/incident.json")), "incident", said)
            stored = time.perf_counter()
            posts = [next_post(receiver, "notification", said) for _ in CHANNELS]
            write_host(work / "proc", orphan=1204, tw=2391, mem=10377, killed=413)
            while not is_over(posts):
                posts.append(next_post(receiver, "end of the incident", said))
            receipts = len(posts)
            wait_for(lambda: len(list(state.glob("incidents/[0-9]*/notice-*.*.json"))) >= receipts, "receipt", said)
            command = agent_command("incidents", "show", "last", "--config", str(config))
            shown = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    files = [path for path in sorted(state.rglob("*")) if path.is_file()]
    return Played(
        posts={name: [post for post in posts if post.path == f"/{name}"] for name in CHANNELS},
        secret=secret,
        listing="\n".join(f"{path.stat().st_size:>8}  {path.relative_to(state)}" for path in files),
        shown=shown.stdout + shown.stderr,
        stored_seconds=stored - written,
        posted_seconds=posts[0].at - written,
    )


def made_up_host(proc: Path) -> tuple[str, ...]:
    """Point the agent at the made-up /proc, where it has an option for that; else the numbers are this host's own."""
    usage = subprocess.run(agent_command("run", "--help"), capture_output=True, text=True, check=True)
    return ("--proc-root", str(proc)) if "--proc-root" in usage.stdout else ()


def is_over(posts: list[Post]) -> bool:
    """Return whether the webhook got the notifications, and Slack as many."""
    hooks = [json.loads(post.body)["type"] for post in posts if post.path == "/ops"]
    return "sockmem.incident.resolved" in hooks and len(posts) == len(CHANNELS) * len(hooks)


def tell(played: Played) -> None:
    """Print the notifications: the first of each channel in full, the gist of the others."""
    first, *others = [json.loads(post.body) for post in played.posts["team"]]
    say("Slack", slack_text(first))
    say("Slack, later", "\n".join(other["text"] for other in others))
    for number, post in enumerate(played.posts["ops"], 1):
        body, headers = json.loads(post.body), {k.lower(): v for k, v in post.headers.items()}
        verified = "verified" if verify(post, played.secret) else "DOES NOT VERIFY"
        heads = [f"{name}: {headers[name]}" for name in SIGNED_HEADERS]
        shown = {"type": body["type"], "timestamp": body["timestamp"]}
        if number == 1:
            shown["data"] = {key: body["data"][key] for key in ESSENTIALS}
        say(f"Webhook, POST {number}: signature {verified}", "\n".join([*heads, "", json.dumps(shown, indent=2)]))
    say("In the state directory (bytes, file)", played.listing)
    say("sockmem-agent incidents show last", played.shown)
    stored, posted = round(1000 * played.stored_seconds), round(1000 * played.posted_seconds)
    say("Time", f"from the kernel's line to the incident on disk {stored} ms, to the first POST {posted} ms")


def main() -> None:
    """Play it in a directory that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sockmem-demo-") as work:
        say("Kernel messages in the log that the agent follows", "\n".join(kernel_lines()))
        print(
            "  (the line that only quotes a message is not an event; the incident takes about ten seconds ...)",
            flush=True,
        )
        played = play(Path(work))
    tell(played)
    if not all(verify(post, played.secret) for post in played.posts["ops"]):
        sys.exit("the webhook's signature does not verify")


if __name__ == "__main__":
    main()
