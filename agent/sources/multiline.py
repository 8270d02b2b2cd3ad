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
from contextlib import suppress
from io import BufferedIOBase, BufferedReader, BytesIO

import msgspec

from agent.core.logs.prefilter import JSON_MARKERS, MARKERS, MAX_LINE_BYTES, REPEATS
from agent.core.logs.records import HOSTS, TIMES, spread

PEEK_BYTES = 4096
# A record has some thirty fields, and the kernel's are short; a core dump in one is not worth the memory.
FIELDS_AT_MOST = 200
FIELD_AT_MOST_BYTES = 4096
OBJECT_AT_MOST_BYTES = 256 * 1024
DEPTH_AT_MOST = 1000
# Makes an object that was cut no JSON.
_CUT = b"\0"
_BOM = b"\xef\xbb\xbf"
_COMMENTS = re.compile(rb"(?:-- [^\n]*\n)*")
# Excel wants to know what separates the cells.
_BEFORE_NAMES = re.compile(rb"(?:\s*\n|sep=.\r?\n)*")
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
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
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
        before = _BEFORE_NAMES.match(start)
        at = before.end() if before else 0
        self._names_line = start.count(b"\n", 0, at) + 1
        self._delimiter, self._names = _header(start[at:])
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
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece += self._stream.read(1)
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
                entry.append((self.read, text + b"=" + self._value()))
            elif entry and text.startswith(b"     "):
                number, field = entry[-1]
                entry[-1] = number, (field + b"\n" + text)[:FIELD_AT_MOST_BYTES]
            elif (
                self._begins_line
                and len(text) <= FIELD_AT_MOST_BYTES
                and len(entry) < FIELDS_AT_MOST
                and _is_field(text)
            ):
                entry.append((self.read, text))
            elif _matters(text):
                yield self.read, text
        yield from _whole(entry)

    def _value(self) -> bytes:
        """Read a value that stands behind its size, 64 bits, the least first; return its start."""
        left = int.from_bytes(self._stream.read(8), "little") + 1
        start = b""
        while left > 0 and (part := self._stream.read(min(left, PEEK_BYTES))):
            left -= len(part)
            start = start or part
            self.read += part.count(b"\n")
        return start.removesuffix(b"\n")

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        """Read CSV by the names before it; a row that does not fit them is a line of another log."""
        raw: list[bytes] = []

        def keep() -> Iterator[str]:
            for piece in self._pieces():
                raw.append(piece)
                yield piece.replace(b"\0", b"").decode(errors="replace")

        lines = keep()
        for _ in range(self._names_line):
            next(lines)
        rows = csv.reader(lines, delimiter=self._delimiter)
        while True:
            raw.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                row = []
            width = len(self._names)
            fits = len(row) >= width and not any(row[width:])
            line = (
                msgspec.json.encode(dict(zip(self._names, row, strict=False)))
                if fits
                else b"".join(raw).rstrip(b"\r\n")
            )
            if _matters(line):
                yield self.read, line

    def _objects(self) -> Iterator[tuple[int, bytes]]:
        """Read the objects of JSON; what stands between them is a log that begins with somebody's object."""
        objects = _Objects()
        for piece in self._pieces():
            is_text = self._begins_line and _has_text_outside_strings(piece)
            if self._begins_line and (is_text or objects.in_string):
                # Damaged: no string of JSON goes over lines, and no message stands outside of one.
                yield from _numbered(objects.unfinished(), self.read - 1)
                objects = _Objects()
            if is_text or not (objects.around or _BEGINS.match(piece)):
                if _matters(piece):
                    yield self.read, piece.rstrip(b"\r\n")
                continue
            whole = not objects.around and _is_object_with_marker(piece)
            for text in (piece,) if whole else objects.cut(piece):
                yield from _numbered(text, self.read)
        yield from _numbered(objects.unfinished(), self.read)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text that somebody hands over, each record in it as one."""
    entries = Entries(BufferedReader(BytesIO(text.encode())))
    found = [line for _, line in entries] if entries.are_here else []
    lines = found or [line.encode() for line in text.splitlines() if line.strip()]
    return [record.decode(errors="replace") for line in lines for record in spread(line)]


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
                    yield bytes(text)
        self._keep(piece[start:])
        del self.around[DEPTH_AT_MOST:]

    def unfinished(self) -> bytes:
        """Return what there is of the objects that have not ended."""
        return b"".join(text for _, text in self._begun)

    def _keep(self, text: bytes) -> None:
        """Keep a part; of what is too much for an object only its messages, so that it is refused and not lost."""
        if not self._begun:
            return
        kept = self._begun[-1][1]
        if len(kept) + len(text) <= OBJECT_AT_MOST_BYTES:
            kept.extend(text)
        elif len(kept) <= OBJECT_AT_MOST_BYTES:
            at = _find_marker(text)
            kept.extend(_CUT + (text[at : at + 200] if at >= 0 else b""))


def _header(start: bytes) -> tuple[str, list[str]]:
    """Return what separates the names in the first line of CSV, and these; "" where that line is none."""
    first = start.partition(b"\n")[0].decode(errors="replace").strip()
    for delimiter in ",;\t":
        try:
            names = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            return "", []
        known = {name.lower().lstrip("_") for name in names} & {*HOSTS, *TIMES}
        if len(names) > 1 and known and all(map(_NAME.fullmatch, names)):
            return delimiter, names
    return "", []


def _matters(line: bytes) -> bool:
    return _find_marker(line) >= 0 or any(repeat in line for repeat in REPEATS)


def _has_text_outside_strings(line: bytes) -> bool:
    """Return whether a message stands where no string of JSON is open, as in a line of another log."""
    at = min((at for marker in MARKERS if (at := line.find(marker)) >= 0), default=-1)
    return at >= 0 and _ESCAPED.sub(b"", line[:at]).count(b'"') % 2 == 0


def _is_object_with_marker(piece: bytes) -> bool:
    """Return whether a piece is one whole object that matters: what stands around a list in it is to be heard."""
    text = piece.strip()
    if not (text.startswith(b"{") and text.endswith(b"}") and _find_marker(text) >= 0):
        return False
    with suppress(msgspec.DecodeError, RecursionError, ValueError):
        msgspec.json.decode(text)
        return True
    return False


def _is_field(line: bytes) -> bool:
    return _VERBOSE.match(line) is not None or _FIELD.fullmatch(line) is not None


def _numbered(text: bytes, last: int) -> Iterator[tuple[int, bytes]]:
    """Give the records of an object that ends in a line, each on one line, if it holds a marker."""
    at = _find_marker(text)
    if at >= 0:
        number = last - text.rstrip(b"\r\n").count(b"\n", at)
        yield from ((number, record) for record in spread(b"".join(line.strip() for line in text.splitlines())))


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
