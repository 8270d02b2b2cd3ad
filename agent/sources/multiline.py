"""Records that are spread over lines, or that share one: each is brought to one line of JSON, with its fields' names.

journalctl(1) -o export and -o verbose; documents and arrays of JSON, on one line or many, such as journalctl's -o
json-pretty, dmesg(1) --json and what clouds export; CSV below a line of names, as log servers export it::

    __CURSOR=s=5ad8;i=1       Sun 2024-08-18 06:33:14.204518 UTC [s=5ad8;i=1;...]   {
    _TRANSPORT=kernel             _TRANSPORT=kernel                                         "_TRANSPORT" : "kernel",
    MESSAGE=TCP: ...              MESSAGE=TCP: ...                                          "MESSAGE" : "TCP: ..."
                                                                                    }
    "timestamp","source","message"
    "2024-08-18T06:33:14.204Z","jp58","Aug 18 08:33:14 jp58 kernel: TCP: ..."
"""

import csv
import re
from collections.abc import Iterator
from io import BufferedIOBase

import msgspec

from agent.core.logs.prefilter import JSON_MARKERS, MAX_LINE_BYTES
from agent.core.logs.records import HOSTS, TIMES

PEEK_BYTES = 4096
# A record has some thirty fields, and the kernel's are short; a core dump in one is not worth the memory.
FIELDS_AT_MOST = 200
FIELD_AT_MOST_BYTES = 4096
OBJECT_AT_MOST_BYTES = 256 * 1024
DEPTH_AT_MOST = 1000
_BOM = b"\xef\xbb\xbf"
_COMMENTS = re.compile(rb"(?:-- [^\n]*\n)*")
_VERBOSE = re.compile(
    rb"[A-Z][a-z]{2} \d{4}-\d\d-\d\d [^\[\n]{8,40}\[s=[^\]\n]*;m=([0-9a-f]{1,16});t=([0-9a-f]{1,16});"
)
# -o verbose indents a field by four, and the further lines of its value by more.
_FIELD = re.compile(rb"(?: {4})?([A-Z_][A-Z0-9_]*)=(.*)", re.DOTALL)
# -o export writes a value of several lines, or with bytes that are no text, behind its size.
_BINARY = re.compile(rb"[A-Z_][A-Z0-9_]*\r?\n")
# An array of objects, or an object that does not end where its line does: any other is a log of JSON Lines.
_JSON = re.compile(rb"\s*(?:\[\s*)+\{|\s*\{\s*(?:\n\s*\"|\"[^\n]*(?:[^}\s]\s*\n|\Z))")
_BEGINS = re.compile(rb"[\s,]*[\[{]\s*(?:[\"{}\[\]]|\Z)")
_STRING = rb"[^\"\\]*(?:\\.[^\"\\]*)*\""
_STRING_REST = re.compile(_STRING, re.DOTALL)
_NO_BRACKET = re.compile(rb"(?:[^\"{}\[\]]+|\"%b)*" % _STRING, re.DOTALL)
_NAME = re.compile(r"[@_A-Za-z][][\w.@ -]*")


class Entries:
    """The entries of an input that could matter, each with the number of the line that says so.

    ``are_here`` is whether the input begins like one with entries; ``read`` is afterwards how many lines there were.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._begins_line = True
        self.read = 0
        start = stream.peek(PEEK_BYTES)  # type: ignore[attr-defined]
        self._has_bom = start.startswith(_BOM)
        start = _COMMENTS.sub(b"", start.removeprefix(_BOM), count=1)
        self._delimiter = _delimiter(start)
        self._is_json = _JSON.match(start) is not None
        is_fields = start.startswith(b"__CURSOR=") or _VERBOSE.match(start) is not None
        self.are_here = self._is_json or is_fields or self._delimiter != ""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Read to the end; only whole entries are given, so that all that was said of the speaker is in them."""
        return self._objects() if self._is_json else self._rows() if self._delimiter else self._blocks()

    def _pieces(self) -> Iterator[bytes]:
        """Yield lines, and what is too long for a line in pieces; none ends within an escape of JSON."""
        ended = True
        self._stream.read(len(_BOM) if self._has_bom else 0)
        while piece := self._stream.readline(MAX_LINE_BYTES):
            while piece.endswith(b"\\") and (more := self._stream.read(1)):
                piece += more
            self._begins_line, ended = ended, piece.endswith(b"\n")
            self.read += self._begins_line
            yield piece

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Read -o export and -o verbose, where an empty line or a heading ends an entry."""
        entry: list[tuple[int, bytes]] = []
        for line in self._pieces():
            text = line.rstrip(b"\r\n")
            if not text or _VERBOSE.match(line):
                yield from _whole(entry)
                entry = []
            if _BINARY.fullmatch(line):
                self._pass_over_value()
            elif self._begins_line and len(text) <= FIELD_AT_MOST_BYTES and len(entry) < FIELDS_AT_MOST:
                entry.append((self.read, text))
        yield from _whole(entry)

    def _pass_over_value(self) -> None:
        """Read to the end of a value that stands behind its size: 64 bits, the least first."""
        left = int.from_bytes(self._stream.read(8), "little") + 1
        while left > 0 and (part := self._stream.read(min(left, PEEK_BYTES))):
            left -= len(part)
            self.read += part.count(b"\n")

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        """Read CSV by the names in its first line; a row that is no CSV is passed over."""
        lines = (piece.replace(b"\0", b"").decode(errors="replace") for piece in self._pieces())
        rows = csv.reader(lines, delimiter=self._delimiter)
        names = next(rows)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                continue
            line = msgspec.json.encode(dict(zip(names, row, strict=False)))
            if len(row) == len(names) and _find_marker(line) >= 0:
                yield self.read, line

    def _objects(self) -> Iterator[tuple[int, bytes]]:
        """Read the objects of JSON; what stands between them is a log that begins with somebody's object."""
        objects = _Objects()
        for piece in self._pieces():
            if self._begins_line and objects.in_string:
                objects = _Objects()  # Damaged: no string of JSON goes over lines.
            if not objects.around and not _BEGINS.match(piece):
                yield self.read, piece.rstrip(b"\r\n")
                continue
            for text in objects.cut(piece):
                at = _find_marker(text)
                if at >= 0:
                    yield self.read - text.count(b"\n", at), b"".join(line.strip() for line in text.splitlines())


class _Objects:
    """Cuts objects out of JSON that comes in pieces: those at the top, and those in an array that is not within one.

    ``around`` is the brackets that are open.
    """

    def __init__(self) -> None:
        self.around = bytearray()
        self.in_string = False
        # Of one at the top, and of one in an array in it: how many brackets were open before it, and its text.
        self._begun: list[tuple[int, bytearray]] = []

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """Yield the objects that end in the next piece; where one of them stood in another, that has a 0."""
        at = start = 0
        while rest := (_STRING_REST if self.in_string else _NO_BRACKET).match(piece, at):
            at = rest.end() + 1
            bracket = piece[at - 1 : at]
            if self.in_string or bracket == b'"':
                self.in_string = not self.in_string
                at -= not self.in_string
            elif bracket in {b"[", b"{"}:
                is_element = self.around.endswith(b"[") and [before for before, _ in self._begun] == [0]
                if bracket == b"{" and (is_element or not self._begun):
                    self._keep(piece[start : at - 1] + b"0")
                    self._begun.append((len(self.around), bytearray()))
                    start = at - 1
                self.around += bracket
            elif not bracket:
                break
            else:
                del self.around[-1:]
                if self._begun and len(self.around) == self._begun[-1][0]:
                    self._keep(piece[start:at])
                    start = at
                    _, text = self._begun.pop()
                    if len(text) <= OBJECT_AT_MOST_BYTES:
                        yield bytes(text)
        self._keep(piece[start:])
        del self.around[DEPTH_AT_MOST:]

    def _keep(self, text: bytes) -> None:
        if self._begun and len(self._begun[-1][1]) <= OBJECT_AT_MOST_BYTES:
            self._begun[-1][1].extend(text)


def _delimiter(start: bytes) -> str:
    """Return what separates the names in the first line of CSV, or "" where that line is none."""
    first = start.partition(b"\n")[0].decode(errors="replace").strip()
    for delimiter in ",;\t":
        names = next(csv.reader([first], delimiter=delimiter), [])
        known = {name.lower().lstrip("_") for name in names} & {*HOSTS, *TIMES}
        if len(names) > 1 and known and all(map(_NAME.fullmatch, names)):
            return delimiter
    return ""


def _find_marker(text: bytes) -> int:
    return min((at for marker in JSON_MARKERS if (at := text.find(marker)) >= 0), default=-1)


def _whole(entry: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Bring an entry to one line, if it holds a marker; the heading of -o verbose has its times, in microseconds."""
    number = next((number for number, text in entry if _find_marker(text) >= 0), None)
    fields: dict[str, str] = {}
    for _, text in entry if number else ():
        heading, field = _VERBOSE.match(text), _FIELD.fullmatch(text)
        if heading:
            fields["__MONOTONIC_TIMESTAMP"], fields["__REALTIME_TIMESTAMP"] = (
                str(int(hexadecimal, 16)) for hexadecimal in heading.groups()
            )
        elif field:
            fields[field[1].decode()] = field[2].decode(errors="replace")
    if number:
        yield number, msgspec.json.encode(fields)
