"""The disk below the state directory: what is on it, what is in memory only, and what a power cut makes of that.

The few calls by which files change are taken over from the os module. They do their work on real files, and note beside
it what is durable: of a file its bytes at the last fsync, and the name under which it was created, as on ext4, XFS and
btrfs; of a directory its names at the last fsync. Until then each change of a name may be kept or not, in any order,
and bytes may be kept, dropped or torn, as POSIX allows.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest import mock


class Killed(BaseException):
    """The process has ended: kill -9, or the power is gone."""


class Node:
    """A file, a directory, or a link with its target."""

    def __init__(self, kind: str = "file") -> None:
        self.kind = kind
        self.data = self.flushed = b""
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.pending: list[dict[str, Node | None]] = []

    def change(self, change: "dict[str, Node | None]") -> None:
        """Change names, all of them or none: that is what rename(2) does."""
        self.pending.append(change)
        self.names = applied(self.names, change)

    def keep(self, name: str) -> None:
        """Make a name durable, with what has it."""
        self.durable = applied(self.durable, {name: self.names[name]})
        self.pending = [change for change in self.pending if change.keys() != {name}]

    def flush(self) -> None:
        self.flushed, self.durable = self.data, dict(self.names)
        self.pending.clear()

    def survive(self, chance: Random) -> "Node":
        """Return what a power cut leaves of it."""
        left = Node(self.kind)
        torn = int(chance.random() * (len(self.data) + 1))  # One draw, however many digits an inode has.
        left.data = chance.choice((self.data, self.flushed, self.data[:torn] + self.flushed[torn:]))
        names = self.durable
        for change in self.pending:
            names = applied(names, change) if chance.random() < 0.5 else names
        left.names = {name: node.survive(chance) for name, node in sorted(names.items())}
        left.flush()
        return left


def applied(names: dict[str, Node], change: dict[str, Node | None]) -> dict[str, Node]:
    return {name: node for name, node in {**names, **change}.items() if node}


Before = Callable[..., None]


class Disk:
    """Everything below ``root``.

    ``before(call, path, grows=...)`` comes before each change, and may raise instead; ``after(path)`` behind a rename.
    """

    NAMES = ("open", "close", "write", "fsync", "ftruncate", "rename", "unlink", "mkdir", "rmdir", "symlink", "scandir")

    def __init__(self, root: Path, before: Before, after: Callable[[Path], None]) -> None:
        self.root, self._before, self._after = root, before, after
        self._tree: Node | None = Node("directory")
        self._opened: dict[int, tuple[Path, Node]] = {}
        self._real = {name: getattr(os, name) for name in self.NAMES}
        root.mkdir()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        calls = {name: getattr(self, name) for name in self.NAMES}
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.multiple(os, **calls, remove=self.unlink))
            if hasattr(pathlib, "_normal_accessor"):  # Python 3.10 keeps functions of its own.
                accessor = {name: calls[name] for name in ("rename", "unlink", "mkdir", "rmdir", "symlink", "scandir")}
                stack.enter_context(mock.patch.multiple(pathlib._normal_accessor, **accessor))
            yield

    def abandon(self) -> None:
        """Close what a process that was killed had open."""
        for descriptor in list(self._opened):
            self.close(descriptor)

    def cut_power(self, chance: Random) -> None:
        """Leave what survives."""
        tree, self._tree = self._tree.survive(chance), None  # Meanwhile nothing is noted.
        shutil.rmtree(self.root)
        self._restore(self.root, tree)
        self._tree = tree

    def is_durable(self, at: Path) -> bool:
        """Return whether a power cut leaves a file, or an older one of this name."""
        node: Node | None = self._tree
        for name in at.parts:
            node = node.durable.get(name) if node else None
        return node is not None

    # --- the calls ----------------------------------------------------------------------------------------------------

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        is_watched = flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY)
        at = self._place(path, dir_fd) if is_watched else None
        is_new = at is not None and flags & os.O_CREAT and self._find(at) is None
        if is_new:
            self._before("create", at, grows=True)
        descriptor = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if is_new:
            self._find(at.parent).change({at.name: Node()})
        self._opened.pop(descriptor, None)  # Closed since by a file object, which does not ask the os module.
        if at is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY):
            self._opened[descriptor] = at, self._find(at)
        return descriptor

    def close(self, descriptor):
        self._opened.pop(descriptor, None)
        self._real["close"](descriptor)

    def write(self, descriptor, data):
        if descriptor not in self._opened:
            return self._real["write"](descriptor, data)
        at, node = self._opened[descriptor]
        appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        grows = appends or os.lseek(descriptor, 0, os.SEEK_CUR) + len(data) > len(node.data)
        self._before("write", at, grows=bool(grows))
        return self._changed(descriptor, self._real["write"](descriptor, data))

    def ftruncate(self, descriptor, length):
        if descriptor in self._opened:
            self._before("truncate", self._opened[descriptor][0])
        self._changed(descriptor, self._real["ftruncate"](descriptor, length))

    def fsync(self, descriptor):
        at, node = self._opened[descriptor]
        self._before("fsync", at)
        node.flush()
        if node.kind == "file":
            self._find(at.parent).keep(at.name)

    def rename(self, source, target, *, src_dir_fd=None, dst_dir_fd=None):
        old, new = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        if old is None or new is None:
            self._real["rename"](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        self._before("rename", new)
        self._real["rename"](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        assert old.parent == new.parent
        parent = self._find(old.parent)
        parent.change({new.name: parent.names[old.name], old.name: None})
        self._after(new)

    def unlink(self, path, *, dir_fd=None):
        self._change("unlink", path, dir_fd, None)

    def rmdir(self, path, *, dir_fd=None):
        self._change("rmdir", path, dir_fd, None)

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self._change("mkdir", path, dir_fd, Node("directory"), mode)

    def symlink(self, source, target, target_is_directory=False, *, dir_fd=None):  # noqa: FBT002 - as os has it
        at = self._place(target, dir_fd)
        if at is not None:
            self._before("symlink", at, grows=True)
        self._real["symlink"](source, target, target_is_directory, dir_fd=dir_fd)
        if at is not None:
            self._find(at.parent).change({at.name: Node(os.fspath(source))})

    def scandir(self, path="."):
        """List in order of the names: a file system's own order is no part of the seed."""
        with self._real["scandir"](path) as entries:
            return _Entries(sorted(entries, key=lambda entry: entry.name))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _change(self, call, path, dir_fd, node, *arguments):
        at = self._place(path, dir_fd)
        if at is not None and (node or self._find(at)):
            self._before(call, at, grows=node is not None)
        self._real[call](path, *arguments, dir_fd=dir_fd)
        if at is not None:
            self._find(at.parent).change({at.name: node})

    def _changed(self, descriptor, result):
        if descriptor in self._opened:
            _, node = self._opened[descriptor]
            # By another descriptor, since ours may be for writing alone.
            node.data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        return result

    def _place(self, path, dir_fd) -> Path | None:
        """Return the place below the root; None for what is elsewhere."""
        if isinstance(path, int) or self._tree is None:
            return None
        above = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/" if dir_fd is not None else ""  # noqa: PTH115 - no link of ours
        text, root = f"{above}{os.fspath(path)}", str(self.root)
        return Path(text[len(root) + 1 :]) if text == root or text.startswith(f"{root}/") else None

    def _find(self, at: Path) -> Node | None:
        node: Node | None = self._tree
        for name in at.parts:
            node = node.names.get(name) if node else None
        return node

    def _restore(self, path: Path, node: Node) -> None:
        if node.kind == "directory":
            self._real["mkdir"](path, 0o750)
            for name, child in node.names.items():
                self._restore(path / name, child)
        elif node.kind == "file":
            path.write_bytes(node.data)
            path.chmod(0o640)
        else:
            self._real["symlink"](node.kind, path)


class _Entries(list):
    """What os.scandir returns: it can be entered and closed."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.clear()
