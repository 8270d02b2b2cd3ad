"""The image of contrib/container, built by buildah, and run by runc with the rights that the DaemonSet gives."""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from harness import wait_for
from package_tools import ROOT, run

needed = ("buildah", "runc", "debootstrap")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, needed)), reason=f"needs root and {', '.join(needed)}"
)
MANIFESTS = list(yaml.safe_load_all((ROOT / "contrib/kubernetes/daemonset.yaml").read_text()))
CONFIG = MANIFESTS[1]["data"]["config.toml"]
POD = MANIFESTS[2]["spec"]["template"]["spec"]
REMOTE = Path("/lib/systemd/systemd-journal-remote")
SECCOMP = Path("/usr/share/containers/seccomp.json")
LIMITS = {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "nproc": resource.getrlimit(resource.RLIMIT_NPROC)}
KERNEL_SAYS = {
    "__REALTIME_TIMESTAMP": "1790000000000000",
    "_BOOT_ID": "0123456789abcdef0123456789abcdef",
    "_HOSTNAME": platform.node(),
    "_TRANSPORT": "kernel",
    "SYSLOG_FACILITY": "0",
    "SYSLOG_IDENTIFIER": "kernel",
    "PRIORITY": "6",
    "MESSAGE": "TCP: too many orphaned sockets",
}


class Image(NamedTuple):
    root: Path
    config: dict[str, Any]


@pytest.fixture(scope="module")
def image(packages: Any, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Build the image from a minimal Debian, since no registry can be asked here."""
    directory = tmp_path_factory.mktemp("image")
    base = make_base(directory / "base")
    store = ("--root", directory / "store", "--runroot", directory / "run", "--storage-driver", "vfs")

    def buildah(*arguments: str | Path) -> str:
        os.environ["BUILDAH_ISOLATION"] = "chroot"
        return run("buildah", *store, *arguments).strip()

    scratch = buildah("from", "scratch")
    buildah("add", "--quiet", scratch, base, "/")
    buildah("commit", "--quiet", scratch, "localhost/base")
    recipe = ROOT / "contrib/container/Containerfile"
    options = ("--quiet", "--layers=false", "--build-arg=BASE=localhost/base", f"--file={recipe}")
    # A newer buildah raises these to what a login on a server has, and this machine may forbid that.
    limits = [f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in LIMITS.items()]
    buildah("build", *options, *limits, "--tag=sockmem-agent", packages.deb.parent)
    container = buildah("from", "localhost/sockmem-agent")
    config = json.loads(buildah("inspect", "--type=image", "localhost/sockmem-agent"))["OCIv1"]["config"]
    return Image(Path(buildah("mount", container)), config)


def make_base(root: Path) -> Path:
    """Make a minimal Debian that reaches its mirrors as this machine does."""
    mirror = run(
        sys.executable,
        "-B",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests/vm')!r}); import vm_apt; print(vm_apt.mirror())",
    )
    run("debootstrap", "--variant=minbase", "bookworm", root, mirror.strip())
    kept = [line for line in run("apt-config", "dump").splitlines() if line.startswith("Acquire::http")]
    (root / "etc/apt/apt.conf.d/99machine").write_text("\n".join(kept) + "\n")
    return root


class Node:
    """A node whose kubelet runs the containers of the DaemonSet's pod, each in a directory of its own."""

    def __init__(self, directory: Path, image: Image) -> None:
        self.directory, self.image, self.host = directory, image, directory / "host"
        self.config = CONFIG.replace('kind = "journal"', 'kind = "journal"\nstart = "beginning"')
        for volume in POD["volumes"]:
            self.source(volume).mkdir(parents=True)
        (self.host / "config.toml").write_text(self.config)
        self.runc = ("runc", "--root", directory / "runc")

    def source(self, volume: dict[str, Any]) -> Path:
        path = volume["hostPath"]["path"] if "hostPath" in volume else f"/pod/{volume['name']}"
        return self.host / path.lstrip("/")

    def bundle(self, container: dict[str, Any], *command: str) -> Path:
        """Write a container of the pod as an OCI bundle."""
        made = Path(tempfile.mkdtemp(prefix=container["name"], dir=self.directory))
        run("runc", "spec", "--bundle", made)
        spec = json.loads((made / "config.json").read_text())
        rights = POD["securityContext"] | container["securityContext"]
        given = [f"CAP_{name}" for name in rights["capabilities"].get("add", [])]
        assert rights["capabilities"]["drop"] == ["ALL"]
        image = self.image.config
        spec["root"] = {"path": str(self.image.root), "readonly": rights["readOnlyRootFilesystem"]}
        spec["process"] |= {
            "terminal": False,
            "args": [*command] or container.get("command") or image["Entrypoint"] + image["Cmd"],
            "env": image["Env"] + [f"{each['name']}={each['value']}" for each in container.get("env", [])],
            "user": {
                "uid": rights["runAsUser"],
                "gid": rights["runAsGroup"],
                "additionalGids": rights["supplementalGroups"],
            },
            "noNewPrivileges": not rights["allowPrivilegeEscalation"],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable"), given),
        }
        spec["mounts"] = [each for each in spec["mounts"] if each["type"] != "cgroup"]
        spec["mounts"] += [self.mount(each) for each in container["volumeMounts"]]
        # hostNetwork and hostPID: the node's, and with the first its name, too.
        spec["linux"] |= {"namespaces": [{"type": "mount"}, {"type": "ipc"}], "seccomp": seccomp()}
        spec["linux"].pop("resources", None)
        spec.pop("hostname", None)
        (made / "config.json").write_text(json.dumps(spec))
        return made

    def mount(self, mount: dict[str, Any]) -> dict[str, Any]:
        (volume,) = (each for each in POD["volumes"] if each["name"] == mount["name"])
        if "emptyDir" in volume:
            return {"destination": mount["mountPath"], "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
        source = self.host / "config.toml" if "subPath" in mount else self.source(volume)
        source = Path("/sys/fs/cgroup") if mount["mountPath"] == "/sys/fs/cgroup" else source
        options = ["rbind", "ro" if mount.get("readOnly") else "rw"]
        return {"destination": mount["mountPath"], "type": "bind", "source": str(source), "options": options}

    def run(self, container: dict[str, Any], *command: str) -> subprocess.CompletedProcess[str]:
        bundle = self.bundle(container, *command)
        started = (*self.runc, "run", "--bundle", bundle, bundle.name)
        return subprocess.run(started, capture_output=True, text=True, check=False, timeout=60)


def seccomp() -> dict[str, Any]:
    """Return RuntimeDefault for a process without capabilities, from the profile that container engines share."""
    profile = json.loads(SECCOMP.read_text())
    rules = [
        {name: rule[name] for name in ("names", "action", "args", "errnoRet") if rule.get(name) is not None}
        for rule in profile["syscalls"]
        if not rule.get("includes", {}).get("caps") and "amd64" in rule.get("includes", {}).get("arches", ["amd64"])
    ]
    default = {name: profile[name] for name in ("defaultAction", "defaultErrnoRet") if name in profile}
    return default | {"architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}


@pytest.fixture
def node(image: Image, tmp_path: Path) -> Node:
    """A node whose journal only its own group can read, with one message of the kernel's."""
    node = Node(tmp_path, image)
    journal = node.host / "var/log/journal"
    entry = "".join(f"{name}={value}\n" for name, value in KERNEL_SAYS.items()) + "__MONOTONIC_TIMESTAMP=9000000\n\n"
    subprocess.run(
        [REMOTE, f"--output={journal}/system.journal", "-"], input=entry.encode(), check=True, capture_output=True
    )
    os.chown(journal / "system.journal", 0, 190)
    (journal / "system.journal").chmod(0o640)
    return node


@pytest.fixture
def agent(node: Node) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run the pod as the kubelet does; give what runs a command in another container like the agent's."""
    first, container = POD["initContainers"][0], POD["containers"][0]
    done = node.run(first)
    assert 0 == done.returncode, done.stderr
    started = [*node.runc, "run", "--bundle", node.bundle(container), "agent"]
    with (node.directory / "log").open("w") as log:
        process = subprocess.Popen(started, stdout=log, stderr=log)
    try:
        wait_for(
            "an incident",
            lambda: process.poll() is not None or [*node.host.glob("var/lib/sockmem-agent/incidents/2*/incident.json")],
        )
        assert process.poll() is None, (node.directory / "log").read_text()
        yield lambda *command: node.run(container, *command)
    finally:
        subprocess.run([*node.runc, "kill", "agent", "KILL"], capture_output=True, check=False)
        process.wait(timeout=20)
        subprocess.run([*node.runc, "delete", "--force", "agent"], capture_output=True, check=False)


def test_the_image_has_the_agents_directories_for_volumes_to_take_after(image: Image) -> None:
    owners = {path: (image.root / path).stat() for path in ("var/lib/sockmem-agent", "run/sockmem-agent")}

    assert {(64731, 64731)} == {(each.st_uid, each.st_gid) for each in owners.values()}
    assert "64731:64731" == image.config["User"]


needs_journal = pytest.mark.skipif(not REMOTE.exists(), reason="systemd-journal-remote is not installed")


@needs_journal
def test_the_daemonset_has_the_rights_it_needs(node: Node, agent: Any) -> None:
    (path,) = node.host.glob("var/lib/sockmem-agent/incidents/2*/incident.json")
    incident = json.loads(path.read_text())
    runtime = node.host / "run/sockmem-agent"

    assert ("kernel", platform.node()) == (incident["provenance"], incident["host"])
    wait_for("the metrics", lambda: (runtime / "sockmem.prom").exists() and (runtime / "status.json").exists())
    assert {64731} == {each.stat().st_uid for each in (path, runtime, runtime / "status.json")}
    told = agent("sockmem-agent", "diagnose", "--json")
    seen = json.loads(told.stdout)
    assert seen["mechanism"]["tcp_max_orphans"] == int(Path("/proc/sys/net/ipv4/tcp_max_orphans").read_text())
    alive = agent(*POD["containers"][0]["livenessProbe"]["exec"]["command"])
    assert (0, "CRITICAL") == (alive.returncode, alive.stdout.partition(":")[0].partition(" ")[0]), alive.stdout


@needs_journal
def test_the_daemonset_has_no_right_to_change_the_node(node: Node, agent: Any) -> None:
    status = agent("cat", "/proc/self/status").stdout

    assert "CapEff:\t0000000000000000\n" in status
    assert "CapBnd:\t0000000000000000\n" in status
    assert "NoNewPrivs:\t1\nSeccomp:\t2\n" in status
    for path in (
        "/etc",
        "/usr",
        "/var/log/journal",
        "/var/log/pods",
        "/sys/fs/cgroup",
        "/etc/sockmem-agent/credentials",
    ):
        assert agent("touch", f"{path}/x").returncode == 1, path
    assert agent("touch", "/var/lib/sockmem-agent/x").returncode == 0


@needs_journal
@pytest.mark.parametrize("groups", [[4, 190], []])
def test_the_journal_needs_its_group(node: Node, groups: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POD["securityContext"], "supplementalGroups", groups)
    done = node.run(POD["containers"][0], "sockmem-agent", "scan", "--journal", "--directory", "/var/log/journal")

    assert bool(groups) == (done.returncode == 0), done.stdout + done.stderr
