"""HTTP answers as nobody would send them: valid ones by a small grammar, with odd parts here and there, then damaged.

An answer depends on its seed alone. ``@@`` stands for what must not be told: the server says it back.
"""

import gzip
import random
from collections.abc import Callable, Sequence
from functools import cache


def _pool(text: str) -> list[str]:
    return text.split("|")


STATUS = _pool("200|200|200|200|200|201|202|204|302|307|400|401|403|404|410|413|429|429|500|502|503|503|504")
ODD_STATUS = _pool(
    "205|206|226|299|300|301|303|304|305|308|405|407|408|421|425|431|451|499|501|507|511|520|599|100|101|102|103|199|600|"
    "999|0|00|1|20|99|099|0200|1000|20000|-1|-200|+200|2e2|200.0|0xc8|2_00|\u0662\u0660\u0660|OK||@@"
)
ODD_VERSIONS = _pool(
    "HTTP/1.0|HTTP/0.9|HTTP/1.2|HTTP/1.|HTTP/|HTTP/2|HTTP/2.0|HTTP/11|http/1.1|ICY|| HTTP/1.1|HTTP/-1.1"
)
ODD_REASONS = [*_pool("|Found|@@|\x1b[2J|\xff\x00|a\rb|\u2028|%s%n{}"), "x" * 70_000]
NUMBERS = [
    *_pool("0|1|2|3|5|7|120|3600|3601|-1|-5|-0|+2| 2 |2 2|2,2|2, 3|2_0|1.5|1e9|0x10|nan|inf|two||@@|\u0662"),
    *("2147483648", "9223372036854775808", "9" * 30, "9" * 5000),
]
HEX = [
    *_pool("0|1|a|A|ff|1000|10000|-1|-5|-0|+2|0x2|2;x=y|2 | 2||g|ffffffffffffffff|2_0|two|\u0662|\0|@@"),
    *("f" * 3000, "2;" + "x" * 70_000),
]
DAYS, MONTHS = _pool("Mon|Sun|Foo||Monday|\xe9"), _pool("Jan|Feb|Nov|Foo|13||January")
YEARS = _pool("2026|2027|26|99|0|0001|9999|10000|99999999999999|-1|twenty")
CLOCKS = _pool("00:00:00|15:05:39|23:59:60|24:00:00|99:99:99|15:05|15|15.05.39||-1:00:00|99999999999999999999:0:0")
ZONES = _pool("GMT|UTC|-0000|+0000|+2359|-2359|+9999|+99999999999999|EST|Z||\xe9")
CODINGS = [
    *_pool("gzip|deflate|br|zstd|compress|identity|x-gzip|chunked|Chunked| chunked |chunked;q=1|gzip, chunked"),
    *_pool("chunked, gzip|chunked, chunked|gzip, gzip, gzip, gzip, gzip|\xe9||@@"),
    *(", " * 3000 + "gzip", "gzip, " * 2000 + "gzip"),
]
PLACES = [
    *_pool(
        "/|/caf\xe9|http://[::1/|http://[::1]/|//|///|http://|https://:0/|http://h:99999999/|@@|http://h:port/|\x00"
    ),
    *_pool("javascript:x|http://\xff\xfe/|http://@@@h/|?|#|ftp://h/|http://h\\@x/|http://%zz/|http://xn--/| |\u2028"),
    *("/" * 60_000, "../" * 90, "http://" + "a" * 300 + ".example/"),
]
TYPES = [
    *_pool(
        "text/plain|application/json|text/html; charset=@@|text/plain; charset=\xe9|multipart/mixed|message/rfc822|/|;|"
    ),
    *_pool("multipart/mixed; boundary=b|message/delivery-status|message/external-body; boundary=b"),
    *_pool("text/plain; a*0*=utf-8''%ff; a*1=b|multipart/digest; boundary*0=b; boundary*1=c"),
    *("multipart/mixed; boundary=" + "b" * 60_000, "text/plain" + "; a=b" * 9000, 'text/plain; a="' + '\\"' * 20_000),
]
COOKIES = [
    *_pool("a=b|a=b; expires=@@|\xe9=\xe9|;|a=b; max-age=99999999999"),
    "=;" * 9000,
    "a=b; expires=" + "1 " * 9000,
]
WORDS = [*_pool("close|keep-alive|upgrade|h2c|@@||Basic realm=@@|a\rb: c|a\0b|\x1b[2J|\xff|chunked"), "x" * 66_000]
NAMES = _pool("X|Server|Via|Link|Upgrade|WWW-Authenticate|Trailer|Keep-Alive|Connection|Proxy-Connection|Alt-Svc")
ODD_LINES = [
    *_pool("no colon|: no name| folded|\tfolded|X : blank before||--b|--b--|From @@ Mon|X:|\0|\xe9: \xe9|:|X:\r"),
    *_pool("X: a\rContent-Length: 5|X: \x0b\x0c\x1c\x85 y|Status: 500|HTTP/1.1 500 No|Content-Length\0: 9"),
]
ODD_BODIES = [
    *_pool("|OK|ok\n|\ufeffok|no_service|invalid_token|rollup_error|@@|{}|\xff\xfe|<html>@@</html>|\x1b]0;@@\x07"),
    *("x" * 200_000, "\0" * 70_000, "[" * 50_000),
]
NO_HTTP = [
    *(b"", b"\n", b"\r\n\r\n", b"220 mail ready\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"-ERR unknown command\r\n", b"ok"),
    *(
        b"\x15\x03\x01\x00\x02\x02P",
        b"\0\0\x12\x04" + b"\0" * 23,
        b"<html>ok</html>",
        b"\0" * 300_000,
        b"\xff" * 300_000,
    ),
    *(b"\r" * 100_000, b"\n" * 300_000, b"HTTP/1.1 " * 30_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 9000),
    b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\n" * 1000,
]


class _Dice(random.Random):
    def rarely(self, usual: str, odd: Sequence[str], share: float = 0.05) -> str:
        return self.choice(odd) if self.random() < share else usual


@cache
def bomb() -> bytes:
    """20 MB of nothing in 20 kB."""
    return gzip.compress(b"\0" * 20_000_000, mtime=0)


def odd_answer(seed: str, secret: bytes) -> bytes:
    """Make the answer of a seed, with ``secret`` wherever the server says it back."""
    dice = _Dice(seed)
    if dice.random() < 0.02:
        return dice.choice([*NO_HTTP, dice.randbytes(dice.randrange(3000))])
    text = _whole(dice)
    for _ in range(dice.choice([0] * 6 + [1, 1, 2, 5])):
        text = _damage(dice, text)
    return text.replace(b"@@", secret)


def _whole(dice: _Dice) -> bytes:
    interim = [_head(dice, dice.choice(["100", "102", "103"]), []) for _ in range(dice.choice([0] * 18 + [1, 3]))]
    body = bomb() if dice.random() < 0.05 else _bytes(dice.rarely("ok", ODD_BODIES, 0.3))
    headers = [_header(dice) for _ in range(dice.choice([0, 1, 1, 2, 2, 3, 3, 3, 8, 30] * 3 + [99, 101]))]
    framing = dice.random()
    if framing < 0.3:
        body = _chunks(dice, body)
        headers.append(f"Transfer-Encoding: {dice.rarely('chunked', CODINGS)}")
    elif framing < 0.8:
        headers.append(f"Content-Length: {dice.rarely(str(len(body)), NUMBERS, 0.2)}")
    dice.shuffle(headers)
    return b"".join([*interim, _head(dice, dice.rarely(dice.choice(STATUS), ODD_STATUS, 0.2), headers), body])


def _head(dice: _Dice, status: str, headers: list[str]) -> bytes:
    end = dice.rarely("\r\n", _pool("\n|\r|\r\r\n|\n\r|"))
    line = f"{dice.rarely('HTTP/1.1', ODD_VERSIONS)} {status} {dice.rarely('OK', ODD_REASONS, 0.1)}"
    return _bytes(end.join([line, *headers, "", ""]))


_HEADERS: tuple[Callable[[_Dice], str], ...] = (
    lambda dice: f"Retry-After: {_date(dice)}",
    lambda dice: f"Retry-After: {dice.choice(NUMBERS)}",
    lambda dice: f"Location: {dice.choice(PLACES)}",
    lambda dice: f"Location: {dice.choice(PLACES)}",
    lambda dice: f"Content-Encoding: {dice.choice(CODINGS)}",
    lambda dice: f"Content-Type: {dice.choice(TYPES)}",
    lambda dice: f"Set-Cookie: {dice.choice(COOKIES)}",
    lambda dice: f"Date: {_date(dice)}",
    lambda dice: f"{dice.choice(NAMES)}: {dice.choice(WORDS)}",
    lambda dice: dice.rarely(f"Content-Length: {dice.choice(NUMBERS)}", ODD_LINES, 0.7),
)


def _header(dice: _Dice) -> str:
    return dice.choice(_HEADERS)(dice)


def _date(dice: _Dice) -> str:
    day = dice.choice(_pool("1|01|31|32|0|-1|x|"))
    parts = [dice.choice(DAYS) + ",", day, *(dice.choice(pool) for pool in (MONTHS, YEARS, CLOCKS, ZONES))]
    if dice.random() < 0.2:
        dice.shuffle(parts)
    return dice.rarely(" ", ["-", "", "  "], 0.2).join(parts)


def _chunks(dice: _Dice, body: bytes) -> bytes:
    """Cut a body into chunks; a size is wrong now and then, and trailers may follow."""
    most = dice.choice([1, 2, 1000]) if len(body) < 2000 else 70_000
    made = []
    for start in range(0, len(body), most):
        chunk = body[start : start + most]
        made += [
            _bytes(dice.rarely(f"{len(chunk):x}", HEX, 0.1)),
            b"\r\n",
            chunk,
            _bytes(dice.rarely("\r\n", ["", "\n", "xx"])),
        ]
    last = _bytes(dice.rarely("0\r\n", ["", "-0\r\n", "00000\r\n", "0;x\r\n"]))
    trailers = [_bytes(_header(dice)) + b"\r\n" for _ in range(dice.choice([0] * 18 + [1, 200]))]
    return b"".join([*made, last, *trailers, b"\r\n"])


def _damage(dice: _Dice, text: bytes) -> bytes:
    """Change an answer somewhere, rather in its head than in its body."""
    at = dice.randrange(min(len(text), dice.choice([20, 200, 10_000_000])) + 1)
    length = dice.choice([1, 1, 2, 5, 50, 5000])
    before, part, after = text[:at], text[at : at + length], text[at + length :]
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: before,
        lambda: before + after,
        lambda: before + dice.randbytes(length) + after,
        lambda: before + part * dice.choice([2, 3, 100]) + after,
        lambda: before + bytes([dice.choice(b"\0\t\n\r\x1b :;,-0129\x7f\xff")]) + text[at + 1 :],
        lambda: before + _bytes(_header(dice)) + part + after,
        lambda: text + _whole(dice)[:length],
    )
    return dice.choice(ways)()


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
