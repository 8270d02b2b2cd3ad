"""What an administrator reads and pastes, to the letter: said.txt has the whole advice for one host after the other.

A unit, a number or a word that changes shows there. ``PYTHONPATH=tests python tests/core/advice/test_said.py`` writes
it anew: read the difference as one who is tired and types it.
"""

from pathlib import Path
from typing import Any

from material import GIB, NGINX, PATHS, SHOP, make_event, make_group, make_sample, make_snapshot, make_table, tally
from msgspec.structs import replace

from agent.core.advice.cgroup import raise_cgroup_limit, relieve_group
from agent.core.diagnosis.diagnose import diagnose
from agent.core.model import Advice, Evidence, Sample, Witness, WitnessedBy
from agent.core.readings import FullGroup, Listener, Namespace, PressureStall, Process, SocketTable, Unlisted

SAID = Path(__file__).with_name("said.txt")
RETRIES, FIN, RECYCLE = "net.ipv4.tcp_orphan_retries", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_tw_recycle"
Steps = tuple[Advice, ...]
PASTED = (4096, 87380, 16777216)
MIB = 1 << 20


def host(*said: str, history: tuple[Sample, ...] = (), witness: Witness | None = None, **facts: Any) -> Steps:
    """Make the advice for a host: what was logged, then as make_snapshot() has it."""
    snapshot = make_snapshot(**({"alloc": 9900 if facts.get("orphan", 3) < 9900 else 70_000} | facts))
    return diagnose(snapshot, tuple(make_event(text) for text in said), history, witness).advice


def held(table: SocketTable, said: str = "orphans", **others: Any) -> Steps:
    """Make the advice for a host with these sockets."""
    mem, orphan = (390_000, 3) if said == "tcp_memory" else (90_000, 65_600)
    facts: dict[str, Any] = {"orphan": orphan, "mem": mem, "sockets": table}
    return host(said, **(facts | others))


def openvz() -> Steps:
    line = replace(make_event("close"), line="TCP: too many of orphaned sockets (512 in CT1023)")
    return diagnose(make_snapshot(kernel="2.6.32-042stab145.3"), (line,), ()).advice


def traced(**by: Any) -> Witness:
    return Witness(kills=90, unseen=10, by=(WitnessedBy(kills=86, **by), WitnessedBy(kills=4)))


def memory(*sizes: int | str) -> dict[str, int]:
    """Make a meminfo of names and MiB."""
    return {str(name): int(size) * MIB for name, size in zip(sizes[::2], sizes[1::2], strict=True)}


SLOW = (make_sample(3600, mem=1000), make_sample(1200, mem=180_000))
POD = Namespace(process=Process(pid=4711, name="pause", cgroup="/kubepods/pod1"), inuse=900, number=1)
HAPROXY = Listener(port=443, process=Process(pid=7, name="haproxy", cgroup="/system.slice/haproxy.service"))
DOCKER = "/system.slice/docker-" + 64 * "a" + ".scope"
OWN_RHEL_5 = {"kernel": "2.6.18-419.el5", "ram": 8 * GIB, "tcp_mem": (196608, 262144, 393216)}
SHOP_GROUP = FullGroup(path="/shop.slice", current_bytes=3 << 30, limit_bytes=3 << 30, sock_bytes=1 << 30)
REFUSED = Evidence(name="memory.kmem.tcp.failcnt", value=912, source="cgroup")


def hosts() -> dict[str, Steps]:
    return {
        "orphans at the limit": host(
            "orphans", orphan=65600, mem=90_000, alloc=70_000, sysctls={RETRIES: (0,), FIN: (300,), RECYCLE: (1,)}
        ),
        "orphans at the limit, fifteen retries": host("orphans", orphan=65600, mem=90_000, sysctls={RETRIES: (15,)}),
        "orphans at the limit, whose peak is not known": host("orphans", orphan=3),
        "orphans that count twice": host("orphans", orphan=32_800, mem=60_000, alloc=40_000),
        "orphans that want more tcp_mem": host(
            "orphans",
            orphan=131_500,
            mem=520_000,
            max_orphans=131_072,
            alloc=150_000,
            ram=24 * GIB,
            tcp_mem=(286_062, 381_419, 572_124),
            kernel="6.12.0",
        ),
        "orphans, and no room": host("orphans", orphan=40_000, mem=60_000, max_orphans=40_960, alloc=41_000, ram=GIB),
        "orphans, and RAM short": host(
            "orphans", orphan=65600, mem=90_000, meminfo=memory("MemTotal", 16384, "MemAvailable", 300)
        ),
        "orphans, and no limit": host("orphans", orphan=65600, max_orphans=None),
        "orphans, and no tcp_mem": host("orphans", orphan=65600, tcp_mem=None),
        "orphans, and no RAM": host("orphans", orphan=65600, mem=90_000, ram=None),
        "orphans that fill tcp_mem": host("orphans", "tcp_memory", orphan=40_000, mem=390_000, alloc=45_000),
        "no orphan allowed": host("orphans", orphan=40, mem=9000, max_orphans=0),
        "less than no orphan allowed": host("orphans", orphan=40, mem=9000, max_orphans=-1),
        "few orphans allowed": host("orphans", orphan=40, mem=9000, max_orphans=16),
        "few orphans allowed, and less than that in tcp_mem": host(
            "orphans", orphan=40, mem=9000, max_orphans=16, tcp_mem=(6000, 8000, 12_000)
        ),
        "few orphans allowed, thousands there": host("orphans", orphan=1500, mem=9000, max_orphans=256),
        "no orphan allowed by an unknown kernel": host("orphans", orphan=40, max_orphans=0, kernel=None, tcp_mem=None),
        "orphans in a container": host(
            "orphans", orphan=65600, max_orphans=None, tcp_mem=None, sysctls={RETRIES: (0,)}
        ),
        "pages as the limit of orphans": host("tcp_memory", orphan=40, max_orphans=190_455),
        "memory at the limit": host("tcp_memory", mem=380_000),
        "memory at the limit, slowly": host("tcp_memory", mem=390_000, history=SLOW),
        "memory at the limit, and some RAM": host(
            "tcp_memory", mem=380_000, meminfo=memory("MemTotal", 16384, "MemAvailable", 1200)
        ),
        "memory at the limit, and RAM short": host(
            "tcp_memory",
            mem=380_000,
            meminfo=memory("MemTotal", 16384, "MemAvailable", 300),
            pressure={"memory full": PressureStall(avg10=0.5)},
        ),
        "memory at the limit, and tasks wait": host(
            "tcp_memory", mem=380_000, pressure={"memory some": PressureStall(avg10=41.2)}
        ),
        "memory at the limit, and huge pages free": host(
            "tcp_memory",
            mem=900_000,
            tcp_mem=(450_000, 600_000, 900_000),
            meminfo=memory("MemTotal", 16384, "MemAvailable", 3000, "Hugetlb", 8192, "HugePages_Free", 4096),
        ),
        "memory at a quarter of RAM": host("tcp_memory", mem=1_040_000, tcp_mem=(520_000, 700_000, 1_048_576)),
        "memory calm below a tcp_mem of all RAM": host("tcp_memory", mem=1200, tcp_mem=(520_000, 700_000, 1_048_576)),
        "memory, and no RAM": host("tcp_memory", mem=380_000, ram=None),
        "memory, and no tcp_mem": host("tcp_memory", mem=380_000, tcp_mem=None),
        "memory, and no use": host("tcp_memory", mem=None),
        "a tenth of tcp_mem on RHEL 6": host(
            "tcp_memory", mem=25_000, tcp_mem=(12_000, 16_000, 24_000), kernel="2.6.32-754.el6.x86_64"
        ),
        "memory on RHEL 5": host("timer", mem=390_000, **OWN_RHEL_5),
        "memory before MemAvailable": host(
            "tcp_memory",
            mem=390_000,
            kernel="3.10.0-123.el7.x86_64",
            meminfo=memory("MemTotal", 16384, "MemFree", 2048, "Cached", 3072, "Shmem", 1024),
        ),
        "memory on 32 bit": host(
            "tcp_memory",
            mem=17_600,
            tcp_mem=(9000, 12_000, 18_000),
            kernel="5.10.103-v7l+",
            meminfo=memory("MemTotal", 4096, "MemAvailable", 2048, "HighTotal", 3316, "LowTotal", 780, "LowFree", 200),
        ),
        "a socket buffer in tcp_mem": host("tcp_memory", mem=9000, tcp_mem=PASTED),
        "a socket buffer in tcp_mem, and much held": host("tcp_memory", mem=380_000, tcp_mem=PASTED),
        "a socket buffer in tcp_mem, more held than there is room for": host(
            "tcp_memory",
            mem=380_000,
            tcp_mem=(4096, 87_380, 400_000),
            meminfo=memory("MemTotal", 16384, "MemAvailable", 1),
        ),
        "a socket buffer in tcp_mem of an unknown kernel": host("tcp_memory", mem=9000, tcp_mem=PASTED, kernel=None),
        "tcp_mem in the wrong order": host("tcp_memory", mem=9000, tcp_mem=(380_910, 253_940, 190_455)),
        "tcp_mem without a bound, and calm": host(orphan=3, mem=9000, tcp_mem=(2**31 - 1,) * 3),
        "tcp_mem above RAM, and full": host(
            "tcp_memory", mem=9000, tcp_mem=(805_306_368, 1_073_741_824, 1_610_612_736)
        ),
        "tcp_mem lowered": host("tcp_memory", mem=4090, tcp_mem=(2048, 3072, 4096)),
        "a control group of version 1": host("tcp_memory", kernel="3.10.0-1160.el7.x86_64", kmem_tcp_failcnt=912),
        "a control group's TCP limit": (raise_cgroup_limit(REFUSED),),
        "a full control group": (relieve_group(SHOP_GROUP), relieve_group(replace(SHOP_GROUP, sock_bytes=None))),
        "nginx with orphans on many ports": held(
            make_table(*(make_group(NGINX, port, fin_wait1=tally(15_000)) for port in (443, 80, 8080, 8443))),
            history=(make_sample(10, orphan=50),),
        ),
        "nginx with orphans on two ports": held(
            make_table(*(make_group(NGINX, port, fin_wait1=tally(30_000)) for port in (443, 80)))
        ),
        "somebody in a pod with orphans": held(
            make_table(
                make_group(77, 443, namespace=1, fin_wait1=tally(60_000)), paths=PATHS | {77: DOCKER}, namespaces=(POD,)
            )
        ),
        "nginx in a container with orphans": held(
            make_table(make_group(77, 443, fin_wait1=tally(60_000)), paths=PATHS | {77: f"{DOCKER}/nginx.service"})
        ),
        "a guess": held(make_table(make_group(None, 443, fin_wait1=tally(5000)), listeners=(HAPROXY,))),
        "orphans in FIN-WAIT-2": held(
            make_table(make_group(fin_wait2=tally(60_000), fin_wait1=tally(5000))), sysctls={FIN: (300,)}
        ),
        "orphans of stalled peers": held(
            make_table(make_group(fin_wait1=tally(60_000, probing=50_000))), sysctls={RETRIES: (0,)}
        ),
        "shop with memory": held(
            make_table(make_group(SHOP, 80, established=tally(300, 4 * MIB)), make_group(established=tally(9000))),
            "tcp_memory",
        ),
        "nginx with memory that its peers do not read": held(
            make_table(make_group(NGINX, 443, established=tally(900, 2 * MIB, wmem_bytes=1800 * MIB)), mem=390_000),
            "tcp_memory",
        ),
        "shop with a leak": held(
            make_table(make_group(SHOP, None, close_wait=tally(900, 2 * MIB, rmem_bytes=1800 * MIB)), mem=390_000),
            "tcp_memory",
            history=SLOW,
        ),
        "sockets in no table": held(
            make_table(
                mem=390_000,
                alloc=9000,
                unlisted=(Unlisted(process=Process(pid=31, name="shop", cgroup="/"), sockets=8000),),
            ),
            "tcp_memory",
            alloc=9000,
        ),
        "nginx was reset": host(
            "orphans",
            orphan=65600,
            sockets=make_table(),
            witness=traced(unit="nginx.service", process="nginx", ports=(443,)),
        ),
        "somebody was reset": host(
            "orphans", orphan=65600, sockets=make_table(), witness=traced(unit="shop.service", ports=(80, 81))
        ),
        "nothing shows which": host("timer", kernel="2.6.32-754.el6.x86_64", counters={"TCPAbortOnMemory": 9}),
        "nothing shows which, nor a line": host(witness=traced(unit="nginx.service", process="nginx")),
        "nothing shows which, and no log was read": host(
            trigger="command", witness=traced(unit="nginx.service", process="nginx")
        ),
        "a line of another kernel": host("timer", counters={"TCPAbortOnMemory": 9}),
        "OpenVZ": openvz(),
    }


def words(step: Advice, number: int) -> list[str]:
    lines = [f"{number}. {step.action}", f"   why: {step.why}", f"   risk: {step.risk}"]
    lines += [f"   $ {command}" for command in step.commands]
    lines += [f"   {step.sysctl.key}: {step.sysctl.current} -> {step.sysctl.proposed}"] if step.sysctl else []
    return lines + [f"   | {line}" for line in (step.persist or "").splitlines()]


def chapters() -> list[str]:
    """Write the steps for each host; one that was written for a host before has its action alone."""
    written, before = list[str](), set[Advice]()
    for name, steps in hosts().items():
        lines = [f"== {name}"]
        for number, step in enumerate(steps, 1):
            lines += [f"{number}. {step.action} (as above)"] if step in before else words(step, number)
            before.add(step)
        written.append("\n".join([*lines, ""]))
    return written


def test_the_advice_reads_to_the_letter() -> None:
    for expected, actual in zip(SAID.read_text().split("\n\n"), chapters(), strict=True):
        assert expected.splitlines() == actual.splitlines()


if __name__ == "__main__":
    SAID.write_text("\n".join(chapters()))
