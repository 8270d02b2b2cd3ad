"""Log entries that are spread over lines, each brought to one line of JSON: who spoke stands on another line than what.

journalctl(1) -o export, -o verbose and -o json-pretty, and dmesg(1) --json write::

    __CURSOR=s=5ad8;i=1       Sun 2024-08-18 06:33:14.204518 UTC [s=5ad8;i=1;...]   {
    _TRANSPORT=kernel             _TRANSPORT=kernel                                         "_TRANSPORT" : "kernel",
    MESSAGE=TCP: ...              MESSAGE=TCP: ...                                          "MESSAGE" : "TCP: ..."
                                                                                    }
"""

import re
from collections.abc import Iterator
from io import BufferedIOBase

import msgspec

from agent.core.logs.prefilter import JSON_MARKERS, MAX_LINE_BYTES

PEEK_BYTES = 4096
# An entry has some thirty fields, and the kernel's are short; a core dump in one is not worth the memory.
FIELDS_AT_MOST = 200
FIELD_AT_MOST_BYTES = 4096
_COMMENTS = re.compile(rb"\A(?:-- [^\n]*\n)*")
_SPREAD_JSON = re.compile(rb"\s*(?:\[\s*)?\{\s*\n\s*\"")
_VERBOSE = re.compile(
    rb"[A-Z][a-z]{2} \d{4}-\d\d-\d\d [^\[\n]{8,40}\[s=[^\]\n]*;m=([0-9a-f]{1,16});t=([0-9a-f]{1,16});"
)
# -o verbose indents a field by four, and the further lines of its value by more.
_FIELD = re.compile(rb"(?: {4})?([A-Z_][A-Z0-9_]*)=(.*)", re.DOTALL)
# -o export writes a value of several lines, or with bytes that are no text, behind its size.
_BINARY = re.compile(rb"[A-Z_][A-Z0-9_]*\r?\n")


class Entries:
    """The entries of an input that could matter, each with the number of the line that says so.

    ``read`` is afterwards how many lines there were.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._entry: list[tuple[int, bytes]] = []
        self.read = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Read to the end; only whole entries are given, so that whoever spoke has had his say."""
        is_json = False
        while line := self._stream.readline(MAX_LINE_BYTES):
            self.read += 1
            text = line.strip()
            begins = text.endswith(b"{") and (is_json or text == b"{")
            ends = text.startswith(b"}") if is_json else not line.rstrip(b"\r\n")
            is_json |= begins
            if ends or begins or _VERBOSE.match(line):
                yield from self._whole(is_json=is_json)
            if ends or begins:
                continue
            if not is_json and _BINARY.fullmatch(line):
                self._pass_over_value()
            elif is_json and text[:1] not in {b"", b'"', b"]"}:
                yield self.read, line.rstrip(b"\r\n")  # A log of lines that begins with somebody's object.
            elif len(text) <= FIELD_AT_MOST_BYTES and len(self._entry) < FIELDS_AT_MOST:
                self._entry.append((self.read, text if is_json else line.rstrip(b"\r\n")))
        yield from self._whole(is_json=is_json)

    def _pass_over_value(self) -> None:
        """Read to the end of a value that stands behind its size: 64 bits, the least first."""
        left = int.from_bytes(self._stream.read(8), "little") + 1
        while left > 0 and (part := self._stream.read(min(left, PEEK_BYTES))):
            left -= len(part)
            self.read += part.count(b"\n")

    def _whole(self, *, is_json: bool) -> Iterator[tuple[int, bytes]]:
        """Return the entry that has ended, if it holds a marker."""
        entry, self._entry = self._entry, []
        number = next((number for number, text in entry if any(marker in text for marker in JSON_MARKERS)), None)
        if number is not None:
            texts = [text for _, text in entry]
            yield number, b"{%s}" % b"".join(texts) if is_json else msgspec.json.encode(_fields(texts))


def are_entries(start: bytes) -> bool:
    """Tell by its first lines whether an input spreads its entries over lines."""
    start = _COMMENTS.sub(b"", start)
    return start.startswith(b"__CURSOR=") or bool(_SPREAD_JSON.match(start) or _VERBOSE.match(start))


def _fields(texts: list[bytes]) -> dict[str, str]:
    """Bring the lines of an entry to fields; the heading of -o verbose holds its times, in microseconds."""
    fields: dict[str, str] = {}
    for text in texts:
        heading, field = _VERBOSE.match(text), _FIELD.fullmatch(text)
        if heading:
            fields["__MONOTONIC_TIMESTAMP"], fields["__REALTIME_TIMESTAMP"] = (
                str(int(hexadecimal, 16)) for hexadecimal in heading.groups()
            )
        elif field:
            fields[field[1].decode()] = field[2].decode(errors="replace")
    return fields
