"""A change of one kernel setting as an advice: the command for now, the sysctl.d text for good (sysctl.d(5)).

# sockmem-agent: orphaned TCP sockets have room here. It was 65536.
# Put this into /etc/sysctl.d/90-sockmem-tcp_max_orphans.conf, then run: sysctl --system
net.ipv4.tcp_max_orphans = 244736
"""

from agent.core.model import Advice, Sysctl


def change(
    key: str,
    current: int | tuple[int, ...] | None,
    proposed: int | tuple[int, ...],
    *,
    action: str,
    why: str,
    risk: str,
    reason: str,
) -> Advice:
    """Advise to set ``key`` to ``proposed``; ``reason`` is the one line that the file keeps for those who find it."""
    value = _text(proposed)
    quoted = f"'{value}'" if " " in value else value
    name = key.rsplit(".", maxsplit=1)[-1]
    before = "" if current is None else f" It was {_text(current)}."
    persist = (
        f"# sockmem-agent: {reason}{before}\n"
        f"# Put this into /etc/sysctl.d/90-sockmem-{name}.conf, then run: sysctl --system\n"
        f"{key} = {value}\n"
    )
    return Advice(
        action=action,
        why=why,
        risk=risk,
        sysctl=Sysctl(key=key, current=current, proposed=proposed),
        commands=(f"sysctl -w {key}={quoted}",),
        persist=persist,
    )


def _text(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else " ".join(str(each) for each in value)
