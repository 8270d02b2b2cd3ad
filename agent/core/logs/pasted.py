"""Lines that a person hands over: retyped, cut, garbled or quoted on their way, and spelled as the kernel does again.

Out of Socket Memory
27341.246171] TCP: too many orphaned sockets
"May 26 10:11:12 web1 kernel: TCP: out of memory - consider tuning tcp_mem"
"""

import re

from agent.core.logs.envelope import split_head

# Each message loosely, and as the kernel spells it. A word behind it makes another record of it, but for tcp_mem, where
# nothing else begins like that.
HANDED = tuple(
    (re.compile(rf"(?<!\w){pattern}".replace(" ", r"\s+"), re.IGNORECASE), spelling)
    for pattern, spelling in (
        (r"out of socket memory(?!\s+[^\W\d_])", "Out of socket memory"),
        (r"TCP[\s:]*too many of orphaned sockets(?!\s+[^\W\d_])", "TCP: too many of orphaned sockets"),
        (r"TCP[\s:]*too many orphaned sockets(?!\s+[^\W\d_])", "TCP: too many orphaned sockets"),
        (r"TCP[\s:]*out of memory.{0,12}?consider", "TCP: out of memory -- consider tuning tcp_mem"),
        (r"printk:\s*(\d{1,10}) messages suppressed", r"printk: \1 messages suppressed."),
        (r"((?:net_|__)ratelimit):\s*(\d{1,10}) callbacks suppressed", r"\1: \2 callbacks suppressed"),
    )
)
MAX_HEAD = 400
# Quotation marks, bullets, what is left of a cut head, and a priority that no kernel has.
ADORNMENT = re.compile(r"(?:[\s>*#|+\-–—•·.…:,\"'`“”„«»‘’]|&gt;|<\d{1,3}>)*")  # noqa: RUF001 - typographic ones are meant
# What only the kernel's record has directly before its text: the tag, or printk's stamp, that may have lost its start.
MARK = re.compile(
    r"(?P<tag>(?<![\w.-])kern(?:el(?:\[0?\])?[\]>]?[\s:]+|\.\w+:?\s+|el [-0] \S+ -\s+))?"
    r"(?:<\d>\s*)?(?P<stamp>\[?\s*\d{1,12}\.\d{3,9}\]\s*)?(?:\[\s*[TC]\d+\]\s*)?[\W_]*$"
)
# Another program's tag or field, or the middle of its text.
OTHERS = re.compile(r"[=;|$\"'`{}\\]|[^\W\d]\S*:(?!\S)")
# The parts of an envelope that name another speaker than the kernel, or a level as applications write it.
SPEAKERS = frozenset("YWFoL")
CLOCK = re.compile(r"\d:\d\d")


def respellings(line: str) -> tuple[str, ...]:
    """Spell a line that a person handed over as the kernel does: with all that stands before it, then with ever less.

    Empty when none of the messages is in it; only the whole line, for syslog's grammar to decide, when another program
    seems to speak. For a log this would be far too much trust: no person vouches for its lines.
    """
    found = ((match, spelling) for pattern, spelling in HANDED if (match := pattern.search(line)))
    match, spelling = next(found, (None, ""))
    if match is None or match.start() > MAX_HEAD:
        return ()
    head, text = line[: match.start()], match.expand(spelling)
    adorned, mark = ADORNMENT.match(head), MARK.search(head)
    marks = [mark.start(part) for part in ("tag", "stamp") if mark and mark[part]]
    start = adorned.end() if adorned else 0
    before = head[start : marks[0] if marks else None]
    # Without a mark, only a date with a host is a head.
    is_tagged = mark is not None and ":" in (mark["tag"] or "")
    is_bare = not is_tagged and (CLOCK.search(before) is None or set("[](){}<>?!") & set(before.strip("[] ")))
    is_others = any(part.letter in SPEAKERS for part in split_head(head[start:]))
    if is_others or (any(map(str.isalpha, before)) and (OTHERS.search(before) or is_bare)):
        return (head + text,)
    return tuple(head[start:] + text for start in (0, start, *marks, len(head)))
