"""A real container, of systemd-nspawn, with a network of its own: it is named, and a process to enter it by."""

from pathlib import Path

LIMIT = 64
ROOT = Path("/var/lib/machines/web")
NETWORK = "/run/netns/web"


def act(rig):
    rig.listen()
    (ROOT / "usr").mkdir(parents=True)
    (ROOT / "etc").mkdir()
    (ROOT / "etc/os-release").write_text("ID=web\n")
    for name in ("bin", "sbin", "lib", "lib64"):
        (ROOT / name).symlink_to(f"usr/{name}")
    rig.run("ip", "netns", "add", "web")
    rig.run("ip", "-n", "web", "link", "set", "lo", "up")
    manager = (
        "systemd-nspawn", "--quiet", "--console=pipe", "--machine=web", f"--directory={ROOT}",
        f"--network-namespace-path={NETWORK}", "--bind-ro=/usr", "--bind=/run/vm", f"--bind-ro={rig.folder}",
    )  # fmt: skip
    rig.burst(200, limit=LIMIT, manager=manager, client_settings=(f"-pNetworkNamespacePath={NETWORK}",))
    rig.wait_until_named()
    rig.note("shown", rig.run("nsenter", "-t", str(named(rig)["netns_pid"]), "-n", "ss", "-tan"))
    rig.stop("phones")
    rig.wait_for_posts("opened", "resolved")


def named(rig):
    return next(each for each in rig.incidents()[0]["diagnosis"]["holders"] if each["container"])


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident)
    first = found.first_named(incident)
    assert (None, "machine web", False) == (first["unit"], first["container"], first["guess"])
    others = [each for each in incident["diagnosis"]["holders"] if each["unit"] != "sockmem-agent.service"]
    assert first["orphans"] == max(holder["orphans"] for holder in others)
    assert 8080 in first["ports"]
    found.check_killed(incident)
    # What is printed for an administrator to enter the namespace by shows its sockets.
    assert ":8080" in found.notes["shown"]
    found.check_told(incident)
