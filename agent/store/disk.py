"""Files that exist whole or not at all: write aside, fsync, rename, fsync the directory (rename(2), fsync(2)).

Nothing in the state directory stops the service for good: no FIFO is waited for, no link followed, no file of 3 GB
read, and what is damaged or in the way is renamed (``set_aside``), never deleted.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

T = TypeVar("T")

log = logging.getLogger("sockmem-agent")

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
# Ten times the largest file that is written here: a snapshot of a host with many cgroups and sockets.
LARGEST_BYTES = 16 * 1024 * 1024
# As the value of a key, or in a list that is one: within a string every quotation mark is escaped.
_LONG_NUMBER = re.compile(rb'(?<!\\)":\[?(?:-?\d+,)*-?\d{40}')
# Of 40 digits in a row, every eighth byte makes five; a search for one text takes a fifth of that for a pattern.
_SAMPLE, _AS_ZEROS, _MAY_BE_LONG = 8, bytes.maketrans(b"123456789", b"0" * 9), b"0" * 5
_NO_FILE_OF_OURS = {errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EFBIG}
_REASONS = {errno.ELOOP: "a symbolic link, not a regular file", errno.ENXIO: "a socket, not a regular file"}


class StoreError(Exception):
    """Something in the state directory cannot be read or written; the text is one clear line with the fix."""


class UnreadableError(StoreError):
    """``why`` a file cannot be read; ``is_damage``: it holds what this program never writes, or is not a file."""

    def __init__(self, path: Path | str, why: str, *, is_damage: bool) -> None:
        super().__init__(f"{path}: cannot be read ({why}); move it away, or restore it from a backup")
        self.why = why
        self.is_damage = is_damage


def make_directory(path: Path) -> None:
    """Make a directory of mode 0750, and those above it, so that their names survive a power cut."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        make_unflushed_directory(directory)
        sync_directory(directory.parent)


def make_unflushed_directory(path: Path) -> None:
    """Make a directory of mode 0750; the caller flushes the directory above it."""
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    path.chmod(DIRECTORY_MODE)


def point(link: Path, target: str) -> None:
    """Make a symbolic link in one step; what else has its name is set aside. It is derived, and so not flushed."""
    aside = link.with_name(f".{link.name}.new")
    if os.path.lexists(aside) and not aside.is_symlink():
        set_aside(aside, "not a symbolic link")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    if os.path.lexists(link) and not link.is_symlink():
        set_aside(link, "not a symbolic link")
    aside.rename(link)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to disk."""
    with closing_descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
        os.fsync(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place in one step, mode 0640; the caller flushes its directory."""
    put_in_place(path, write_aside(path, data))


def write_together(files: Mapping[Path, bytes], new_names: Iterable[Path], meanwhile: Callable[[], None]) -> None:
    """Put files in place, the last one when all others are on disk, with the ``new_names`` in other directories.

    All are written aside, then all flushed, then renamed in their order: were each flushed alone, each would wait for
    the file system's journal. ``meanwhile`` runs while the disk works. A failure leaves nothing aside, and may leave
    all but the last in place.
    """
    asides, descriptors = dict[Path, Path](), list[int]()
    try:
        for path, data in files.items():
            asides[path], descriptor = open_aside(path, data)
            descriptors.append(descriptor)
            start_flushing(descriptor)
        meanwhile()
        for path, descriptor in zip(files, descriptors, strict=True):
            with naming(path):
                os.fsync(descriptor)
        *others, last = files
        for path in others:
            put_in_place(path, asides.pop(path))
        for directory in dict.fromkeys((*new_names, *(path.parent for path in files))):
            sync_directory(directory)
        put_in_place(last, asides.pop(last))
        sync_directory(last.parent)
    except OSError:
        for aside in asides.values():
            with contextlib.suppress(OSError):
                aside.unlink()
        raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def write_unflushed(path: Path, data: bytes) -> None:
    """Put a file in place whose end a power cut may take: its reader has to notice."""
    aside, descriptor = open_aside(path, data)
    os.close(descriptor)
    try:
        put_in_place(path, aside)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def write_aside(path: Path, data: bytes) -> Path:
    """Write and flush the data under the name aside, which is returned; a failure leaves nothing there."""
    aside, descriptor = open_aside(path, data)
    try:
        with naming(path), closing_descriptor(descriptor):
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    return aside


def open_aside(path: Path, data: bytes) -> tuple[Path, int]:
    """Write the data under the name aside; return that and its descriptor. A failure leaves nothing there."""
    aside = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with naming(path):
            try:
                descriptor = os.open(aside, flags, FILE_MODE)
            except FileExistsError:
                clear_way(aside)
                aside.unlink(missing_ok=True)  # What a crash left.
                descriptor = os.open(aside, flags, FILE_MODE)
            try:
                os.fchmod(descriptor, FILE_MODE)
                write_all(descriptor, data)
            except OSError:
                os.close(descriptor)
                raise
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()  # A full disk must not stay full because of us.
        raise
    return aside, descriptor


def start_flushing(descriptor: int) -> None:
    """Have the kernel write a file's data without waiting for it (__filemap_fdatawrite_range in mm/fadvise.c)."""
    with contextlib.suppress(OSError):  # A hint: what fails shows when it is waited for.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def put_in_place(path: Path, aside: Path) -> None:
    """Rename a file to its name; a directory there is set aside."""
    with naming(path):
        try:
            aside.rename(path)
        except IsADirectoryError:
            set_aside(path, "a directory, not a regular file")
            aside.rename(path)


def fill(path: Path, data: bytes, room: Path) -> None:
    """Put a file in place as ``write_whole`` does, using what was reserved under the name ``room``, if anything.

    A failure keeps that room: the next try needs it.
    """
    aside = room.with_name(f".{room.name}.new")
    clear_way(aside)
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        write_whole(path, data)
        return
    with naming(path), closing_descriptor(descriptor):
        write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
        aside.rename(path)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all the data: a disk that is nearly full takes a part, and says why only when given the remainder."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError: write(2) and fsync(2) do not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close a file descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def encode_json(value: msgspec.Struct) -> bytes:
    """Encode a struct as JSON that a person can read in an editor."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Write a struct as JSON that a person can read in an editor."""
    write_whole(path, encode_json(value))


def read_json(path: Path | str, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a struct; UnreadableError names the file and the fix in one line."""
    try:
        data = read_regular(path)
        value = decoder.decode(data)
        if _MAY_BE_LONG in data[::_SAMPLE].translate(_AS_ZEROS):
            check_numbers(value)
    except OSError as error:
        raise UnreadableError(path, reason(error), is_damage=is_no_file(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
        raise UnreadableError(path, str(error), is_damage=True) from error
    return value


def check_numbers(value: object) -> None:
    """Raise OverflowError for a number too large for a float: arithmetic with it would end the process."""
    if _LONG_NUMBER.search(msgspec.json.encode(value)):
        raise OverflowError("a number of 40 digits or more")


def is_no_file(error: OSError) -> bool:
    """Return whether something else is in the place of our file; other errors may go away, as EACCES by a chown."""
    return error.errno in _NO_FILE_OF_OURS


def reason(error: OSError) -> str:
    """Describe an error of open or read."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def read_regular(path: Path | str) -> bytes:
    """Read a whole regular file; OSError says what else it is, or that it is larger than any of ours."""
    descriptor, size = _open_regular(path)
    try:
        if size > LARGEST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {LARGEST_BYTES >> 20} MiB", str(path))
        # Without a file object, and with room for no more than there is: a fifth of the time.
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, without following a link or waiting for a FIFO's writer."""
    return open(_open_regular(path)[0], "rb")  # noqa: PTH123 - a descriptor


def _open_regular(path: Path | str) -> tuple[int, int]:
    """Open a regular file; return its descriptor and its size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, status.st_size


def set_aside(path: Path, why: str, then: str = "") -> None:
    """Rename what is damaged to NAME.broken, and log that and what is done ``then``."""
    aside, number = path.with_name(f"{path.name}.broken"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.broken.{number}")
    path.rename(aside)
    log.error("%s: cannot be read (%s); set aside as %s%s", path, why, aside.name, then)


def clear_way(path: Path) -> None:
    """Set aside what is in the place of a file: a FIFO, a link, a directory."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            set_aside(path, "not a regular file")


def hold_lock(directory: Path) -> int:
    """Lock a state directory for the life of this process: every file has one writer."""
    path = directory / "lock"
    clear_way(path)
    descriptor = _open_lock(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # NFS turns flock into a lock of fcntl(2), which needs a descriptor open for writing.
            os.close(descriptor)
            descriptor = _open_lock(path, os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreError(f"{directory}: another sockmem-agent uses this state directory; stop it first") from error
    return descriptor


def _open_lock(path: Path, access: int) -> int:
    """Open the lock, which may be another user's and read-only, or create it."""
    flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, FILE_MODE)


def size_of(directory: Path) -> int:
    """Sum the bytes of our files in a directory; damaged ones must not make retention remove others."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat(follow_symlinks=False).st_size
                total += size if size <= LARGEST_BYTES and ".broken" not in entry.name else 0
    return total


def remove_tree(directory: Path) -> None:
    """Remove a directory, even while another process does."""
    import shutil  # noqa: PLC0415 - brings bz2, lzma and zlib along, 2 ms of each start

    while directory.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
