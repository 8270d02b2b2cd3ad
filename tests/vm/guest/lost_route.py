"""In the machine: orphans of which some have lost the way to their peer; those count double or more."""

LOST = "10.9.0.3"
NETWORK = (
    "ip netns add far",
    "ip link add near type veth peer name away netns far",
    "ip addr add 10.9.0.1/24 dev near",
    "ip link set near up",
    "ip -n far addr add 10.9.0.2/24 dev away",
    f"ip -n far addr add {LOST}/24 dev away",
    "ip -n far link set away up",
    "ip -n far link set lo up",
)


def act(rig, count: int, every: int) -> None:
    """Make orphans below the limit, then take the route to one peer in ``every`` away, and wait for the line.

    The acknowledgements of those peers are lost before, so that their retransmission timers run.
    """
    for command in NETWORK:
        rig.run(*command.split())
    peers = (*["--own=10.9.0.2"] * (every - 1), f"--own={LOST}", "--address=10.9.0.1")
    rig.connect(count, client_settings=("-pNetworkNamespacePath=/run/netns/far",), client_options=peers)
    rig.run("ip", "-n", "far", "rule", "add", "from", LOST, "blackhole")
    rig.tell("shop", "send", then="full")
    rig.tell("shop", "close", then="closed")
    rig.wait("all are orphans", lambda: rig.sockstat()["orphan"] >= count)
    rig.note("lines_before", rig.kernel_lines())
    with rig.watching():
        rig.run("ip", "route", "add", "unreachable", LOST)
        rig.wait_for_lines(seconds=60)
        rig.note("inet_diag", rig.orphans_in_inet_diag())
    rig.wait_for_posts("opened", "resolved", seconds=60)
