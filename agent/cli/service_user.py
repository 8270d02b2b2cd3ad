"""The service user, and checks made as that user.

Whether another user may write somewhere depends on groups, access lists and mounts; root therefore becomes that user
in a child process and asks the kernel. Mirrors systemd.exec(5), User= and credentials(7).
"""

import grp
import os
import pwd
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import msgspec

from agent.cli.checks import Check
from agent.cli.faults import group_name
from agent.cli.unit import Unit

CHECKS = msgspec.json.Decoder(list[Check])
SYSUSERS = "systemd-sysusers sockmem-agent.conf"


class Identity(NamedTuple):
    """A user with all its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_user(service: Unit | None) -> tuple[Identity | None, Check]:
    """Find the service user; None where the service is not installed, runs as root, or has no existing user."""
    name = "service user"
    if service is None:
        return None, Check(name, "ok", "the service is not installed on this host")
    if service.is_set("DynamicUser"):
        return None, Check(name, "ok", "systemd allocates one at each start (DynamicUser=)")
    setting = service.last("User")
    if setting is None or setting.value in {"root", "0"}:
        return None, Check(name, "warn", "the service runs as root", "remove User= from the unit's drop-ins")
    try:
        found = pwd.getpwnam(setting.value)
    except KeyError:
        return None, Check(name, "fail", f"the user {setting.value} does not exist: the service cannot start", SYSUSERS)
    extra = [*service.words("Group"), *service.words("SupplementaryGroups")]
    groups: dict[str, int] = {}
    for group in extra:
        try:
            groups[group] = grp.getgrnam(group).gr_gid
        except KeyError:
            return None, Check(name, "fail", f"the group {group} does not exist: the service cannot start", SYSUSERS)
    gid = groups.get(next(iter(service.words("Group")), ""), found.pw_gid)
    every = {*os.getgrouplist(found.pw_name, gid), *groups.values()}
    detail = f"{found.pw_name}, in the groups {', '.join(sorted(map(group_name, every)))}"
    return Identity(found.pw_name, found.pw_uid, gid, tuple(sorted(every))), Check(name, "ok", detail)


def look_as(identity: Identity | None, look: Callable[[], list[Check]]) -> list[Check]:
    """Make the checks as this user, or as the caller if there is none or the caller is not root."""
    if identity is None or os.geteuid() != 0:
        return look()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _look_and_leave(identity, look, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        sys.exit(1)  # The child has printed why.
    return CHECKS.decode(answer)


def _look_and_leave(identity: Identity, look: Callable[[], list[Check]], pipe: int) -> NoReturn:
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        with os.fdopen(pipe, "wb") as answer:
            answer.write(msgspec.json.encode(look()))
    except BaseException:  # noqa: BLE001 - a forked child must not go on as a second parent
        traceback.print_exc()
    finally:
        os._exit(0)
