"""What a machine is made of: Debian's root file system, Debian's cloud kernels, and a small initramfs for each of them.

What the recipe below makes is kept under a hash of the recipe, so that an old one is never taken for a new one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vm_apt import (
    KERNELS,
    KEYRING,
    ROOT_RELEASE,
    CannotBuildError,
    cache,
    download,
    kernel_packages,
    mirror,
    needing_the_mirror,
    run,
    search_path,
)

HERE = Path(__file__).parent
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "debootstrap": "debootstrap",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
}
# What the package depends on, what scenarios use, and nothing else.
ROOT_PACKAGES = (
    "systemd", "systemd-sysv", "udev", "dbus", "python3", "python3-systemd", "ca-certificates",
    "kmod", "procps", "iproute2", "rsyslog", "logrotate", "man-db", "systemd-container",
)  # fmt: skip
# What the kernels have as modules; the rest they have built in. Loaded by the kernel itself when it is asked for.
MODULES = ("virtio_pci", "virtio_blk", "tcp_diag", "inet_diag", "veth")
# Nothing may start by itself in the middle of a scenario.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "logrotate.timer", "man-db.timer", "getty.target", "serial-getty@ttyS0.service",
    "getty@tty1.service", "systemd-timesyncd.service", "systemd-hwdb-update.service", "systemd-pstore.service",
    "rsyslog.service",
)  # fmt: skip
STATION_UNIT = """\
[Unit]
Description=Runs what the host sends over the second serial line
After=systemd-user-sessions.service

[Service]
ExecStart=/usr/bin/python3 /opt/vm/station.py
StandardOutput=journal+console
# The kernel's first choice stays with the scenario's own processes.
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""
INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe virtio_pci
modprobe virtio_blk
tries=0
until [ -e /dev/vda ] || [ $tries -gt 200 ]; do tries=$((tries + 1)); sleep 0.05; done
mount -t ext4 /dev/vda /newroot
mkdir -p /newroot/lib/modules
mount -t tmpfs -o mode=755 modules /newroot/lib/modules
cp -a /lib/modules/* /newroot/lib/modules/
umount /proc /sys
mount --move /dev /newroot/dev
exec switch_root /newroot /lib/systemd/systemd
"""


@dataclass(frozen=True)
class Parts:
    """What QEMU needs to boot one kernel: the kernel, its initramfs, and the root file system they share."""

    kernel: Path
    initramfs: Path
    root: Path
    release: str


def parts(version: str) -> Parts:
    """Make, or find in the cache, what boots a kernel of this series, "6.1"; CannotBuildError says what is missing."""
    _check_host()
    release, packages = kernel_packages(version)
    folder = cache() / f"kernel-{release}-{_hash(INIT, *MODULES)}"
    if not folder.exists():
        _make(folder, lambda into: _build_kernel(into, KERNELS[version], release, packages))
    return Parts(kernel=folder / "vmlinuz", initramfs=folder / "initramfs", root=root_image(), release=release)


def root_image() -> Path:
    """Make, or find in the cache, the root file system's image: ext4, 2 GiB sparse."""
    station = (HERE / "guest" / "station.py").read_text()
    folder = cache() / f"root-{ROOT_RELEASE}-{_hash(STATION_UNIT, station, *ROOT_PACKAGES, *MASKED_UNITS)}"
    if not folder.exists():
        _make(folder, lambda into: _build_root(into, station))
    return folder / "root.img"


def _check_host() -> None:
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool, path=search_path()) is None)
    if missing:
        raise CannotBuildError(f"tools are missing; install them: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise CannotBuildError("debootstrap needs root; run it as root")
    if not KEYRING.exists():
        raise CannotBuildError(f"{KEYRING} is missing; install it: apt-get install debian-archive-keyring")


def _make(folder: Path, build: Callable[[Path], None]) -> None:
    """Let ``build`` fill a new folder, which gets its name only when it is whole."""
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sys.stderr.write(f"vm: building {folder.name}\n")
    try:
        build(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digest(*parts: bytes) -> str:
    """Return a short name for what something is made of."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _hash(*texts: str) -> str:
    return digest(*(text.encode() for text in texts))


def _build_kernel(into: Path, suite: str, release: str, packages: tuple[str, ...]) -> None:
    """Unpack the packages, take the kernel, and pack the modules that a scenario may need into an initramfs."""
    unpacked = into / "unpacked"
    unpacked.mkdir()
    # Not this machine's busybox: that may need libraries, which the initramfs has none of.
    download(suite, into, *packages, f"busybox-static/{ROOT_RELEASE}")
    for archive in into.glob("*.deb"):
        run("dpkg-deb", "-x", archive, unpacked)
        archive.unlink()
    modules = next(folder for folder in unpacked.glob(f"**/lib/modules/{release}") if folder.is_dir())
    kernel = next(file for file in (unpacked / f"boot/vmlinuz-{release}", modules / "vmlinuz") if file.exists())
    shutil.copy(kernel, into / "vmlinuz")
    tree = into / "tree"
    _fill_initramfs(tree, modules, release, next(unpacked.glob("**/bin/busybox")))
    listed = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=listed.encode(), capture_output=True, check=True
    )
    (into / "initramfs").write_bytes(packed.stdout)
    shutil.rmtree(tree)
    shutil.rmtree(unpacked)


def _fill_initramfs(tree: Path, modules: Path, release: str, busybox: Path) -> None:
    for folder in ("bin", "dev", "proc", "sys", "newroot"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    source = modules.parent.parent.parent
    target = tree / "lib" / "modules" / release
    run("depmod", "-b", source, release)
    for name in MODULES:
        for line in run("modprobe", "-d", source, "-S", release, "--show-depends", name).splitlines():
            if line.startswith("insmod "):
                file = Path(line.split()[1])
                inside = Path(*file.parts[file.parts.index(release) + 1 :])
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target / inside)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(modules / name, target / name)
    run("depmod", "-b", tree, release)


def _build_root(into: Path, station: str) -> None:
    tree = into / "tree"
    packages = ",".join(ROOT_PACKAGES)
    with needing_the_mirror():
        run("debootstrap", "--variant=minbase", f"--include={packages}", ROOT_RELEASE, tree, mirror())
    shutil.rmtree(tree / "var/lib/apt/lists")
    for archive in (tree / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    (tree / "etc/hostname").write_text("vm\n")
    (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (tree / "etc/machine-id").write_text("uninitialized\n")
    units = tree / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    # A journal on disk, as on a server: it is there after a reboot.
    (tree / "var/log/journal").mkdir(parents=True, exist_ok=True)
    (units / "vm-station.service").write_text(STATION_UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/vm-station.service").symlink_to("../vm-station.service")
    (tree / "opt/vm").mkdir()
    (tree / "opt/vm/station.py").write_text(station)
    image = into / "root.img"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", tree, image)
    shutil.rmtree(tree)
