"""Names of hosts as logs write them: which name this host, and which another.

    web-7    WEB-7.example.org    web-7.local    localhost    127.0.0.1    3f2a9c1be07d (a container)

A log server's file has the lines of many hosts. Whatever is measured here says nothing about them.
"""

import re
from functools import lru_cache

# Nobody's domain: installers, home routers and mDNS append these (RFC 6762, RFC 8375).
_NO_DOMAIN = re.compile(r"\.(?:local|localdomain|lan|home|home\.arpa|internal)\Z")
# Such a name is every host's own, or, as a container's id, no host's at all.
_NAMELESS = re.compile(r"localhost\d?|127(?:\.\d{1,3}){3}|::1|\[::1\]|0\.0\.0\.0|[0-9a-f]{12}|[0-9a-f]{64}")


def other_host(named: str | None, here: str | None) -> str | None:
    """Return the name that a line gives its host, where that is another than this one; None where it may be this."""
    return named if named and not may_be_same(named, here) else None


def is_of_boot(source: str, boot_id: str | None) -> bool:
    """Return whether the source of a record says that it is of a boot, and so of the host, whatever name it gives that.

    ``journal:...;b=7f3a1c52000040008000000000000001;...`` or ``kmsg:7f3a1c52-0000-4000-8000-000000000001:...``.
    """
    if not boot_id or not source.startswith(("journal:", "kmsg:")):
        return False
    return source.startswith(f"kmsg:{boot_id}:") or f";b={boot_id.replace('-', '')};" in source


def is_same(one: str | None, other: str | None) -> bool:
    """Return whether two names may be one other host's, or both are None, which is this host."""
    return bool(one) == bool(other) and may_be_same(one, other)


# The lines of one log name a few hosts, each again and again.
@lru_cache(maxsize=16)
def may_be_same(one: str | None, other: str | None) -> bool:
    """Return whether two names may be those of one host: short or with its domain, in any case, or unknown."""
    if one == other:
        return True
    first, second = plain_name(one), plain_name(other)
    if not first or not second or first == second:
        return True
    # With a domain on both sides they differ, and so do addresses.
    short, long = sorted((first, second), key=len)
    return "." not in short and ":" not in short and long.startswith(f"{short}.")


def plain_name(name: str | None) -> str:
    """Return the name that all spellings of one in a log share, without a domain that is nobody's; "" for no name."""
    plain = _NO_DOMAIN.sub("", (name or "").rstrip(".").casefold())
    return "" if _NAMELESS.fullmatch(plain) or plain == "(none)" else plain
